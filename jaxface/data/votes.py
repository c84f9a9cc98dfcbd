"""What people said of photographs: votes in a CSV file, and the labels that their majority gives.

A row is one voter's answer,

  file     the photograph, called as in the manifest (the column may be called item instead)
  subject  the person on it. Beside a file, it tells which photographs belong together; where the file is
           empty or no column, the vote is on the person
  rater    who voted, by a pseudonym
  vote     an answer in words (`WORDS`, `OWN_WORDS`): yes or no, 1 or 0; for sex female or male; empty:
           this voter abstained
  task     optional: what the vote is on (smile, sex), where one file holds several

or, where only counts are known, all answers on one photograph or person:

  file, subject, task  as above
  for, against         how many voters said yes and how many no (smile and no smile, female and male)
  total                optional: how many were asked, those who abstained included

Further columns are ignored. These are perceived labels, the majority of whoever looked, as in Aoto et al.
2022 (smile: 17 votes an image; sex: 21 voters, who could abstain, a person). A tie is undecided and
counted, never broken.

  python -m jaxface.data.votes VOTES.csv [--task=smile] [--output=DIR] [--manifest=FILE] [--asked=N]

writes DIR/labels.csv, the majority beside what voters' own reliability makes of the same votes;
voters.csv, how each voter errs; agreement.csv; again.csv, what is worth another vote; and votes.html, all of
it on one page.
"""

import argparse
import csv
import dataclasses
import os
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jinja2
import numpy as np

from jaxface.data.manifest import listed, read_manifest, read_table, read_text
from jaxface.errors import UserError, nearest
from jaxface.metrics import raters as statistics
from jaxface.metrics.raters import NO_VOTE, Agreement, DawidSkene

FILE = ("file", "item")  # names of the column with the photograph
LONG, COUNTS = ("rater", "vote"), ("for", "against")
ABSTAINED = ("", "-", "?", "abstain", "abstained")
MOST = 10**9  # votes that a count may tell of
CLOSE = 1  # votes more for one side than for the other, with which an item is worth another vote
WEAK = 0.6  # mean share of right answers to either class up to which a voter adds little
SHOWN_AGAIN = 40  # items on the page; the table has them all
SPLITS = 30  # bars of the page's histogram, at most
TEMPLATE = pathlib.Path(__file__).with_name("votes.html.jinja")
WORDS = {
    **dict.fromkeys(("yes", "1", "y", "true", "for", "はい"), 1),
    **dict.fromkeys(("no", "0", "n", "false", "against", "いいえ"), 0),
}
OWN_WORDS = {  # further words of a task: 1 is what its label 1 means
    "smile": {"smile": 1, "smiling": 1, "no smile": 0, "neutral": 0, "笑顔": 1, "真顔": 0},
    "sex": {
        **dict.fromkeys(("female", "f", "woman", "女性", "女"), 1),
        **dict.fromkeys(("male", "m", "man", "男性", "男"), 0),
    },
}


@dataclasses.dataclass(frozen=True)
class Votes:
    """All votes on one task."""

    path: pathlib.Path
    task: str
    level: str  # what was voted on: "file" or "subject"
    items: tuple[str, ...]  # N files or subjects, sorted
    subjects: tuple[str, ...]  # the person of each; the item itself where no person is told
    rows: tuple[int, ...]  # where each item stands first in the file; the heading is row 1
    raters: tuple[str, ...]  # R pseudonyms, sorted; none where only counts are known
    table: np.ndarray  # int8 [N, R]: 1 for, 0 against, NO_VOTE
    counts: np.ndarray  # int64 [N, 2]: against, for
    abstained: np.ndarray  # int64 [N]: who was asked and gave no answer
    repeated: int  # rows that say again what their rater said of the item: they count once

    @property
    def majority(self) -> np.ndarray:
        """int64 [N]: 1 or 0, whatever more voters said, or -1: a tie, or nobody voted."""
        return statistics.majority(self.counts)


def tasks_of(path: str | os.PathLike) -> tuple[str, ...]:
    """The tasks that a file of votes names in its column `task`, sorted; none without that column."""
    columns, rows = _table(pathlib.Path(path))
    return tuple(sorted({fields["task"].lower() for _, fields in rows if fields.get("task")}))


def read_votes(path: str | os.PathLike, task: str, asked: int | None = None) -> Votes:
    """Reads and checks the votes on `task`: all rows, or those that name it in a column `task`.

    Args:
      asked: how many voters were asked about every item, if that is known: more votes are an error, and
        who did not vote abstained.

    Raises UserError naming file, row (as a spreadsheet counts, the heading is row 1), field and remedy:
    file missing, unreadable or without votes; a column missing or named twice; no row of the task; a row
    without file and subject, or rows with a file beside rows without; a file with two people; a word that
    is no answer; a rater missing, or with two answers to one item; counts that are negative or no whole
    numbers or exceed total or `asked`; an item counted twice.
    """
    path, task = pathlib.Path(path), task.strip().lower()
    if asked is not None and asked < 1:
        raise UserError(f"{path}: {asked} voters were asked: it takes at least one.")
    columns, rows = _table(path)
    if "task" in columns:
        known = {fields["task"].lower() for _, fields in rows}
        if task not in known:
            raise UserError(f"{path} has no votes on the task {task!r}.{nearest(task, known)}")
        rows = [(number, fields) for number, fields in rows if fields["task"].lower() == task]
    level, items, problems = _items(columns, rows)
    if "vote" in columns:
        raters, table, repeated, wrong = _answers(items, task)
        counts = statistics.counts_of(table)
        abstained = [len({f["rater"] for _, f in of}) for *_, of in items] - counts.sum(1)
    else:
        raters, repeated, table = (), 0, np.zeros((len(items), 0), np.int8)
        counts, abstained, wrong = _counted(items)
    if problems := sorted(problems + wrong):
        lines = [f"row {number}, {problem}" for number, problem in problems]
        raise UserError(listed(path, lines))
    if not counts.any():
        raise UserError(f"{path} has no vote on {task!r}: everybody abstained.")
    if asked is not None:
        voters = counts.sum(1) + abstained
        for index in np.flatnonzero(voters > asked)[:1]:
            raise UserError(
                f"{path}, row {items[index][2]}: {items[index][0]!r} has {voters[index]} voters, but only "
                f"{asked} were asked: correct one of them."
            )
        abstained = asked - counts.sum(1)
    names, people, numbers, _ = zip(*items)
    return Votes(
        path, task, level, names, people, numbers, raters, table, counts, abstained, repeated
    )


def labels(votes: Votes) -> dict[str, dict]:
    """{file or subject: {"votes": [against, for], "label": 1, 0 or -1 (undecided)}}."""
    return {
        item: {"votes": counts, "label": label}
        for item, counts, label in zip(
            votes.items, votes.counts.tolist(), votes.majority.tolist(), strict=True
        )
    }


def in_manifest(votes: Votes, people: Mapping[str, str]) -> Votes:
    """The votes with the person of each file as a manifest has them, {file: subject}.

    Raises UserError for votes on a file or subject that the manifest has not, and for another person.
    """
    known = people if votes.level == "file" else set(people.values())
    stray = [index for index, item in enumerate(votes.items) if item not in known]
    if stray:
        first = votes.items[stray[0]]
        more = f" (and {len(stray) - 1} more like it)" if len(stray) > 1 else ""
        raise UserError(
            f"{votes.path}, row {votes.rows[stray[0]]}, {votes.level}: {first!r} is not in the "
            f"manifest{more}: correct its name or delete its votes.{nearest(first, known)}"
        )
    if votes.level == "subject":
        return votes
    subjects = tuple(people[item] for item in votes.items)
    for item, row, told, subject in zip(votes.items, votes.rows, votes.subjects, subjects):
        if told not in (item, subject):
            raise UserError(
                f"{votes.path}, row {row}, subject: {item!r} is {told!r} here and {subject!r} in the "
                "manifest: correct one of them."
            )
    return dataclasses.replace(votes, subjects=subjects)


def _table(path: pathlib.Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Columns and rows of a file of votes in either form."""
    columns, rows = read_table(path, read_text(path, "write one row a vote: file, rater, vote."))
    forms = [set(form) & set(columns) for form in (LONG, COUNTS)]
    if not any(set(form) <= set(columns) for form in (LONG, COUNTS)):
        raise UserError(
            f"{path}: the first row must name the columns file or subject, and either "
            f"{' and '.join(LONG)}, or {' and '.join(COUNTS)}; it names {', '.join(columns)}."
        )
    if all(forms):
        raise UserError(
            f"{path} has columns of both forms, {', '.join(sorted(forms[0] | forms[1]))}: keep "
            f"{' and '.join(LONG)} for one row a vote, or {' and '.join(COUNTS)} for counts."
        )
    if set(FILE) <= set(columns):
        raise UserError(f"{path} has the columns file and item: keep one of them.")
    if not {*FILE, "subject"} & set(columns):
        raise UserError(f"{path} has no column file or subject: what was voted on?")
    for name in (*FILE, "subject", "task", *LONG, *COUNTS, "total"):
        if columns.count(name) > 1:
            raise UserError(f"{path} has column {name} twice: keep one of them.")
    if not rows:
        raise UserError(f"{path} has no votes: add a row for each.")
    return columns, rows


def _items(columns, rows) -> tuple[str, list[tuple[str, str, int, list]], list[tuple[int, str]]]:
    """What was voted on, [(item, subject, first row, its rows)] sorted by item, and what is wrong."""
    column = next((name for name in FILE if name in columns), "")
    found: dict[str, tuple[str, int, list]] = {}
    problems = []
    level = "file" if column and rows[0][1][column] else "subject"
    for number, fields in rows:
        # A column without a name, as of a table's row numbers, is no file.
        file, subject = fields[column] if column else "", fields.get("subject", "")
        if not file and not subject:
            problems.append((number, f"{column or 'subject'}: empty: what was voted on?"))
            continue
        if bool(file) != (level == "file"):
            here, first = ("a photograph", "a person") if file else ("a person", "a photograph")
            problems.append(
                (
                    number,
                    f"{column}: a vote on {here}, but row {rows[0][0]} is on {first}: give them a "
                    "column task and different tasks, or a file each",
                )
            )
            continue
        item = pathlib.PurePosixPath(file.replace("\\", "/")).as_posix() if file else subject
        known, first, own = found.setdefault(item, (subject or item, number, []))
        if known != (subject or item):
            problems.append(
                (number, f"subject: {item!r} is {subject!r} here and {known!r} in row {first}")
            )
        own.append((number, fields))
    return level, [(item, *found[item]) for item in sorted(found)], problems


def _answers(items, task: str) -> tuple[tuple[str, ...], np.ndarray, int, list[tuple[int, str]]]:
    """(raters [R], int8 [N, R], how many rows only repeat another, what is wrong)."""
    words = _words(task)
    raters = tuple(sorted({f["rater"] for *_, of in items for _, f in of if f["rater"]}))
    column = {rater: index for index, rater in enumerate(raters)}
    table = np.full((len(items), len(raters)), NO_VOTE, np.int8)
    problems, unknown, repeated = [], {}, 0
    for index, (item, _, _, rows) in enumerate(items):
        seen = {}
        for number, fields in rows:
            rater, word = fields["rater"], fields["vote"].lower()
            if not rater:
                problems.append((number, "rater: empty: who voted? A pseudonym will do"))
                continue
            if word not in words:
                unknown.setdefault(word, number)
                problems.append((number, f"vote: {_no_answer(fields['vote'], task)}"))
                continue
            before = seen.setdefault(rater, (number, words[word]))
            if before[1] != words[word]:
                problems.append(
                    (
                        number,
                        f"vote: {rater} says {_said(words[word])} of {item!r}, and "
                        f"{_said(before[1])} in row {before[0]}: keep one of them",
                    )
                )
            repeated += before[0] != number
            table[index, column[rater]] = words[word]
    classes = len(unknown) + len(np.unique(table[table != NO_VOTE]))
    if unknown and classes > 2:
        first = min(unknown.values())
        problems = [
            (
                first,
                f"vote: {classes} different answers to {task!r}, {', '.join(map(repr, unknown))} among "
                f"them, but a task has two: {_take(task)}; make a task of each question",
            )
        ]
    return raters, table, repeated, problems


def _words(task: str) -> dict[str, int]:
    """{answer to a task: 1, 0 or NO_VOTE}."""
    return {**WORDS, **OWN_WORDS.get(task, {}), **dict.fromkeys(ABSTAINED, NO_VOTE)}


def answers(task: str) -> tuple[str, str]:
    """What the labels 1 and 0 of a task are called."""
    words = OWN_WORDS.get(task, WORDS)
    return tuple(next(word for word in words if words[word] == label) for label in (1, 0))


def _said(vote: int) -> str:
    return {1: "yes", 0: "no", NO_VOTE: "nothing"}[vote]


def _take(task: str) -> str:
    own = f", {' or '.join(answers(task))}" if task in OWN_WORDS else ""
    return f"write yes or no, 1 or 0{own}"


def _no_answer(word: str, task: str) -> str:
    others = [name for name, own in OWN_WORDS.items() if word.lower() in own]
    hint = f" (it answers {others[0]!r}: is that the task?)" if others else ""
    return f"{word!r} is no answer to {task!r}{hint}: {_take(task)}, or leave it empty to abstain"


def _counted(items) -> tuple[np.ndarray, np.ndarray, list[tuple[int, str]]]:
    """(int64 [N, 2] against and for, int64 [N] abstained, what is wrong)."""
    counts, totals, problems = [], [], []
    for item, _, _, rows in items:
        number, fields = rows[0]
        for other, _ in rows[1:]:
            problems.append((other, f"{item!r} has row {number} already: keep one of them"))
        told = {}
        for name in ("against", "for", *(["total"] if fields.get("total") else [])):
            try:
                value = float(fields[name])
            except ValueError:
                value = -1.0
            if not (0 <= value <= MOST and value.is_integer()):
                problems.append((number, f"{name}: {fields[name]!r} is no whole number from 0 on"))
                value = 0.0
            told[name] = int(value)
        votes = told["against"] + told["for"]
        if told.get("total", votes) < votes:
            problems.append(
                (
                    number,
                    f"total: {told['for']} for and {told['against']} against are more than "
                    f"{told['total']}: correct one of them",
                )
            )
        counts.append((told["against"], told["for"]))
        totals.append(told.get("total", votes))
    counts = np.array(counts, np.int64).reshape(-1, 2)
    return counts, np.array(totals, np.int64) - counts.sum(1), problems


# ---- what the votes say -----------------------------------------------------------------------------


class Again(NamedTuple):
    """One item that is worth another vote."""

    index: int
    reason: str


class Count(NamedTuple):
    """What the votes say, and how far they can be trusted."""

    votes: Votes
    kappa: Agreement
    alpha: Agreement
    model: DawidSkene | None
    no_model: str  # why there is none
    again: tuple[Again, ...]  # the most doubtful first


def count(votes: Votes, resamples: int = 2000) -> Count:
    """Agreement with intervals over people, Dawid-Skene where voters have names, what to vote on again."""
    model, why = None, ""
    if not votes.raters:
        why = "only counts are known, not who said what"
    elif len(votes.raters) < statistics.FEWEST:
        why = f"it takes {statistics.FEWEST} voters to tell who errs"
    else:
        model = statistics.dawid_skene(votes.table)
    return Count(
        votes,
        statistics.fleiss_kappa(votes.counts, votes.subjects, resamples=resamples),
        statistics.krippendorff_alpha(votes.counts, votes.subjects, resamples=resamples),
        model,
        why,
        _again(votes, model),
    )


def _again(votes: Votes, model: DawidSkene | None) -> tuple[Again, ...]:
    """Ties first, then where reliable voters were outvoted, then what one vote decides."""
    found = []
    total, majority = votes.counts.sum(1), votes.majority
    margin = np.abs(votes.counts[:, 1] - votes.counts[:, 0])
    for index, item in enumerate(votes.items):
        sure = 0.5 if model is None else model.posterior[index].max()
        if not total[index]:
            rank, reason = 0, "nobody voted"
        elif majority[index] < 0:
            rank, reason = 1, "tie"
        elif model is not None and model.posterior[index, majority[index]] < 0.5:
            rank, reason, sure = 2, "the more reliable voters were outvoted", -sure
        elif margin[index] <= CLOSE:
            rank, reason = 3, "one vote decides" if total[index] > 1 else "one vote only"
        else:
            continue
        share = margin[index] / total[index] if total[index] else 0.0
        found.append((rank, share, sure, item, Again(index, reason)))
    return tuple(again for *_, again in sorted(found))


def provenance(votes: Votes, kappa: Agreement | None = None) -> str:
    """The sentence on where labels come from, for the card of a data set and for reports.

    `kappa` is that of `count`, if it is at hand.
    """
    kappa = kappa or statistics.fleiss_kappa(votes.counts, votes.subjects)
    ties, empty = _undecided(votes)
    return (
        f"{votes.task}: subjective majority of {_voters(votes)}, {ties} tie{'s' * (ties != 1)} undecided"
        + f", {empty} without a vote" * bool(empty)
        + f", Fleiss' kappa {_number(kappa)}; perceived by those who looked, not self-reported"
    )


def _undecided(votes: Votes) -> tuple[int, int]:
    """(ties, items without a vote)."""
    empty = int((votes.counts.sum(1) == 0).sum())
    return int((votes.majority < 0).sum()) - empty, empty


def _voters(votes: Votes) -> str:
    """'17 voters'; 'up to 17 voters' where items were shown to different numbers of them."""
    if votes.raters:
        return f"{len(votes.raters)} voter{'s' * (len(votes.raters) != 1)}"
    number = (votes.counts.sum(1) + votes.abstained).tolist()
    return "up to " * (len(set(number)) > 1) + f"{max(number)} voter{'s' * (max(number) != 1)}"


def _number(found: Agreement) -> str:
    if found.value is None:
        return f"undefined: {found.why}"
    if found.low is None:
        return f"{found.value:.2f} ({found.why})"
    return f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]"


class Voter(NamedTuple):
    """How one voter answers; NaN where that cannot be told."""

    name: str
    votes: int
    agrees: float  # share of the answers that the majority of the others gave as well
    yes_of_yes: float  # share of what is 1, as Dawid-Skene has it, of which this voter says so
    no_of_no: float
    remark: str


def voters(told: Count) -> tuple[Voter, ...]:
    """Every voter by name; none where only counts are known."""
    votes, found = told.votes, []
    for index, name in enumerate(votes.raters):
        said = votes.table[:, index]
        others = votes.counts - np.stack([said == 0, said == 1], 1)
        majority = statistics.majority(others)
        both = (said != NO_VOTE) & (majority >= 0)
        agrees = float((said == majority)[both].mean()) if both.any() else float("nan")
        right = np.full(2, np.nan) if told.model is None else told.model.confusion[index].diagonal()
        skill, remark = right.mean(), ""
        if skill < 1 - WEAK:
            remark = "mostly the opposite of the others; were the answers swapped?"
        elif skill <= WEAK:
            remark = "hardly more than chance"
        cast = int((said != NO_VOTE).sum())
        found.append(Voter(name, cast, agrees, float(right[1]), float(right[0]), remark))
    return tuple(found)


# ---- the command ------------------------------------------------------------------------------------


def summary(told: Count) -> list[str]:
    """What the command prints, line by line."""
    votes, model = told.votes, told.model
    yes, no = answers(votes.task)
    ties, empty = _undecided(votes)
    unit = "people" if _has_people(votes) else "photographs"
    what = "photographs" if votes.level == "file" else "people"
    of = {label: int((votes.majority == label).sum()) for label in (1, 0)}
    lines = [
        provenance(votes, told.kappa) + ".",
        f"{len(votes.items)} {what}: {of[1]} {yes}, {of[0]} {no}, {ties} undecided"
        + f", {empty} without a vote" * bool(empty)
        + f"; {votes.abstained.sum()} abstentions"
        + f"; {votes.repeated} repeated rows counted once" * bool(votes.repeated)
        + ".",
        f"Krippendorff's alpha {_number(told.alpha)}. Of kappa and alpha, 1 is all alike and 0 as by chance; "
        f"95 % intervals are over {unit} (n = {told.kappa.n}).",
    ]
    if model is None:
        lines.append(f"Dawid-Skene: none, {told.no_model}.")
    else:
        decided = votes.majority >= 0
        other = int((model.posterior.argmax(1) != votes.majority)[decided].sum())
        settled = "converged" if model.converged else "NOT converged, so read it with care"
        lines.append(
            f"Dawid-Skene weighs voters by their reliability: it decides {other} of {decided.sum()} "
            f"otherwise than the majority ({model.iterations} iterations, {settled})."
        )
    lines += [f"Voter {one.name}: {one.remark}" for one in voters(told) if one.remark]
    lines.append(f"Worth another vote: {len(told.again)} {what}.")
    return lines


def _has_people(votes: Votes) -> bool:
    """Whether intervals are over people, not photographs."""
    return votes.level == "subject" or votes.subjects != votes.items


def write(told: Count, folder: str | os.PathLike) -> pathlib.Path:
    """Writes the tables and the page into a folder; equal votes give equal bytes. Returns the page's path."""
    folder = pathlib.Path(folder)
    votes, model = told.votes, told.model
    posterior = [""] * len(votes.items) if model is None else model.posterior[:, 1].tolist()
    rows = [
        (item, subject, *counts[::-1], abstained, label, probability)
        for item, subject, counts, abstained, label, probability in zip(
            votes.items,
            votes.subjects,
            votes.counts.tolist(),
            votes.abstained.tolist(),
            votes.majority.tolist(),
            posterior,
        )
    ]
    heading = (votes.level, "person", "for", "against", "abstained", "label", "dawid_skene")
    confusion = ("yes_of_yes", "no_of_yes", "yes_of_no", "no_of_no")
    tables = {
        "labels.csv": (heading, rows),
        "again.csv": ((*heading, "reason"), [(*rows[one.index], one.reason) for one in told.again]),
        "agreement.csv": (
            ("coefficient", "value", "low", "high", "n", "why"),
            [("fleiss_kappa", *told.kappa), ("krippendorff_alpha", *told.alpha)],
        ),
    }
    if votes.raters:
        tables["voters.csv"] = (
            ("voter", "votes", "agrees", *confusion, "remark"),
            [
                (
                    *(one.name, one.votes, _known(one.agrees)),
                    *map(
                        _known, (one.yes_of_yes, 1 - one.yes_of_yes, 1 - one.no_of_no, one.no_of_no)
                    ),
                    one.remark,
                )
                for one in voters(told)
            ],
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, (heading, lines) in tables.items():
            draft = folder / (name + ".tmp")
            with open(draft, "w", newline="", encoding="utf-8") as file:
                csv.writer(file).writerows([heading, *lines])
            draft.replace(folder / name)
        draft = folder / "votes.html.tmp"
        draft.write_text(_page(told, rows), encoding="utf-8")
        return draft.replace(folder / "votes.html")
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror or error}: choose another --output.") from None


def _known(value: float) -> float | str:
    return "" if np.isnan(value) else value


def _page(told: Count, rows: Sequence[tuple]) -> str:
    votes = told.votes
    total = votes.counts.sum(1)
    bars = min(int(total.max()), SPLITS)
    voted = total > 0
    height = np.bincount(
        np.rint(votes.counts[voted, 1] / total[voted] * bars).astype(int), minlength=bars + 1
    )
    template = jinja2.Template(
        TEMPLATE.read_text(encoding="utf-8"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    lines = summary(told)
    return template.render(
        task=votes.task,
        answers=answers(votes.task),
        sentence=lines[0],
        lines=lines[1:],
        bars=[(100 * share / max(height.max(), 1), int(share)) for share in height],
        voters=voters(told),
        model=told.model is not None,
        again=[(*rows[one.index], one.reason) for one in told.again[:SHOWN_AGAIN]],
        more=len(told.again) - SHOWN_AGAIN,
        source=votes.path.name,
        percent=lambda share: "" if share == "" or np.isnan(share) else f"{100 * share:.0f} %",
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit status: 0, or 2 on bad input."""
    parser = argparse.ArgumentParser(
        prog="python -m jaxface.data.votes",
        description="Counts votes on photographs or people: labels, agreement, and what to vote on again.",
    )
    parser.add_argument(
        "votes", metavar="VOTES.csv", help="columns: python -m pydoc jaxface.data.votes"
    )
    parser.add_argument("--task", help="what was asked (default: the file's own task, else smile)")
    parser.add_argument("--output", metavar="DIR", help="default: VOTES-TASK beside the file")
    parser.add_argument("--manifest", metavar="FILE", help="says who is on each photograph")
    parser.add_argument(
        "--asked", type=int, metavar="N", help="voters who were asked about every item"
    )
    options = parser.parse_args(arguments)
    path = pathlib.Path(options.votes)
    try:
        tasks = tasks_of(path)
        if not options.task and len(tasks) > 1:
            raise UserError(f"{path} has votes on {', '.join(tasks)}: choose one with --task=.")
        task = options.task or (tasks or ("smile",))[0]
        found = read_votes(path, task, options.asked)
        if options.manifest:
            manifest = pathlib.Path(options.manifest)
            rows = read_manifest(manifest.parent, manifest).rows
            found = in_manifest(found, {row.file: row.subject for row in rows})
        told = count(found)
        output = options.output or path.with_name(f"{path.stem}-{found.task}")
        page = write(told, output)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    print("\n".join([*summary(told), f"Written: {page}, and the tables beside it."]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
