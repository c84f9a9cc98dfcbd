import csv
import math
import subprocess
import sys

import pytest

from jaxface.data import manifest
from jaxface.data.manifest import read_manifest, write_manifest
from jaxface.errors import UserError


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "sub").mkdir()
    for name in ("a.png", "b.png", "sub/c.png"):
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


def write(folder, *lines, heading="file,subject,consent"):
    (folder / "manifest.csv").write_text("\n".join([heading, *lines]) + "\n", encoding="utf-8")


def test_reads_in_order_and_tells_what_has_no_row(folder):
    heading = "Severity, note ,file,consent,side,subject"
    write(
        folder,
        '0.25,"says ""yes"", twice",sub/c.png,research;teaching,LEFT,S2',
        ",,,,,",
        ",,a.png,yes,,S1",
        heading=heading,
    )
    read = read_manifest(folder)
    first, second = read.rows
    assert (first.file, first.subject, first.side) == ("a.png", "S1", "unknown")
    assert math.isnan(first.severity)
    assert (second.file, second.side, second.severity) == ("sub/c.png", "left", 0.25)
    assert read.without_row == ("b.png",)
    assert read_manifest(folder, purpose="Teaching").rows[1] == second


def test_what_spreadsheets_write(folder):
    text = "file;subject;consent;side\r\nsub\\c.png;山田;Yes;none\r\n"
    (folder / "other.csv").write_bytes(text.encode("utf-8-sig"))
    (row,) = read_manifest(folder, folder / "other.csv").rows
    assert (row.file, row.subject, row.side) == ("sub/c.png", "山田", "none")


@pytest.mark.parametrize(
    "line,said",
    [
        ("x.png,S1,yes,,", ["row 2", "file", "'x.png' is not in the folder", "delete the row"]),
        (",S1,yes,,", ["row 2", "file", "empty"]),
        ("../a.png,S1,yes,,", ["row 2", "file", "outside the folder"]),
        ("/etc/hostname,S1,yes,,", ["row 2", "file", "outside the folder"]),
        ("sub,S1,yes,,", ["row 2", "file", "not in the folder"]),
        ("a.png,,yes,,", ["row 2", "subject", "empty"]),
        ("a.png,S1,,,", ["row 2", "consent", "research", "delete the row"]),
        ("a.png,S1,no,,", ["row 2", "consent", "'no'"]),
        ("a.png,S1,teaching,,", ["row 2", "consent", "'teaching'"]),
        ("a.png,S1,yes,both,", ["row 2", "side", "'both'", "left, right"]),
        ("a.png,S1,yes,,1.5", ["row 2", "severity", "1.5", "0 to 1"]),
        ("a.png,S1,yes,,nan", ["row 2", "severity"]),
        ("a.png,S1,yes,,bad", ["row 2", "severity", "'bad'"]),
    ],
)
def test_bad_rows(folder, line, said):
    write(folder, line, heading="file,subject,consent,side,severity")
    with pytest.raises(UserError) as caught:
        read_manifest(folder)
    for part in ["manifest.csv", *said]:
        assert part in str(caught.value)


def test_two_rows_with_one_file(folder):
    write(folder, "a.png,S1,yes", "b.png,S1,yes", "sub/../a.png,S2,yes")
    with pytest.raises(UserError, match=r"row 4, file: 'a.png' has row 2 already: keep one"):
        read_manifest(folder)


def test_link_out_of_the_folder(folder, tmp_path_factory):
    target = tmp_path_factory.mktemp("other") / "secret.png"
    target.write_bytes(b"x")
    (folder / "link.png").symlink_to(target)
    write(folder, "link.png,S1,yes")
    with pytest.raises(UserError, match="outside the folder"):
        read_manifest(folder)


def test_all_problems_in_one_message(folder):
    write(folder, *[f"{i}.png,,yes" for i in range(9)])
    with pytest.raises(UserError) as caught:
        read_manifest(folder)
    message = str(caught.value)
    assert message.count("\n") == 6 and "row 2" in message and "and 13 more" in message


def test_bad_files(folder):
    with pytest.raises(UserError, match=r"python -m jaxface.data.manifest .* --consent=yes"):
        read_manifest(folder)
    with pytest.raises(UserError, match="is no folder"):
        read_manifest(folder / "absent")
    write(folder, heading="file,subject")
    with pytest.raises(UserError, match="no column consent"):
        read_manifest(folder)
    write(folder, heading="file,subject,consent,file")
    with pytest.raises(UserError, match="column file twice"):
        read_manifest(folder)
    write(folder)
    with pytest.raises(UserError, match="no rows"):
        read_manifest(folder)
    (folder / "manifest.csv").write_bytes("file,subject,consent\n山.png".encode("shift-jis"))
    with pytest.raises(UserError, match="UTF-8"):
        read_manifest(folder)
    write(folder, 'a.png,"S1,yes')
    with pytest.raises(UserError, match="no CSV file"):
        read_manifest(folder)
    (folder / "manifest.csv").write_text("")
    with pytest.raises(UserError, match="no column file, subject, consent"):
        read_manifest(folder)


def test_writes_what_it_reads(folder):
    assert write_manifest(folder, "research")[1:] == (3, 3)
    read = read_manifest(folder)
    assert [row.file for row in read.rows] == ["a.png", "b.png", "sub/c.png"]
    assert [row.subject for row in read.rows] == ["a", "b", "c"]
    first = (folder / "manifest.csv").read_bytes()
    with pytest.raises(UserError, match="--overwrite"):
        write_manifest(folder, "yes")
    write_manifest(folder, "research", overwrite=True)
    assert (folder / "manifest.csv").read_bytes() == first
    with pytest.raises(UserError, match="purpose 'teaching'"):
        read_manifest(folder, purpose="teaching")


def test_subjects(folder):
    (folder / "sub/a.png").write_bytes(b"x")
    write_manifest(folder, "yes")
    assert [r.subject for r in read_manifest(folder).rows] == ["a", "b", "sub/a", "sub/c"]
    with pytest.raises(UserError, match="2 images, 'a.png' for one"):
        write_manifest(folder, "yes", "folder", overwrite=True)
    for name in ("a.png", "b.png"):
        (folder / name).unlink()
    assert write_manifest(folder, "yes", "folder", overwrite=True)[1:] == (2, 1)
    assert {r.subject for r in read_manifest(folder).rows} == {"sub"}


def test_pairs_are_read_where_they_are_asked_for(folder):
    write(
        folder,
        "a.png,S1,yes,sub\\c.png,,FRONT,",
        "b.png,S2,yes,,,,Tablet",
        heading="file,subject,consent,uv,mask,view,device",
    )
    paired, phone = read_manifest(folder, pairs=True).rows
    assert (paired.uv, paired.mask, paired.view, paired.device) == ("sub/c.png", "", "front", "")
    assert (phone.uv, phone.view, phone.device) == ("", "unknown", "tablet")
    assert read_manifest(folder, pairs=True).without_row == ()
    plain = read_manifest(folder)
    assert [row.uv for row in plain.rows] == ["", ""] and plain.without_row == ("sub/c.png",)


@pytest.mark.parametrize(
    "lines,said",
    [
        (["a.png,S,yes,x.png,"], "row 2, uv: 'x.png' is not in the folder: .* or leave it empty"),
        (["a.png,S,yes,,x.png"], "row 2, mask: 'x.png' is not in the folder"),
        (["a.png,S,yes,../b.png,"], "row 2, uv: '../b.png' lies outside"),
        (["a.png,S,yes,a.png,"], "row 2, uv: 'a.png' has row 2 already"),
        (["a.png,S,yes,sub/c.png,", "b.png,S,yes,sub/c.png,"], "row 3, uv: 'sub/c.png' has row 2"),
        (["a.png,S,yes,b.png,", "b.png,S,yes,,"], "row 3, file: 'b.png' has row 2"),
    ],
)
def test_bad_pairs(folder, lines, said):
    write(folder, *lines, heading="file,subject,consent,uv,mask")
    with pytest.raises(UserError, match=said):
        read_manifest(folder, pairs=True)


def test_pairs_are_found_by_their_names(folder, capsys):
    for name in ("a_UV.tif", "a_mask.png", "sub/c_uv.png"):
        (folder / name).write_bytes(b"x")
    assert write_manifest(folder, "yes", pairs="_uv")[1:] == (3, 3)
    rows = read_manifest(folder, pairs=True).rows
    assert [(row.file, row.subject, row.uv, row.mask) for row in rows] == [
        ("a.png", "a", "a_UV.tif", "a_mask.png"),
        ("b.png", "b", "", ""),
        ("sub/c.png", "c", "sub/c_uv.png", ""),
    ]
    first = (folder / "manifest.csv").read_text()
    arguments = [str(folder), "--consent=yes", "--overwrite"]
    assert manifest.main([*arguments, "--pairs"]) == 0
    assert "must carry one subject" in capsys.readouterr().out
    assert (folder / "manifest.csv").read_text() == first
    (folder / "d_uv.png").write_bytes(b"x")
    with pytest.raises(UserError, match=r"d_uv.png: 0 photographs are called d\.\*"):
        write_manifest(folder, "yes", overwrite=True, pairs="_uv")
    (folder / "d_uv.png").unlink()
    (folder / "a_uv.png").write_bytes(b"x")
    with pytest.raises(UserError, match="a_uv.png: a.png has a_UV.tif already"):
        write_manifest(folder, "yes", overwrite=True, pairs="_uv")
    assert (folder / "manifest.csv").read_text() == first


def test_command(folder, capsys):
    assert manifest.main([str(folder)]) == 2
    assert "--consent=yes" in capsys.readouterr().err and not (folder / "manifest.csv").exists()
    assert manifest.main([str(folder), "--consent=no"]) == 2
    assert manifest.main([str(folder / "absent"), "--consent=yes"]) == 2
    assert "is no folder" in capsys.readouterr().err
    assert manifest.main([str(folder), "--consent=yes", f"--output={folder}/nowhere/m.csv"]) == 2
    assert "--output" in capsys.readouterr().err
    assert manifest.main([str(folder), "--consent=yes", f"--output={folder}/m.csv"]) == 0
    assert "3 images of 3 people" in capsys.readouterr().out
    with (folder / "m.csv").open(newline="") as file:
        assert [row["consent"] for row in csv.DictReader(file)] == ["yes"] * 3
    with pytest.raises(SystemExit, match="2"):
        manifest.main([str(folder), "--subject=shoe"])


def test_command_in_a_shell(folder):
    command = [
        sys.executable,
        "-m",
        "jaxface.data.manifest",
        str(folder / "absent"),
        "--consent=yes",
    ]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 2 and "Traceback" not in result.stderr
