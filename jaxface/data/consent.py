"""Who agreed to what, and since when: a ledger that cannot be changed without being caught.

One event a line in `events.jsonl` (see `chain` for how it is kept):

  number, time (UTC), kind, subject, and where they apply purposes, expires (a day), method
  previous, signature, hash

Kinds: given (in place of what the person had agreed to before), reconfirmed (the same purposes, until a
new day or without one), expired, withdrawn. Purposes are codes of the Data Use Ontology or plain words,
see `duo`. A consent holds to the end of the day (UTC) on which it expires. Who withdrew must give anew.

No name of a person is ever on the ledger: subjects are pseudonyms, best the random agreement numbers that
`draw_number` makes (as in the study on headshots: Aoto et al., Sci Rep 12:3730, 2022).
"""

import datetime
import os
import pathlib
import re
import secrets
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


class Ledger:
    """The consent of a study. Nothing is answered from a ledger that does not verify."""

    def __init__(self, folder: pathlib.Path, keys: pathlib.Path):
        self.folder = folder
        self._chain = chain.Chain(folder, keys)
        self._events: list[Event] = []
        self._states: dict[str, State] = {}
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
        """Why a person's data may not be used, "" where it may: "withdrawn on 2026-11-27"."""
        asked, today = duo.use(purpose), _day(now)
        state = self.state(subject)
        if state is None:
            return "never given"
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
        kept = [chain.read_head(one) for one in ([head] if single else head) if one is not None]
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

        Raises UserError: no pseudonym, no purpose, no private key here; TamperedError.
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
            self._events, self._states, self._reads = [], {}, self._chain.reads
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
            self._events.append(event)

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
        if len(set(subjects)) < len(subjects):
            raise UserError("a subject is named twice: name everybody once.")

        def drafts() -> list[dict]:
            self._follow()
            for subject in subjects if kind != "given" else ():
                state = self._states.get(subject)
                if state is None:
                    raise UserError(
                        f"subject {subject!r} is not on the ledger {self.folder}: look who is with "
                        f"python -m jaxface.data.consent list {self.folder}"
                    )
                if kind != "withdrawn" and state.newest.kind == "withdrawn":
                    raise UserError(
                        f"subject {subject!r} withdrew on {state.newest.time[:10]}: only a new consent "
                        "(given) can follow."
                    )
            return [{"time": time, "kind": kind, "subject": one} | facts for one in subjects]

        count = len(self._chain.append(drafts))
        self._follow()
        return tuple(self._events[len(self._events) - count :])


def in_folder(folder: str | os.PathLike) -> str:
    """Path of the ledger that lies in a folder of data, "" if none does or no folder is named."""
    place = pathlib.Path(folder or os.devnull) / IN_FOLDER
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
