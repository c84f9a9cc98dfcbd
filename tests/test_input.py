"""--mode=sample --input: a user's photographs through a system that only turns them around."""

import csv
import io
import json
import pathlib
import struct
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import launch
from jaxface import train
from jaxface.checkpoint import Checkpoints
from jaxface.data.images import list_images, read_image
from jaxface.errors import UserError
from jaxface.system import Reading, RunConfig, System, TrainState
from jaxface.workdir import Workdir


class Config(RunConfig):
    num_steps = 3


CONFIG = Config(data="phantom_of_tests")


def negatives(state, path):
    """Stands for a network: the negative of each photograph."""
    path = pathlib.Path(path)
    for name in list_images(path) if path.is_dir() else [path.name]:
        try:
            image = read_image(path / name if path.is_dir() else path)
        except UserError as error:
            yield name, error
            continue
        pictures = {"uv": (255 - image)[..., 0], "side_by_side": np.hstack([image, 255 - image])}
        numbers = {"spot_ratio_right_cheek": image.mean() / 1000, "step": int(state.step)}
        yield name, Reading(pictures, numbers, ("a beard <b>perhaps</b>",) if "b" in name else ())


def fake(readings=negatives) -> System:
    def init(key):
        return TrainState(jnp.int32(0), {"n": {"w": jnp.zeros(2)}}, {"n": {}}, {"n": {}}, {}, {})

    return System(init, None, None, {}, None, readings=readings)


@pytest.fixture
def workdir(tmp_path):
    """A run with a checkpoint at step 3."""
    folder = Workdir(tmp_path / "run")
    folder.path.mkdir()
    state = fake().init(jax.random.key(0)).replace(step=jnp.int32(3))
    checkpoints = Checkpoints(folder.path / "checkpoints", keep=1, log=print)
    checkpoints.save(3, state, {"config": {}, "data": {"step": 3}, "run": {}}, wait=True)
    assert checkpoints.failure is None
    return folder


@pytest.fixture
def photos(tmp_path):
    """Two good photographs, one of them lying on its side by EXIF, and five bad files."""
    folder = tmp_path / "private place"
    (folder / "second").mkdir(parents=True)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (40, 60, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "Jane Doe"  # turn a quarter clockwise; description
    Image.fromarray(pixels).save(folder / "a.png", exif=exif)
    Image.fromarray(pixels).save(folder / "second" / "b.png")
    Image.fromarray(pixels).save(folder / "second" / "A.webp", lossless=True)
    (folder / "text.jpg").write_text("no picture at all")
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="JPEG")
    (folder / "cut.jpg").write_bytes(buffer.getvalue()[:-300])
    (folder / "empty.png").touch()
    (folder / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic")
    chunk = lambda kind, data: (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    )
    header = struct.pack(">IIBBBBB", 10000, 10000, 8, 2, 0, 0, 0)
    huge = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0"))
    (folder / "huge.png").write_bytes(huge + chunk(b"IEND", b""))
    (folder / "notes.txt").write_text("not asked for")
    return folder


BAD = ("text.jpg", "cut.jpg", "empty.png", "phone.heic", "huge.png")


def test_reads_a_folder_and_names_what_it_cannot(workdir, photos, capsys):
    assert train.read_input(fake(), CONFIG, workdir, photos) == 0
    told = capsys.readouterr().out
    for name in BAD:
        assert name in told, name
    with open(workdir.path / "readings.csv", newline="") as file:
        rows = {row["file"]: row for row in csv.DictReader(file)}
    assert set(rows) == {"a.png", "second/b.png", "second/A.webp", *BAD}
    assert all(rows[name]["error"] and not rows[name]["step"] for name in BAD)
    assert "100" in rows["huge.png"]["error"] or "10000" in rows["huge.png"]["error"]
    assert "truncated" in rows["cut.jpg"]["error"] and "JPEG" in rows["phone.heic"]["error"]
    good = rows["second/b.png"]
    assert good["step"] == "3" and good["warnings"] == "a beard <b>perhaps</b>"
    assert float(good["spot_ratio_right_cheek"]) == pytest.approx(0.1275, rel=0.1)
    assert rows["a.png"]["folder"] == "a" and rows["second/A.webp"]["folder"] == "A-2"


def test_pictures_are_upright_at_full_size_and_say_what_they_are(workdir, photos):
    train.read_input(fake(), CONFIG, workdir, photos)
    folders = sorted(f.name for f in (workdir.path / "readings").iterdir())
    assert folders == ["A-2", "a", "b"]
    sides = sorted(f.name for f in (workdir.path / "readings" / "a").iterdir())
    assert sides == ["side_by_side.png", "uv.png"]
    with Image.open(workdir.path / "readings/a/uv.png") as picture:
        np.testing.assert_array_equal(picture, 255 - read_image(photos / "a.png")[..., 0])
        assert picture.size == (40, 60) and not picture.getexif()
        said = picture.text
    assert len(said["checkpoint_sha256"]) == 64 and said["seed"] == "0"
    assert "no real person" not in str(said)
    raw = (workdir.path / "readings/a/uv.png").read_bytes()
    for secret in (b"Jane", b"private place", b"a.png"):
        assert secret not in raw, secret


def test_the_page_stands_alone_and_never_changes(workdir, photos):
    train.read_input(fake(), CONFIG, workdir, photos)
    page = (workdir.path / "readings.html").read_text()
    digest = Checkpoints(workdir.path / "checkpoints", keep=1, log=print).digest(3)
    assert digest in page and "not a diagnosis" in page and "digital phantom" in page
    assert page.count('src="data:image/jpeg;base64,') == 3
    assert "http" not in page and "private place" not in page and "Jane" not in page
    assert "a beard &lt;b&gt;perhaps&lt;/b&gt;" in page and "<b>" not in page
    broken = page[page.index('<section id="broken"') :]
    assert all(name in broken for name in BAD)
    train.read_input(fake(), CONFIG, workdir, photos)
    assert (workdir.path / "readings.html").read_text() == page


def test_one_file_and_what_an_earlier_one_left(workdir, photos):
    train.read_input(fake(), CONFIG, workdir, photos / "a.png")
    assert (workdir.path / "readings/a/uv.png").exists()
    page = (workdir.path / "readings.html").read_text()
    assert "one photograph" in page and 'id="broken"' not in page
    broken = photos / "a.jpg"
    broken.write_text("no picture")
    (photos / "a.png").unlink()
    train.read_input(fake(), CONFIG, workdir, photos)  # a.jpg takes the place of a.png
    assert not (workdir.path / "readings/a/uv.png").exists()


def test_nothing_could_be_read(workdir, photos, tmp_path):
    with pytest.raises(UserError, match=r"(?s)none of 1.*text.jpg: no readable") as error:
        train.read_input(fake(), CONFIG, workdir, photos / "text.jpg")
    assert not (workdir.path / "readings.html").exists()
    assert (
        str(error.value).count("text.jpg") == 2
    )  # once as what was asked for, once as what failed
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UserError, match="no photograph in it"):
        train.read_input(fake(), CONFIG, workdir, empty)


def test_a_system_without_readings(workdir, photos):
    with pytest.raises(UserError, match="reads no photographs"):
        train.read_input(fake(None), CONFIG, workdir, photos)


def test_pictures_that_must_not_leave_the_run(workdir, photos):
    def release(path, digest):
        raise UserError(f"judge {digest[:4]} first")

    with pytest.raises(UserError, match="first"):
        train.read_input(fake()._replace(release=release), CONFIG, workdir, photos)
    assert not (workdir.path / "readings").exists()


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--mode=sample", "--input=/no/such.jpg"], ["/no/such.jpg", "not there"]),
        (["--mode=train", "--input={photos}"], ["--mode=train", "--mode=sample"]),
        (["--input={photos}"], ["--mode=train", "--mode=sample"]),
        (["--mode=sample", "--input={photos}", "--show=mixing"], ["--show", "--input"]),
        (["--mode=sample", "--input={photos}", "--num=3"], ["--num", "--input"]),
    ],
)
def test_launcher_refuses_at_once(capsys, tmp_path, photos, arguments, words):
    arguments = [a.format(photos=photos) for a in arguments]
    where = f"--workdir={tmp_path / 'run'}"
    status = launch.guarded(["launch.py", "--experiment=cleftgan:tiny", where, *arguments], None)
    message = capsys.readouterr().err
    assert status == 2 and all(word in message for word in words), message


def test_launcher_hands_the_path_on(monkeypatch, workdir, photos):
    from jaxface.preemption import Preemption

    given = []
    monkeypatch.setattr(train, "read_input", lambda *arguments: given.extend(arguments) or 0)
    run = {"run": {"experiment": "cleftgan", "scale": "tiny"}}
    (workdir.path / "config.json").write_text(json.dumps(run))
    arguments = ["--mode=sample", f"--workdir={workdir.path}", f"--input={photos}"]
    with Preemption() as preemption:
        assert launch.guarded(["launch.py", *arguments], preemption) == 0
    assert given[3] == photos and given[2].path == workdir.path
