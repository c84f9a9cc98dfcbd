import csv
import json
import re

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
    path = write(tmp_path, "0,S1,Ann,female", "1,S2,Ann,male", heading=",subject,rater,vote")
    assert read_votes(path, "sex").items == ("S1", "S2")  # row numbers, as tables are saved with


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
        ("file,for,against", ["a,1e300,1"], ["row 2, for: '1e300' is no whole number"]),
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


def test_the_majority_is_a_loop_over_votes(tmp_path):
    rng = np.random.default_rng(5)
    said = {f"{n}.png": rng.choice(["yes", "no", ""], 6, p=(0.4, 0.4, 0.2)) for n in range(60)}
    lines = [f"{name},S,r{r},{vote}" for name, row in said.items() for r, vote in enumerate(row)]
    found = labels(read_votes(write(tmp_path, *lines), "smile"))
    assert {one["label"] for one in found.values()} == {1, 0, -1}
    for name, row in said.items():
        yes, no = (list(row).count(word) for word in ("yes", "no"))
        assert found[name] == {
            "votes": [no, yes],
            "label": 1 if yes > no else 0 if no > yes else -1,
        }


@pytest.fixture(scope="module")
def panel(tmp_path_factory):
    """Votes of two good voters, two poor ones, one who has it the wrong way round, one who abstained."""
    rng = np.random.default_rng(8)
    skill = {"Ann": 0.97, "Bob": 0.95, "Cem": 0.5, "Dai": 0.52, "Eve": 0.1}
    lines = ["two.png,P,Ann,yes", "none.png,P,Fay<b>,", "one.png,P,Ann,no"]
    for number in range(300):
        truth = rng.random() < 0.45
        for name, p in skill.items():
            vote = truth if rng.random() < p else not truth
            lines.append(
                f"{number:03}.png,P{number // 5:02},{name},{'smile' if vote else 'neutral'}"
            )
    return write(tmp_path_factory.mktemp("panel"), *lines, name="panel.csv")


@pytest.fixture(scope="module")
def told(panel):
    return votes.count(read_votes(panel, "smile"), resamples=50)


def test_what_the_votes_say(told):
    assert told.kappa.n == 61 and told.kappa.low < told.kappa.value < told.kappa.high
    assert told.alpha.value == pytest.approx(told.kappa.value, abs=0.01)
    by_name = {one.name: one for one in votes.voters(told)}
    assert (
        by_name["Ann"].votes == 302
        and not by_name["Ann"].remark
        and by_name["Ann"].yes_of_yes > 0.9
    )
    assert "hardly more than chance" in by_name["Cem"].remark
    assert "swapped?" in by_name["Eve"].remark and by_name["Eve"].no_of_no < 0.2
    assert np.isnan(by_name["Fay<b>"].agrees) and not by_name["Fay<b>"].remark
    majority = np.where(told.votes.table[:300, 1:] == 1, 1, -1)[:, :4].sum(1)  # all but Ann
    ann = told.votes.table[:300, 0] * 2 - 1
    agrees = (np.sign(majority) == ann)[majority != 0].mean()
    assert by_name["Ann"].agrees == pytest.approx(agrees)


def test_what_to_vote_on_again(told):
    reasons = [one.reason for one in told.again]
    assert reasons[0] == "nobody voted" and told.votes.items[told.again[0].index] == "none.png"
    order = ["nobody voted", "the more reliable voters were outvoted", "one vote"]
    ranks = [
        next(n for n, start in enumerate(order) if reason.startswith(start)) for reason in reasons
    ]
    assert ranks == sorted(ranks) and set(ranks) == {0, 1, 2}
    margin = np.abs(np.diff(told.votes.counts, axis=1)[:, 0])
    outvoted = (told.model.posterior.argmax(1) != told.votes.majority) & (told.votes.majority >= 0)
    expected = outvoted | (margin <= 1)
    assert sorted(one.index for one in told.again) == np.flatnonzero(expected).tolist()
    last = [one.index for one in told.again if one.reason == "one vote decides"]
    assert (told.votes.counts[last].sum(1) == 5).all() and (margin[last] == 1).all()


def test_ties_come_first_where_names_are_unknown(tmp_path):
    lines = ["a,9,8", "b,2,2", "c,17,0", "d,1,0"]
    found = votes.count(
        read_votes(write(tmp_path, *lines, heading="file,for,against"), "smile"), 50
    )
    again = [(found.votes.items[one.index], one.reason) for one in found.again]
    assert again == [("b", "tie"), ("a", "one vote decides"), ("d", "one vote only")]
    assert found.model is None and "only counts are known" in found.no_model
    assert votes.voters(found) == ()


def test_where_labels_come_from(tmp_path):
    lines = [f"{n:03},{17 * (n % 3 > 0)},{17 * (n % 3 == 0)}" for n in range(60)] + ["t,8,8"]
    counts = write(tmp_path, *lines, heading="file,for,against")
    found = votes.provenance(read_votes(counts, "smile", asked=17))
    assert re.fullmatch(
        r"smile: subjective majority of 17 voters, 1 tie undecided, Fleiss' kappa 0\.9\d "
        r"\[0\.\d\d, \d\.\d\d\]; perceived by those who looked, not self-reported",
        found,
    )
    assert "up to 17 voters" in votes.provenance(read_votes(counts, "smile"))
    alone = write(tmp_path, "S1,Ann,f", "S2,Ann,m", "S3,Ann,", heading="subject,rater,vote")
    found = votes.provenance(read_votes(alone, "sex"))
    assert found.startswith(
        "sex: subjective majority of 1 voter, 0 ties undecided, 1 without a vote,"
    )
    assert "kappa undefined: no item has two votes" in found
    same = write(tmp_path, "S1,Ann,f", "S1,Bob,f", "S2,Ann,f", heading="subject,rater,vote")
    found = votes.count(read_votes(same, "sex"), 50)
    assert "kappa undefined: all votes are the same" in votes.provenance(found.votes, found.kappa)
    assert "it takes 3 voters" in found.no_model and "nan" not in " ".join(votes.summary(found))


def test_the_command(panel, capsys):
    assert votes.main([str(panel)]) == 0
    said = capsys.readouterr().out
    folder = panel.with_name("panel-smile")
    assert "smile: subjective majority of 6 voters, 0 ties undecided, 1 without a vote" in said
    assert "Voter Eve: mostly the opposite" in said and f"Written: {folder / 'votes.html'}" in said
    assert "intervals are over people (n = 61)" in said and "converged" in said
    tables = {
        name: list(csv.DictReader((folder / f"{name}.csv").read_text("utf-8").splitlines()))
        for name in ("labels", "voters", "agreement", "again")
    }
    read = read_votes(panel, "smile")
    told = votes.count(read)
    for row, item, label in zip(tables["labels"], read.items, read.majority, strict=True):
        assert (row["file"], int(row["label"])) == (item, label)
    assert float(tables["labels"][0]["dawid_skene"]) == told.model.posterior[0, 1]
    assert [float(row["value"]) for row in tables["agreement"]] == [
        told.kappa.value,
        told.alpha.value,
    ]
    assert (
        len(tables["again"]) == len(told.again) and tables["again"][0]["reason"] == "nobody voted"
    )
    ann = next(row for row in tables["voters"] if row["voter"] == "Ann")
    errors = [float(ann[name]) for name in ("no_of_no", "yes_of_no", "no_of_yes", "yes_of_yes")]
    np.testing.assert_allclose(errors, told.model.confusion[0].ravel(), atol=1e-12)
    page = (folder / "votes.html").read_text(encoding="utf-8")
    assert "Fay&lt;b&gt;" in page and "<b>" not in page and "http" not in page
    assert "all say no smile" in page and "nan" not in page
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    assert votes.main([str(panel), "--task=Smile", f"--output={folder}"]) == 0
    assert before == {file.name: file.read_bytes() for file in folder.iterdir()}


def test_the_command_asks_the_manifest(tmp_path, capsys):
    for name in "ab":
        (tmp_path / f"{name}.png").write_bytes(b"x")
    (tmp_path / "manifest.csv").write_text("file,subject,consent\na.png,S1,yes\nb.png,S1,yes\n")
    path = write(tmp_path, "a.png,2,1", "b.png,1,2", heading="file,for,against")
    asked = [
        str(path),
        f"--manifest={tmp_path / 'manifest.csv'}",
        "--output",
        str(tmp_path / "out"),
    ]
    assert votes.main(asked) == 0
    assert "intervals are over people (n = 1)" in capsys.readouterr().out
    write(tmp_path, "a.png,2,1", "x.png,1,2", heading="file,for,against")
    assert votes.main(asked) == 2
    assert "row 3, file: 'x.png' is not in the manifest" in capsys.readouterr().err


def test_the_command_refuses(tmp_path, capsys):
    lines = ["smile,a.png,Ann,yes", "glasses,a.png,Ann,no"]
    path = write(tmp_path, *lines, heading="task,file,rater,vote")
    assert votes.main([str(path)]) == 2
    assert "votes on glasses, smile: choose one with --task=" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert votes.main([str(path), "--task=smile", f"--output={tmp_path / 'file' / 'x'}"]) == 2
    assert "choose another --output" in capsys.readouterr().err
    assert votes.main([str(tmp_path / "none.csv")]) == 2
    assert "none.csv is missing" in capsys.readouterr().err
    one = write(tmp_path, "smile,a.png,Ann,yes", heading="task,file,rater,vote", name="one.csv")
    assert votes.main([str(one)]) == 0 and (tmp_path / "one-smile" / "votes.html").exists()
