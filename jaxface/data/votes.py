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
"""

import dataclasses
import os
import pathlib
from collections.abc import Mapping

import numpy as np

from jaxface.data.manifest import SHOWN, read_table, read_text
from jaxface.errors import UserError, nearest

NO_VOTE = -1  # in a table of votes
UNDECIDED = -1  # among labels: a tie, or nobody voted
FILE = ("file", "item")  # names of the column with the photograph
LONG, COUNTS = ("rater", "vote"), ("for", "against")
ABSTAINED = ("", "-", "?", "abstain", "abstained")
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
        """int64 [N]: 1 or 0, whatever more voters said, or UNDECIDED."""
        against, in_favour = self.counts.T
        return np.where(in_favour == against, UNDECIDED, in_favour > against)


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
        counts = np.stack([(table == 0).sum(1), (table == 1).sum(1)], 1)
        abstained = [len({f["rater"] for _, f in of}) for *_, of in items] - counts.sum(1)
    else:
        raters, repeated, table = (), 0, np.zeros((len(items), 0), np.int8)
        counts, abstained, wrong = _counted(items)
    if problems := sorted(problems + wrong):
        lines = [f"row {number}, {problem}" for number, problem in problems]
        more = f"\n  and {len(lines) - SHOWN} more" if len(lines) > SHOWN else ""
        raise UserError("\n  ".join([f"{path}:", *lines[:SHOWN]]) + more)
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
        file, subject = fields.get(column, ""), fields.get("subject", "")
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


def _said(vote: int) -> str:
    return {1: "yes", 0: "no", NO_VOTE: "nothing"}[vote]


def _take(task: str) -> str:
    own = OWN_WORDS.get(task, {})
    pair = [next((word for word in own if own[word] == which), "") for which in (1, 0)]
    return "write yes or no, 1 or 0" + (f", {pair[0]} or {pair[1]}" if own else "")


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
            if not (value >= 0 and value.is_integer()):
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
