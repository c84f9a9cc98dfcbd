"""Who agreed to what, and since when: a ledger that cannot be changed without being caught.

One event a line in `events.jsonl` (see `chain` for how it is kept):

  number, time (UTC), kind, subject, and where they apply purposes, expires (a day), method
  previous, signature, hash

Kinds: given (in place of what the person had agreed to before), reconfirmed (the same purposes, until a
new day or without one), expired, withdrawn. Purposes are codes of the Data Use Ontology or plain words,
see `duo`. A consent holds to the end of the day (UTC) on which it expires. Who withdrew must give anew.

No name of a person is ever on the ledger: subjects are pseudonyms, best the random agreement numbers that
`draw_number` makes (as in the study on headshots: Aoto et al., Sci Rep 12:3730, 2022).

  python -m jaxface.data.consent init DIR
  python -m jaxface.data.consent add DIR --new=1 --purpose="HMB NPU" [--expires=DAY] [--method=online]
  python -m jaxface.data.consent add DIR SUBJECT ... --purpose=GRU
  python -m jaxface.data.consent add DIR SUBJECT ... --kind=reconfirmed [--expires=DAY]
  python -m jaxface.data.consent withdraw DIR SUBJECT
  python -m jaxface.data.consent verify DIR [--head=NUMBER:HASH or RECEIPT.json] ...
  python -m jaxface.data.consent receipt DIR SUBJECT [--output=FOLDER] [--language=en]
  python -m jaxface.data.consent list DIR [--purpose=HMB]
"""

import argparse
import datetime
import json
import os
import pathlib
import re
import secrets
import sys
import unicodedata
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from jaxface.data import chain, duo
from jaxface.data.chain import Head, TamperedError, keys_folder
from jaxface.errors import UserError, nearest

__all__ = ["Event", "Head", "Ledger", "State", "TamperedError", "draw_number"]

IN_FOLDER = "consent"  # a ledger that lies in a folder of data under this name is used unasked
METHODS = ("online", "paper", "spoken", "message")  # how a person said it
LONGEST = 64  # characters of a pseudonym


class Event(NamedTuple):
    """One line of the ledger."""

    number: int  # from 1
    time: str  # UTC, like 2026-11-27T12:00:00Z
    kind: str  # given, reconfirmed, expired, withdrawn
    subject: str
    hash: str
    purposes: tuple[str, ...] = ()
    expires: str = ""  # last day (UTC) of the consent, "" if it has none
    method: str = ""  # one of METHODS, "" if it is not known


class State(NamedTuple):
    """What holds for one person."""

    newest: Event
    given: Event  # the one by which the purposes were given
    expires: str  # last day (UTC), "" if there is none


class Verified(NamedTuple):
    """A ledger that holds."""

    head: Head
    unfinished: int  # bytes of a last line that a power cut left half written: it never counted


def draw_number(taken: Iterable[str] = ()) -> str:
    """A random agreement number like a0f3e21c, not among `taken`: it says nothing about the person."""
    taken = set(taken)
    while (number := f"a0{secrets.token_hex(3)}") in taken:
        pass
    return number


def check_subject(name: str) -> None:
    """Raises UserError for what is no pseudonym: an address, a full name, a telephone number, a date."""
    plain = unicodedata.normalize("NFKC", name)
    digits = re.sub(r"[-+./_]", "", plain)
    if not name:
        why = "is empty"
    elif "@" in plain:
        why = "looks like an e-mail address"
    elif any(c.isspace() for c in plain):
        why = "has a space, like a name"
    elif digits.isdigit() and len(digits) >= 7:
        why = "looks like a telephone number or a date"
    elif len(name) > LONGEST:
        why = f"has more than {LONGEST} characters"
    elif not re.fullmatch(r"\w[\w./-]*", plain):
        why = "has signs other than letters, digits and . / _ -"
    else:
        return
    raise UserError(
        f"subject {name!r} {why}: who somebody is must not be on the ledger. Give the person a random "
        "agreement number (python -m jaxface.data.consent add DIR --new=1 draws one) and keep the list "
        "of who has which elsewhere."
    )


def _folded(name: str) -> str:
    """What is the same for all spellings of a name: composed or not, wide or not, large or small."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())


class Ledger:
    """The consent of a study. Nothing is answered from a ledger that does not verify."""

    def __init__(self, folder: pathlib.Path, keys: pathlib.Path):
        self.folder = folder
        self._chain = chain.Chain(folder, keys)
        self._events: list[Event] = []
        self._states: dict[str, State] = {}
        self._forms: dict[str, str] = {}  # subjects by what their name is in any spelling
        self._newest = ""  # the latest day of an event: some are brought in from older records
        self._reads = 0

    @classmethod
    def open(
        cls, folder: str | os.PathLike, create: bool = False, keys: str | os.PathLike | None = None
    ) -> "Ledger":
        """The ledger in `folder`; with `create`, a new one with a new key where there is none.

        `keys` is the folder where the private key is or goes, by default `keys_folder()`.

        Raises UserError: there is no ledger, or it cannot be made here. One that was changed raises
        TamperedError (a UserError) as soon as something is asked of it.
        """
        folder = pathlib.Path(folder)
        keys = pathlib.Path(keys) if keys else keys_folder()
        if not chain.exists(folder):
            if not create:
                raise UserError(
                    f"{folder} holds no consent ledger ({chain.EVENTS} is missing): name its folder, or "
                    f"make one with python -m jaxface.data.consent init {folder}"
                )
            chain.create(folder, keys)
        return cls(folder, keys)

    # ---- reading ----

    @property
    def private_path(self) -> pathlib.Path:
        """Where the private key is, if it is here."""
        return self._chain.private_path

    @property
    def head(self) -> str:
        """Hash of the newest event, 64 hexadecimal digits."""
        self._sync()
        return self._chain.head.hash

    def signed_head(self) -> Head:
        """The newest head that is signed, for receipts: who keeps it can tell if the end is cut off.

        It is behind the newest event only where the power failed between the two; what is written next
        mends that.
        """
        self._sync()
        return self._chain.signed

    def events(self, subject: str | None = None) -> tuple[Event, ...]:
        """All events in order, or those of one person."""
        self._sync()
        return tuple(event for event in self._events if subject in (None, event.subject))

    def subjects(self) -> tuple[str, ...]:
        """Everybody who is on the ledger, whatever holds for them, sorted."""
        self._sync()
        return tuple(sorted(self._states))

    def state(self, subject: str) -> State | None:
        """What holds for a person by the events so far; None for one who is not on the ledger."""
        self._sync()
        return self._states.get(subject)

    def may_use(
        self,
        subject: str,
        purpose: str | Iterable[str],
        now: datetime.datetime | datetime.date | None = None,
    ) -> bool:
        """Whether a person's consent covers a use (see `duo`) at a time, by default now.

        Raises UserError for a purpose that is none, TamperedError for a ledger that was changed.
        """
        return not self.refusal(subject, purpose, now)

    def refusal(
        self,
        subject: str,
        purpose: str | Iterable[str],
        now: datetime.datetime | datetime.date | None = None,
    ) -> str:
        """Why a person's data may not be used, "" where it may: "withdrawn on 2026-11-27".

        Without `now` it is no earlier than the newest event on the ledger: a clock that is set back must
        not bring an expired consent to life.
        """
        asked, today = duo.use(purpose), _day(now)
        state = self.state(subject)
        if now is None and self._newest:
            today = max(today, datetime.date.fromisoformat(self._newest))
        if state is None:
            return f"never given{self._other_form(subject)}"
        if state.newest.kind in ("withdrawn", "expired"):
            return f"{state.newest.kind} on {state.newest.time[:10]}"
        if state.expires and today.isoformat() > state.expires:
            return f"expired on {state.expires}"
        why = duo.uncovered(state.given.purposes, asked, today)
        return why and f"given for {' '.join(state.given.purposes)}: {why}"

    def verify(self, head: Head | str | Mapping | Iterable | None = None) -> Verified:
        """Reads everything anew and checks it, also against heads that somebody kept.

        Args:
          head: a `Head`, "NUMBER:HASH", a hash, the content of a receipt's JSON, or several of these.

        Raises:
          TamperedError: what was changed, and at which event.
          UserError: a head that is none.
        """
        single = head is None or isinstance(head, Head | str | Mapping)
        heads = [] if head is None else [head] if single else head
        kept = [chain.read_head(one) for one in heads]
        self._chain.verify()
        for one in kept:
            self._chain.check(one, "the head that was kept")
        self._sync()
        return Verified(self._chain.head, self._chain.unfinished)

    # ---- writing ----

    def give(
        self,
        subject: str,
        purposes: str | Iterable[str],
        *,
        expires: str | datetime.date | None = None,
        method: str = "",
        now: datetime.datetime | None = None,
    ) -> Event:
        """Records that a person agrees to `purposes`, in place of what held before.

        Args:
          subject: pseudonym.
          purposes: codes and plain words, see `duo.consent`.
          expires: the last day (UTC) on which it holds; TS:DAY among the purposes says the same.
          method: one of METHODS, "" if it is not known.
          now: time of the event, if it is not now: older records that are brought in, tests.

        Raises UserError: no pseudonym, no purpose, no private key here, a name that is on the ledger in
        another spelling; TamperedError.
        """
        return self.give_all([subject], purposes, expires=expires, method=method, now=now)[0]

    def give_all(
        self,
        subjects: Iterable[str],
        purposes: str | Iterable[str],
        *,
        expires: str | datetime.date | None = None,
        method: str = "",
        now: datetime.datetime | None = None,
    ) -> tuple[Event, ...]:
        """`give` for several people at once; where one is refused, for none of them."""
        parts = duo.consent(purposes)
        timed = [part for part in parts if part.startswith("TS:")]
        days = [duo.split(part)[1] for part in timed]
        days += [_expiry(expires)] if expires else []
        facts = {
            "purposes": [part for part in parts if part not in timed],
            "expires": min(days, default=""),
        }
        return self._record("given", subjects, facts, method, now)

    def reconfirm(
        self,
        subject: str,
        *,
        expires: str | datetime.date | None = None,
        method: str = "",
        now: datetime.datetime | None = None,
    ) -> Event:
        """Records that a person, asked again, agrees to the same, until `expires` or without an end.

        Also where the consent had expired. UserError for who never gave one or has withdrawn it.
        """
        facts = {"expires": _expiry(expires) if expires else ""}
        return self._record("reconfirmed", [subject], facts, method, now)[0]

    def expire(
        self, subject: str, *, method: str = "", now: datetime.datetime | None = None
    ) -> Event:
        """Records that a consent ended by itself, as with the end of a study."""
        return self._record("expired", [subject], {}, method, now)[0]

    def withdraw(
        self, subject: str, *, method: str = "", now: datetime.datetime | None = None
    ) -> Event:
        """Records that a person no longer agrees; returns that event, the old one if it was done before.

        It erases nothing: python -m jaxface.withdraw does. UserError for who is not on the ledger.
        """
        state = self.state(subject)
        if state and state.newest.kind == "withdrawn":
            return state.newest
        return self._record("withdrawn", [subject], {}, method, now)[0]

    # ---- inside ----

    def _sync(self) -> None:
        """Brings events and states up to what stands in the file, which is verified if it changed."""
        self._chain.refresh()
        self._follow()

    def _follow(self) -> None:
        if self._reads != self._chain.reads:
            self._events, self._states, self._forms, self._newest = [], {}, {}, ""
            self._reads = self._chain.reads
        for fields in self._chain.events[len(self._events) :]:
            known = {name: fields[name] for name in Event._fields if name in fields}
            event = Event(**known | {"purposes": tuple(fields.get("purposes", ()))})
            old = self._states.get(event.subject)
            anew = event.kind in ("given", "reconfirmed")
            self._states[event.subject] = State(
                newest=event,
                given=event if event.kind == "given" else old.given,
                expires=event.expires if anew else old.expires,
            )
            self._forms.setdefault(_folded(event.subject), event.subject)
            self._newest = max(self._newest, event.time[:10])
            self._events.append(event)

    def _other_form(self, subject: str) -> str:
        """How one who is not on the ledger is spelled there, as an end of a sentence; "" if not at all."""
        form = self._forms.get(_folded(subject))
        return f" (it is on the ledger as {form!r})" if form else ""

    def _record(
        self,
        kind: str,
        subjects: Iterable[str],
        facts: dict,
        method: str,
        now: datetime.datetime | None,
    ) -> tuple[Event, ...]:
        """Appends one event for each subject, all or none."""
        if method and method not in METHODS:
            raise UserError(f"method {method!r} is none.{nearest(method, METHODS)}")
        facts = {name: value for name, value in (facts | {"method": method}).items() if value}
        subjects, time = list(subjects), _time(now)
        for subject in subjects:
            check_subject(subject)
        if len(set(map(_folded, subjects))) < len(subjects):
            raise UserError("a subject is named twice: name everybody once.")

        def drafts() -> list[dict]:
            self._follow()
            for subject in subjects:
                state = self._states.get(subject)
                form = self._other_form(subject)
                if state is None and kind == "given" and form:
                    raise UserError(
                        f"subject {subject!r} differs in spelling alone from one of {self.folder}{form}: "
                        "a withdrawal of one would not hold for the other. Write the name as it is "
                        "there; somebody else needs another name."
                    )
                if state is None and kind != "given":
                    raise UserError(
                        f"subject {subject!r} is not on the ledger {self.folder}{form}: look who is with "
                        f"python -m jaxface.data.consent list {self.folder}"
                    )
                if kind not in ("given", "withdrawn") and state.newest.kind == "withdrawn":
                    raise UserError(
                        f"subject {subject!r} withdrew on {state.newest.time[:10]}: only a new consent "
                        "(given) can follow."
                    )
            return [{"time": time, "kind": kind, "subject": one} | facts for one in subjects]

        count = len(self._chain.append(drafts))
        self._follow()
        return tuple(self._events[len(self._events) - count :])


def in_folder(folder: str | os.PathLike) -> str:
    """Absolute path of the ledger that lies in a folder of data, "" if none does or none is named."""
    place = pathlib.Path(os.path.abspath(folder or os.devnull)) / IN_FOLDER
    return str(place) if chain.exists(place) else ""


def ledger_for(folder: str | os.PathLike, ledger: str | os.PathLike | None = None) -> Ledger | None:
    """The ledger at `ledger`, else the one in `folder`/consent; None where neither is.

    Raises UserError: there is none at `ledger`; TamperedError: it is not what was signed.
    """
    place = ledger or in_folder(folder)
    if not place:
        return None
    found = Ledger.open(place)
    found.verify()
    return found


def _time(now: datetime.datetime | None) -> str:
    now = now or datetime.datetime.now(datetime.UTC)
    if now.tzinfo is None:
        raise ValueError(f"{now} has no time zone")
    return now.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _day(now: datetime.datetime | datetime.date | None) -> datetime.date:
    """The day in UTC of a time; a day as it is."""
    if isinstance(now, datetime.date) and not isinstance(now, datetime.datetime):
        return now
    return datetime.date.fromisoformat(_time(now)[:10])


def _expiry(expires: str | datetime.date) -> str:
    if isinstance(expires, datetime.date):
        return _day(expires).isoformat()
    return duo.day(expires, "expires").isoformat()


# ---- command ------------------------------------------------------------------------------------


def _init(options: argparse.Namespace) -> None:
    from jaxface.data import receipts

    folder = pathlib.Path(options.folder)
    if chain.exists(folder):
        raise UserError(f"{folder} holds a ledger already: add to it, or name another folder.")
    ledger = Ledger.open(folder, create=True, keys=options.keys)
    study = receipts.write_study(folder)
    print(
        f"{folder}: an empty ledger. Its private key is {ledger.private_path}: keep a copy of it in "
        "a safe place, and never with the data; without it nothing can be recorded.\n"
        f"Fill in {study}: receipts tell what it says."
    )


def _add(options: argparse.Namespace) -> None:
    ledger = Ledger.open(options.folder, keys=options.keys)
    subjects, more = list(options.subject), {"method": options.method}
    if options.kind != "given" and (options.purpose or options.new):
        wrong = "--purpose" if options.purpose else "--new"
        raise UserError(f"{wrong} has no meaning with --kind={options.kind}: leave it out.")
    if options.kind == "expired" and options.expires:
        raise UserError("--expires has no meaning with --kind=expired: it ends now.")
    if options.new < 0:
        raise UserError(f"--new={options.new}: say how many numbers are to be drawn.")
    taken = {*ledger.subjects(), *subjects}
    for _ in range(options.new):
        subjects.append(draw_number(taken))
        taken.add(subjects[-1])
    if not subjects:
        raise UserError("nobody is named: give a SUBJECT, or draw a number with --new=1.")
    if options.kind != "expired":
        more["expires"] = options.expires
    if options.kind == "given":
        if not options.purpose:
            raise UserError(
                "--purpose is missing: only you can know what the person agreed to. Codes: "
                + ", ".join(f"{code} ({term.english})" for code, term in duo.PERMISSIONS.items())
            )
        events = ledger.give_all(subjects, options.purpose, **more)
    elif options.kind == "reconfirmed":
        events = (ledger.reconfirm(subject, **more) for subject in subjects)
    else:
        events = (ledger.expire(subject, **more) for subject in subjects)
    for event in events:
        given = ledger.state(event.subject).given.purposes
        until = f", until {event.expires}" if event.expires else ""
        print(
            f"{event.subject}\t{event.kind} (event {event.number}): "
            + "; ".join(f"{part}, {duo.words(part)}" for part in given)
            + until
        )


def _withdraw(options: argparse.Namespace) -> None:
    ledger = Ledger.open(options.folder, keys=options.keys)
    event = ledger.withdraw(options.subject, method=options.method)
    print(
        f"{event.subject} withdrew on {event.time[:10]} (event {event.number}): no build and no run uses "
        "the person's data from now on.\nNothing is erased yet. Erase what was built and list the "
        f"models that learned from it:\n  python -m jaxface.withdraw {event.subject} "
        f"--ledger={options.folder} --under=FOLDER"
    )


def _verify(options: argparse.Namespace) -> None:
    heads = []
    for text in options.head:
        path = pathlib.Path(text)
        if path.suffix == ".json":
            try:
                heads.append(chain.read_head(json.loads(path.read_bytes())))
            except (OSError, ValueError, RecursionError) as error:
                raise UserError(f"--head={text} cannot be read: {error}.") from None
            except UserError as error:
                raise UserError(f"--head={text}: {error}") from None
        else:
            heads.append(text)
    ledger = Ledger.open(options.folder, keys=options.keys)
    found = ledger.verify(heads)
    print(
        f"{options.folder}: {found.head.number} events of {len(ledger.subjects())} people, each as it was "
        f"signed and none missing up to the heads that were asked about ({len(heads)} given).\n"
        f"head {found.head}"
    )
    if found.unfinished:
        print(
            f"The last line is half written ({found.unfinished} bytes): the power failed, and that event "
            "was never recorded. The next one takes its place; record it again."
        )


def _receipt(options: argparse.Namespace) -> None:
    from jaxface.data import receipts

    ledger = Ledger.open(options.folder, keys=options.keys)
    languages = ("en", "ja") if options.language == "both" else (options.language,)
    for path in receipts.write(ledger, options.subject, options.output, languages):
        print(path)


def _list(options: argparse.Namespace) -> None:
    ledger = Ledger.open(options.folder, keys=options.keys)
    for subject in ledger.subjects():
        state = ledger.state(subject)
        fields = [
            subject,
            state.newest.kind,
            state.newest.time[:10],
            " ".join(state.given.purposes),
        ]
        fields.append(state.expires or "-")
        if options.purpose:
            fields.append(ledger.refusal(subject, options.purpose) or "may be used")
        print("\t".join(fields))


def main(arguments: list[str] | None = None) -> int:
    """The command; returns the exit status: 0, or 2 on bad input and for a ledger that was changed."""
    parser = argparse.ArgumentParser(
        prog="python -m jaxface.data.consent",
        description="Keeps a ledger of who agreed to what, in which every later change is found.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run, text: str) -> argparse.ArgumentParser:
        one = commands.add_parser(name, help=text, description=text)
        one.set_defaults(run=run)
        one.add_argument("folder", metavar="DIR", help="of the ledger")
        one.add_argument(
            "--keys", metavar="FOLDER", help=f"private keys (default: {keys_folder()})"
        )
        return one

    said = {"choices": METHODS, "default": "", "help": "how the person said it"}
    command("init", _init, "makes an empty ledger and its key")
    one = command("add", _add, "records what people agree to")
    one.add_argument("subject", metavar="SUBJECT", nargs="*", help="pseudonyms")
    one.add_argument("--new", type=int, default=0, metavar="N", help="draws N agreement numbers")
    one.add_argument("--purpose", metavar="CODES", help='of the Data Use Ontology, like "HMB NPU"')
    one.add_argument(
        "--kind",
        choices=("given", "reconfirmed", "expired"),
        default="given",
        help="default: given",
    )
    one.add_argument("--expires", metavar="DAY", help="last day it holds (UTC), like 2027-03-31")
    one.add_argument("--method", **said)
    one = command("withdraw", _withdraw, "records that a person no longer agrees")
    one.add_argument("subject", metavar="SUBJECT")
    one.add_argument("--method", **said)
    one = command("verify", _verify, "checks every event, and heads that somebody kept")
    text = "NUMBER:HASH, or a receipt's .json; may be given several times"
    one.add_argument("--head", action="append", default=[], metavar="HEAD", help=text)
    one = command("receipt", _receipt, "writes what a person gets: JSON and a page to print")
    one.add_argument("subject", metavar="SUBJECT")
    one.add_argument("--output", default=".", metavar="FOLDER", help="default: here")
    one.add_argument("--language", choices=("en", "ja", "both"), default="both")
    one = command("list", _list, "says what holds for everybody")
    one.add_argument("--purpose", metavar="CODES", help="also whether it covers this use today")
    options = parser.parse_args(arguments)
    try:
        options.run(options)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
