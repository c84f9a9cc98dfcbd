import json

import numpy as np
import pytest

from jaxface.data import votes
from jaxface.data.votes import in_manifest, labels, read_votes, tasks_of
from jaxface.errors import UserError


def write(folder, *lines, heading="file,subject,rater,vote", name="votes.csv"):
    path = folder / name
    path.write_text("\n".join([heading, *lines]) + "\n", encoding="utf-8")
    return path


def test_one_row_a_vote(tmp_path):
    path = write(
        tmp_path,
        "b.png,S2,Ann,No",
        "sub\\a.png,S1,Bob,yes",
        "sub/a.png,S1,Ann,1",
        "sub/a.png,S1,Cem,",
        "b.png,S2,Bob,TRUE",
        ",,,",
        "b.png,S2,Bob,yes",
        "c.png,S2,Cem,?",
    )
    read = read_votes(path, "Smile")
    assert (read.task, read.level, read.items) == ("smile", "file", ("b.png", "c.png", "sub/a.png"))
    assert read.subjects == ("S2", "S2", "S1") and read.rows == (2, 9, 3)
    assert read.raters == ("Ann", "Bob", "Cem")
    assert read.table.tolist() == [[0, 1, -1], [-1, -1, -1], [1, 1, -1]]
    assert read.counts.tolist() == [[1, 1], [0, 0], [0, 2]]
    assert read.abstained.tolist() == [0, 1, 1] and read.repeated == 1
    expected = {
        "b.png": {"votes": [1, 1], "label": -1},
        "c.png": {"votes": [0, 0], "label": -1},
        "sub/a.png": {"votes": [0, 2], "label": 1},
    }
    assert labels(read) == expected and json.loads(json.dumps(labels(read))) == expected


def test_counts(tmp_path):
    path = write(
        tmp_path,
        "b.png,3,4,10",
        "a.png,0,17,",
        "c.png,2,2,4.0",
        heading="item,for,against,total",
    )
    read = read_votes(path, "smile")
    assert read.raters == () and read.table.shape == (3, 0)
    assert labels(read) == {
        "a.png": {"votes": [17, 0], "label": 0},
        "b.png": {"votes": [4, 3], "label": 0},
        "c.png": {"votes": [2, 2], "label": -1},
    }
    assert read.abstained.tolist() == [0, 3, 0]
    assert read_votes(path, "smile", asked=17).abstained.tolist() == [0, 10, 13]


def test_votes_on_people(tmp_path):
    path = write(
        tmp_path,
        "S1,Ann,female",
        "S1,Bob,F",
        "S2,Ann,男性",
        "S2,Bob,",
        heading="subject,rater,vote",
    )
    read = read_votes(path, "sex")
    assert read.level == "subject" and read.subjects == read.items == ("S1", "S2")
    assert [one["label"] for one in labels(read).values()] == [1, 0]


def test_two_tasks_in_one_file(tmp_path):
    lines = ["smile,a.png,S1,Ann,yes", "smile,b.png,S1,Ann,no", "Sex,,S1,Ann,female"]
    path = write(tmp_path, *lines, heading="task,file,subject,rater,vote")
    assert tasks_of(path) == ("sex", "smile")
    smile, sex = (read_votes(path, task) for task in ("smile", "sex"))
    assert (smile.level, smile.items) == ("file", ("a.png", "b.png"))
    assert (sex.level, sex.items, sex.rows) == ("subject", ("S1",), (4,))
    with pytest.raises(UserError, match=r"no votes on the task 'smiles'. Did you mean 'smile'"):
        read_votes(path, "smiles")
    assert tasks_of(write(tmp_path, "a.png,S1,Ann,yes")) == ()


def test_what_spreadsheets_write(tmp_path):
    path = tmp_path / "votes.csv"
    for delimiter in ";\t":
        text = "Subject;Rater;Vote\r\n山田;一;はい\r\n山田;二;はい\r\n".replace(";", delimiter)
        path.write_bytes(text.encode("utf-8-sig"))
        assert labels(read_votes(path, "smile")) == {"山田": {"votes": [0, 2], "label": 1}}


@pytest.mark.parametrize(
    "heading,lines,said",
    [
        ("file,rater,vote", ["a,Ann,maybe"], ["row 2, vote", "'maybe' is no answer to 'smile'"]),
        ("file,rater,vote", ["a,Ann,maybe"], ["yes or no, 1 or 0, smile or no smile", "abstain"]),
        ("file,rater,vote", ["a,Ann,female"], ["it answers 'sex'"]),
        (
            "file,rater,vote",
            ["a,Ann,yes", "a,Bob,cat", "b,Ann,dog"],
            ["row 3, vote", "3 different answers", "'cat', 'dog'", "a task has two"],
        ),
        (
            "file,rater,vote",
            ["a,Ann,yes", "b,Ann,no", "a,Ann,0"],
            ["row 4, vote", "Ann says no of 'a', and yes in row 2", "keep one"],
        ),
        ("file,rater,vote", ["a,Ann,yes", "a,Ann,"], ["row 3", "says nothing", "yes in row 2"]),
        ("file,rater,vote", ["a,,yes"], ["row 2, rater: empty"]),
        ("file,rater,vote", [",Ann,yes"], ["row 2, file: empty: what was voted on?"]),
        ("file,rater,vote", ["a,Ann,", "b,Ann,-"], ["no vote on 'smile'", "everybody abstained"]),
        (
            "file,subject,rater,vote",
            ["a,S1,Ann,yes", "a,S2,Bob,yes"],
            ["row 3, subject: 'a' is 'S2' here and 'S1' in row 2"],
        ),
        (
            "file,subject,rater,vote",
            ["a,S1,Ann,yes", ",S1,Ann,yes"],
            ["row 3, file: a vote on a person, but row 2 is on a photograph"],
        ),
        ("file,for,against", ["a,1,-1"], ["row 2, against: '-1' is no whole number"]),
        ("file,for,against", ["a,1.5,1"], ["row 2, for: '1.5' is no whole number"]),
        ("file,for,against", ["a,nan,1"], ["row 2, for: 'nan' is no whole number"]),
        ("file,for,against", ["a,,1"], ["row 2, for: '' is no whole number"]),
        ("file,for,against", ["a,1,0", "a,1,0"], ["row 3", "'a' has row 2 already"]),
        ("file,for,against", ["a,0,0"], ["no vote on 'smile'"]),
        (
            "file,for,against,total",
            ["a,9,9,17"],
            ["row 2, total: 9 for and 9 against are more than 17"],
        ),
        ("file,for,against,total", ["a,9,8,x"], ["row 2, total: 'x' is no whole number"]),
        ("file,for", ["a,1"], ["file or subject", "for and against", "it names file, for"]),
        ("rater,vote", ["Ann,yes"], ["no column file or subject"]),
        ("file,rater,vote,for", ["a,Ann,yes,1"], ["columns of both forms", "for, rater, vote"]),
        ("file,item,rater,vote", ["a,a,Ann,yes"], ["file and item: keep one"]),
        ("file,rater,vote,vote", ["a,Ann,yes,no"], ["has column vote twice"]),
        ("file,rater,vote", [], ["has no votes: add a row"]),
    ],
)
def test_bad_votes(tmp_path, heading, lines, said):
    with pytest.raises(UserError) as caught:
        read_votes(write(tmp_path, *lines, heading=heading), "smile")
    for part in ["votes.csv", *said]:
        assert part in str(caught.value)


def test_bad_files(tmp_path):
    with pytest.raises(UserError, match=r"none.csv is missing: write one row a vote"):
        read_votes(tmp_path / "none.csv", "smile")
    (tmp_path / "votes.csv").write_bytes(b"")
    with pytest.raises(UserError, match=r"must name the columns"):
        read_votes(tmp_path / "votes.csv", "smile")
    many = write(tmp_path, *(f"a{n}.png,S,Ann,perhaps" for n in range(7)))
    with pytest.raises(UserError) as caught:
        read_votes(many, "smile")
    assert "row 6, vote" in str(caught.value) and "and 2 more" in str(caught.value)


def test_more_votes_than_were_asked(tmp_path):
    long = write(tmp_path, "a,S,Ann,yes", "a,S,Bob,", "a,S,Cem,no")
    assert read_votes(long, "smile", asked=4).abstained.tolist() == [2]
    counts = write(tmp_path, "a,1,1,3", heading="file,for,against,total", name="counts.csv")
    for path in (long, counts):
        assert read_votes(path, "smile", asked=3).abstained.tolist() == [1]
        with pytest.raises(UserError, match=r"row 2: 'a' has 3 voters, but only 2 were asked"):
            read_votes(path, "smile", asked=2)
    with pytest.raises(UserError, match=r"0 voters were asked"):
        read_votes(long, "smile", asked=0)


def test_votes_of_a_manifest(tmp_path):
    lines = ["a.png,Ann,yes", "b.png,Ann,no"]
    read = read_votes(write(tmp_path, *lines, heading="file,rater,vote"), "smile")
    assert read.subjects == ("a.png", "b.png")
    people = {"a.png": "S1", "b.png": "S1", "c.png": "S2"}
    assert in_manifest(read, people).subjects == ("S1", "S1")
    with pytest.raises(UserError, match=r"row 3, file: 'b.png' is not in the manifest: correct"):
        in_manifest(read, {"a.png": "S1"})
    with pytest.raises(UserError, match=r"row 2.*\(and 1 more like it\)"):
        in_manifest(read, {"x.png": "S1"})
    read = read_votes(write(tmp_path, "a.png,S1,Ann,yes"), "smile")
    with pytest.raises(
        UserError, match=r"row 2, subject: 'a.png' is 'S1' here and 'S9' in the man"
    ):
        in_manifest(read, {"a.png": "S9"})
    read = read_votes(write(tmp_path, "S1,Ann,yes", heading="subject,rater,vote"), "smile")
    assert in_manifest(read, people) is read
    with pytest.raises(UserError, match=r"row 2, subject: 'S1' is not in the manifest"):
        in_manifest(read, {"a.png": "S2"})


def test_the_majority_is_a_loop_over_votes():
    rng = np.random.default_rng(5)
    table = rng.integers(-1, 2, (200, 6)).astype(np.int8)
    counts = np.stack([(table == 0).sum(1), (table == 1).sum(1)], 1)
    empty = (("",) * 200,) * 2
    read = votes.Votes(None, "smile", "file", *empty, (), (), table, counts, counts[:, 0], 0)
    for row, label in zip(table.tolist(), read.majority.tolist()):
        assert label == (row.count(1) > row.count(0)) - (row.count(1) == row.count(0))
