"""Whose data a checkpoint owes to, and who of them has withdrawn since.

Every checkpoint's meta holds under "lineage"

  data, purpose   name of the data set and what it was used for
  ledger          hash of the newest event on the consent ledger when the run was started, "" without one
  consumed        {alias of a person: [sha256 of every image of that person that training has drawn]};
                  an empty list where measurements alone went in (`System.consumed`)
  people, images  how many these are
  root            sha256 over all of them
  ancestors       the same of every checkpoint that this one was started from, the nearest first, each with
                  "checkpoint", its digest; consumed is null where a pack, an export or an older checkpoint
                  without a lineage stands between

A workdir's lineage.json and whatever is passed on (packs, exports) have the counts, heads, roots and digests
of this and nobody in particular. What was passed on keeps its list in <workdir>/passed_on/<digest>.json.

A person is called by an alias, a hash of the pseudonym, so that no file but manifest and ledger spells the
pseudonyms: they are often file names. It hides nobody whose pseudonym can be guessed: the hash has no secret,
so who has a list and a pseudonym can check whether that person took part (which is what the list is for), and
may try all there are, 2^24 for agreement numbers, far fewer for S1, S2, ... So lists are kept like manifests:
checkpoints and passed_on/ are not for publication. The root is one hash over the sorted list and no Merkle
tree: it is checked by those who hold the whole list, and nobody is to be shown that one person was in it
without the others.

A checkpoint or file that owes to a person who has withdrawn has a tombstone beside it, NAME.withdrawn.json
(written by `jaxface.withdraw`), and `Gate` refuses it. It holds for the digest it names alone: other
content that later has the same name is not concerned.
"""

import datetime
import hashlib
import json
import os
import pathlib
import shlex
from collections.abc import Callable, Iterable

from jaxface.data import chain
from jaxface.data.consent import Ledger
from jaxface.errors import UserError

TOMBSTONE = ".withdrawn.json"  # after the name of what it stands beside
PASSED_ON = "passed_on"  # folder of a workdir: lists of the checkpoints that have left it
COUNTED = ("data", "purpose", "ledger", "people", "images", "root")  # what may be told to anybody


def alias(subject: str) -> str:
    """What a pseudonym is called in lineages, 32 hexadecimal digits.

    The same in every run and no secret: a pseudonym that can be guessed can be checked.
    """
    return hashlib.sha256(f"person of jaxface: {subject}".encode()).hexdigest()[:32]


def root(consumed: dict[str, list[str]]) -> str:
    """sha256 over the sorted lines "alias image-sha256" (or "alias" alone) of {alias: [sha256, ...]}."""
    lines = [f"{person} {one}" for person, images in consumed.items() for one in images or [""]]
    return hashlib.sha256("".join(f"{line}\n" for line in sorted(lines)).encode()).hexdigest()


class Lineage:
    """What the checkpoints of one run say of where they come from."""

    def __init__(
        self,
        config,
        consumed: Callable[[int], Iterable[tuple[str, str]]] | None,
        before: dict | None = None,
        ancestors: Iterable[dict] = (),
    ):
        """
        Args:
          config: of the run; its data, purpose and ledger are told.
          consumed: `System.consumed`; None: the system says of nobody that it depends on him.
          before: lineage of the checkpoint that the run goes on from. Whom it names stays named, also where
            the data are others by now.
          ancestors: of the networks that the run was started with (`ancestry`).

        Raises UserError for a ledger that is not there or does not verify.
        """
        ledger = getattr(config, "ledger", "")
        self._fixed = {
            "data": config.data,
            "purpose": getattr(config, "purpose", ""),
            "ledger": Ledger.open(ledger).head if ledger else "",
            "ancestors": list(before["ancestors"] if before else ancestors),
        }
        self._consumed = consumed or (lambda step: ())
        self._before = (before or {}).get("consumed") or {}

    def at(self, step: int) -> dict:
        """The lineage of the state after `step` steps."""
        found = {person: set(images) for person, images in self._before.items()}
        names: dict[str, str] = {}
        for subject, image in self._consumed(step):
            person = names.get(subject) or names.setdefault(subject, alias(subject))
            found.setdefault(person, set()).update([image] if image else [])
        listed = {person: sorted(found[person]) for person in sorted(found)}
        counts = {"people": len(listed), "images": sum(map(len, listed.values()))}
        return self._fixed | counts | {"root": root(listed), "consumed": listed}


def summary(lineage: dict) -> dict:
    """A lineage without anybody in it: counts, heads, roots, digests."""
    brief = lambda one: {
        name: one[name] for name in (*COUNTED, "checkpoint", "step") if name in one
    }
    return brief(lineage) | {"ancestors": [brief(one) for one in lineage.get("ancestors", ())]}


def ancestry(lineage: dict | None, digest: str, step: int | None = None) -> list[dict]:
    """The ancestors of a run that starts from this: itself, and its own ancestors.

    Args:
      lineage: of the checkpoint, or the `summary` in a pack; None: it has none.
      digest: of the checkpoint.
    """
    lineage = lineage or {}
    own = {name: lineage[name] for name in COUNTED if name in lineage}
    own |= {"checkpoint": digest, "consumed": lineage.get("consumed")}
    own |= {} if step is None else {"step": step}
    return [own] + [{"consumed": None} | one for one in lineage.get("ancestors", ())]


def owes_to(lineage: dict, person: str) -> str:
    """How a lineage owes to an alias: "direct", "transfer" (an ancestor does), or "" for not at all."""
    if person in (lineage.get("consumed") or {}):
        return "direct"
    inherited = (one.get("consumed") or {} for one in lineage.get("ancestors", ()))
    return "transfer" if any(person in people for people in inherited) else ""


def keep_list(workdir: pathlib.Path, lineage: dict | None, digest: str) -> None:
    """Keeps in the workdir whose data a checkpoint owes to that is about to be passed on."""
    folder = workdir / PASSED_ON
    folder.mkdir(exist_ok=True)
    draft = folder / f"{digest}.tmp"
    draft.write_text(json.dumps(ancestry(lineage, digest), sort_keys=True))
    os.replace(draft, folder / f"{digest}.json")


# ---- tombstones -----------------------------------------------------------------------------


def tombstone(path: pathlib.Path) -> pathlib.Path:
    """Where the tombstone of a step's folder, a pack or an export stands, if there is one."""
    return path.with_name(path.name + TOMBSTONE)


def withdrawals(path: pathlib.Path, digest: str) -> dict[str, str]:
    """{alias of a person who has withdrawn: day} by the tombstone beside `path`; {} without one.

    Raises UserError for a tombstone that cannot be read: what it says is not known, so nothing is given out.
    """
    file = tombstone(path)
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        people = {one["person"]: one["on"] for one in content["withdrawn"]}
        return people if content["digest"] == digest else {}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{file} cannot be read ({error}), and it says who has withdrawn: run python -m "
            "jaxface.withdraw again, which writes it anew, after deleting it."
        ) from None


class Gate:
    """Lets nothing through that owes to a person who has withdrawn, unless that is allowed expressly.

    Called with what is about to be given out. Asks its tombstone and, where a ledger is in use, whether any
    of the people that its lineage names has withdrawn: a checkpoint may have been copied from where its
    tombstone is.

    Attributes:
      digest: of what was let through last.
      lineage: of the same; None where it has none.
      allowed: what was let through in spite of a withdrawal, for lineage.json.
    """

    def __init__(
        self, ledger: str = "", allow: bool = False, say: Callable[[str], None] = lambda line: None
    ):
        """
        Args:
          ledger: its folder; "": the one that a checkpoint's own config names, if it is there; where it
            is not, that is said.
          allow: what --allow_withdrawn says.
          say: called with a line on each thing that is let through in spite of a withdrawal, or without
            the ledger that it names.
        """
        self._ledger, self._allow, self._say = ledger, allow, say
        self.digest, self.lineage, self.allowed = "", None, []

    def __call__(self, path: pathlib.Path, digest: str, meta: dict) -> None:
        """
        Args:
          path: a step's folder, a pack or an export.
          digest: of the checkpoint, or sha256 of the file.
          meta: a checkpoint's, or what a file says of itself.

        Raises:
          UserError: names the run, how many withdrew and when, and both remedies; or the ledger that is
            not there or was changed.
        """
        lineage = meta.get("lineage")
        found = withdrawals(path, digest) | self._by_ledger(path, meta, lineage)
        if found and not self._allow:
            raise refusal(path, found, meta.get("run"))
        if found:
            day = max(found.values())
            self.allowed.append(
                {
                    "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
                    "checkpoint": digest,
                    "people": len(found),
                    "withdrawn_on": day,
                }
            )
            self._say(
                f"{path} owes to {_people(len(found))} who withdrew (the last on {day}): used because of "
                "--allow_withdrawn, which is recorded in lineage.json."
            )
        self.digest, self.lineage = digest, lineage

    def _by_ledger(self, path: pathlib.Path, meta: dict, lineage: dict | None) -> dict[str, str]:
        if not lineage:
            return {}
        folder, own = self._ledger, (meta.get("config") or {}).get("ledger") or ""
        if not folder:
            folder = own if own and chain.exists(own) else ""
            if own and not folder:
                self._say(
                    f"{path} was trained under the consent ledger {own}, which is not there: nobody was "
                    "asked who has withdrawn. Put it back, or name its folder where there is --ledger=DIR."
                )
        if not folder:
            return {}
        ledger, found = Ledger.open(folder), {}
        if lineage.get("ledger") and own and os.path.realpath(own) == os.path.realpath(folder):
            # A ledger whose end was cut off together with its signed head is whole by itself.
            ledger.verify(lineage["ledger"])
        for subject in ledger.subjects():
            newest = ledger.state(subject).newest
            if newest.kind == "withdrawn" and owes_to(lineage, alias(subject)):
                found[alias(subject)] = newest.time[:10]
        return found


def _people(number: int) -> str:
    return "1 person" if number == 1 else f"{number} people"


def refusal(path: pathlib.Path, found: dict[str, str], run: dict | None) -> UserError:
    """Why `path` is not given out: {alias: day of the withdrawal}; `run` as a checkpoint's meta has it."""
    run = run or {}
    name = ":".join(str(run[key]) for key in ("experiment", "scale") if run.get(key))
    return UserError(
        f"{path}{f' (run {name})' if name else ''} owes to {_people(len(found))} who withdrew their "
        f"consent, the last on {max(found.values())}: it is not used.\n"
        f"  Train anew, without them: {retrain(run, pathlib.Path('NEW_FOLDER'))}\n"
        "  Or add --allow_withdrawn, where you may keep this model in spite of that: it is recorded in "
        "lineage.json."
    )


def retrain(run: dict, workdir: pathlib.Path, init_from: str | None = None) -> str:
    """The command that trains a run once more, into another folder and, if given, from other networks."""
    command = str(run.get("command") or "python launch.py --experiment=NAME")
    try:
        words = shlex.split(command)
    except ValueError:  # an older run's, kept without quotes: an apostrophe opens none
        words = command.split()
    left = ["--mode=", "--workdir=", "--allow_withdrawn"] + ["--init_from="] * bool(init_from)
    kept = [word for word in words if not word.startswith(tuple(left))]
    kept += [f"--workdir={workdir}"] + ([f"--init_from={init_from}"] if init_from else [])
    return shlex.join(kept)
