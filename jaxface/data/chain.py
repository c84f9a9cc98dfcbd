"""An append-only log of signed events, in which every later change is found and named.

A folder that may be passed on:

  events.jsonl  one event a line: JSON with sorted keys and no spaces (RFC 8785 for what stands in it)
  head.json     number and hash of the newest event, signed
  public.pem    the key that signatures are checked with

Every event has `number` (from 1), `previous` (the hash of the event before; of the first, the hash of the
public key), `signature` (Ed25519, RFC 8032, over all but hash and signature) and `hash` (sha256 over all
but the hash). So one changed byte, a missing, foreign or moved line is found. That the end was cut off
shows against the head; who shortens both to the same place is found out by any newer head that somebody
kept, and one is kept beside the private key. A last line without its end is no tampering if the head does
not count it: the power failed, and that event was never acknowledged.

What no log can show: an event that was never written, and what the holder of the private key rewrites
while nobody keeps a head. The private key lies in `keys_folder()`, mode 0600, away from what is passed on;
without it a log can be read and checked, not written.
"""

import fcntl
import hashlib
import json
import os
import pathlib
import re
import stat
from collections.abc import Callable, Mapping
from typing import IO, NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from jaxface.errors import UserError

EVENTS, HEAD, KEY = "events.jsonl", "head.json", "public.pem"
_OWN = {"number", "previous", "signature", "hash"}


class TamperedError(UserError):
    """The log is not what was signed.

    Attributes:
      number: of the first event concerned; 0 where it is a file or key and no event.
      what: edited, deleted, inserted, reordered, truncated, rewritten (two histories), or unsigned (a
        file, a key or a head that the log's own key does not vouch for).
    """

    def __init__(self, path: pathlib.Path, number: int, what: str, detail: str):
        self.number, self.what = number, what
        super().__init__(
            f"{path}: {detail} ({what}). Nothing is read under this ledger: restore it from a copy that "
            "verifies, and find out who changed it."
        )


class Head(NamedTuple):
    """The newest event that somebody knows of; "" or None for what they do not know of it."""

    number: int | None
    hash: str
    key: str = ""  # the log's public key, 64 hexadecimal digits
    signature: str = ""

    def __str__(self) -> str:
        return self.hash if self.number is None else f"{self.number}:{self.hash}"


def keys_folder() -> pathlib.Path:
    """Where private keys are kept: $JAXFACE_KEYS, else ~/.config/jaxface/keys."""
    default = pathlib.Path.home() / ".config" / "jaxface" / "keys"
    return pathlib.Path(os.environ.get("JAXFACE_KEYS", default))


def exists(folder: str | os.PathLike) -> bool:
    """Whether any file of a log lies there: one that lost the others must not pass for none."""
    return any((pathlib.Path(folder) / name).exists() for name in (EVENTS, HEAD, KEY))


class Chain:
    """The log in a folder. It is verified before anything is told of it or added to it."""

    def __init__(self, folder: pathlib.Path, keys: pathlib.Path):
        self.path = folder / EVENTS
        self.events: list[dict] = []
        self.reads = (
            0  # how often the file was read anew: until the next time events are only added
        )
        self.unfinished = 0  # bytes of a last line that a power cut left half written
        self._head_path = folder / HEAD
        self._public = _read_public(folder / KEY)
        raw = self._public.public_bytes_raw()
        self.key = raw.hex()
        self.private_path = keys / f"{self.key[:16]}.key"
        self._first = _first(raw)
        self.signed = Head(0, self._first, self.key)  # the newest head that bears a signature
        self._whole = 0  # bytes of complete lines
        self._seen: tuple[int, int, int] | None = None  # of the file that was verified

    @property
    def head(self) -> Head:
        """The newest event, signed or not."""
        return Head(len(self.events), self._hash(len(self.events)), self.key)

    def refresh(self) -> None:
        """Reads and verifies the file unless it is still the one that was verified last."""
        try:
            with open(self.path, "rb") as file:
                if _facts(file) != self._seen:
                    fcntl.flock(file, fcntl.LOCK_SH)
                    self._load(file)
        except FileNotFoundError:
            raise TamperedError(
                self.path, 0, "truncated", "the file with the events is missing"
            ) from None
        except OSError as error:
            raise UserError(f"{self.path}: {error.strerror or error}.") from None

    def verify(self) -> None:
        """Reads and verifies everything anew."""
        self._seen = None
        self.refresh()

    def check(self, head: Head, whose: str) -> None:
        """Raises TamperedError unless the log as it was read last goes on from `head`."""
        count = len(self.events)
        if head.key and head.key != self.key:
            self._tampered(0, "unsigned", f"{whose} is signed with another key")
        if head.signature and not _signed(self._public, _heading(head), head.signature):
            self._tampered(0, "unsigned", f"{whose} does not bear this ledger's signature")
        if head.number is None:
            if head.hash not in (self._first, *(event["hash"] for event in self.events)):
                detail = f"{whose} is none of its {count} events: its end is cut off or rewritten"
                self._tampered(count + 1, "truncated", detail)
        elif head.number > count:
            gone = _span(count + 1, head.number)
            detail = f"{gone} missing at the end, {whose} counts {head.number}"
            self._tampered(count + 1, "truncated", detail)
        elif self._hash(head.number) != head.hash:
            detail = f"event {head.number} is not the one of {whose}"
            self._tampered(head.number, "rewritten", detail)

    def append(self, drafts: Callable[[], list[dict]]) -> list[dict]:
        """Signs what `drafts` gives and puts it on the disk, one writer at a time; returns the events.

        `drafts` is called when nobody else can write and all that was written is in `events`; it
        gives fields of text or lists of texts, and where it raises nothing is written.

        Raises UserError: the private key is not here, or the disk refuses.
        """
        private = self._private()
        self.refresh()
        try:
            with open(self.path, "r+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                if _facts(file) != self._seen:
                    self._load(file)
                number, previous, added = len(self.events), self.head.hash, []
                for draft in drafts():
                    number += 1
                    event = draft | {"number": number, "previous": previous}
                    event["signature"] = private.sign(canonical(event)).hex()
                    previous = event["hash"] = hashlib.sha256(canonical(event)).hexdigest()
                    added.append(event)
                lines = b"".join(canonical(event) + b"\n" for event in added)
                self._seen = None  # should anything fail from here on, memory no longer counts
                file.truncate(self._whole)  # what a power cut left of a line
                file.seek(self._whole)
                file.write(lines)
                file.flush()
                os.fsync(file.fileno())
                head = Head(number, previous, self.key)
                head = head._replace(signature=private.sign(_heading(head)).hex())
                content = canonical(head._asdict()) + b"\n"
                replace(self._head_path, content)
                replace(self.private_path.with_suffix(".head"), content, 0o600)
                self.events += added
                self.signed, self.unfinished = head, 0
                self._whole += len(lines)
                self._seen = _facts(file)
                return added
        except OSError as error:
            raise UserError(
                f"{error.filename or self.path}: {error.strerror or error}. Mend that, and look with "
                f"python -m jaxface.data.consent list {self.path.parent} whether it was recorded."
            ) from None

    # ---- inside ----

    def _hash(self, number: int) -> str:
        return self.events[number - 1]["hash"] if number else self._first

    def _tampered(self, number: int, what: str, detail: str) -> None:
        raise TamperedError(self.path, number, what, detail)

    def _load(self, file: IO[bytes]) -> None:
        """Verifies a file that is locked, and remembers what it holds."""
        self._seen = None
        file.seek(0)
        *lines, rest = file.read().split(b"\n")
        signed = self._stored(self._head_path)
        if signed is None:
            detail = "the signed head is missing, or this ledger's key did not sign it"
            raise TamperedError(self._head_path, 0, "unsigned", detail)
        events = self._unbroken(lines, signed)
        if events is None:
            self._locate(lines, signed)
        self.events, self.signed, self.unfinished = events, signed, len(rest)
        self.reads += 1
        self.check(signed, HEAD)
        here = self._stored(self.private_path.with_suffix(".head"))
        if here:
            self.check(here, "the head kept beside the private key")
        self._whole = file.tell() - len(rest)
        self._seen = _facts(file)

    def _unbroken(self, lines: list[bytes], signed: Head) -> list[dict] | None:
        """The events of lines that follow on each other up to the head; None if they do not.

        The hash that the head signs stands for the signatures of all events up to it. Those behind it
        (the power failed between the two files) are checked one by one.
        """
        previous, events = self._first, []
        for number, line in enumerate(lines, start=1):
            event = _read(line)
            if event is None or event["number"] != number or event["previous"] != previous:
                return None
            if number > signed.number and not self._genuine(event):
                return None
            events.append(event)
            previous = event["hash"]
        if 0 < signed.number <= len(events) and events[signed.number - 1]["hash"] != signed.hash:
            return None
        return events

    def _locate(self, lines: list[bytes], signed: Head) -> None:
        """Raises TamperedError for the first event that is not where, or not what, it was."""
        read = [_read(line) for line in lines]
        genuine = [event if event and self._genuine(event) else None for event in read]
        numbers = [event["number"] if event else None for event in genuine]
        last = max([signed.number, *filter(None, numbers)])
        for place, (event, number) in enumerate(zip(genuine, numbers), start=1):
            later = numbers[place:]
            before = genuine[place - 2]["hash"] if place > 1 else self._first
            if event is None and (place in later or place > last):
                what, detail = "inserted", f"what stands as event {place} was never signed"
            elif event is None:
                what, detail = "edited", f"event {place} is not what was signed"
            elif number < place:
                what, detail = "inserted", f"event {number} stands again as event {place}"
            elif number > place and place in later:
                what, detail = "reordered", f"event {place} stands behind event {number}"
            elif number > place:
                what, detail = (
                    "deleted",
                    f"{_span(place, number - 1)} missing before event {number}",
                )
            elif event["previous"] != before:
                detail = f"event {place} follows on another event {place - 1}: two copies were written to"
                what = "rewritten"
            else:
                continue
            self._tampered(place, what, detail)
        self._tampered(
            signed.number, "rewritten", f"event {signed.number} is not the one of {HEAD}"
        )

    def _genuine(self, event: dict) -> bool:
        content = {k: v for k, v in event.items() if k not in ("hash", "signature")}
        return _signed(self._public, canonical(content), event["signature"])

    def _stored(self, path: pathlib.Path) -> Head | None:
        """The head in a file; None if it is missing, none, or not signed with this log's key."""
        try:
            head = read_head(json.loads(path.read_bytes()))
        except (OSError, ValueError, RecursionError, UserError):
            return None
        own = head.key == self.key and _signed(self._public, _heading(head), head.signature)
        return head if own else None

    def _private(self) -> Ed25519PrivateKey:
        path, folder = self.private_path, self.path.parent
        try:
            mode = stat.S_IMODE(path.stat().st_mode)
            key = serialization.load_pem_private_key(path.read_bytes(), None)
        except FileNotFoundError:
            raise UserError(
                f"{path} is missing: only who holds the private key of {folder} can write to it. Copy "
                "it there, or name its folder with --keys=FOLDER or $JAXFACE_KEYS."
            ) from None
        except (OSError, ValueError, TypeError) as error:
            raise UserError(f"{path} is no private key ({error}): restore it.") from None
        if mode & 0o077:
            raise UserError(f"{path} may be read by others: chmod 600 {path}")
        own = isinstance(key, Ed25519PrivateKey) and key.public_key().public_bytes_raw()
        if not own or own.hex() != self.key:
            raise UserError(f"{path} is not the private key of {folder}: restore it.")
        return key


def create(folder: pathlib.Path, keys: pathlib.Path) -> None:
    """Makes the files of an empty log with a new key; the signed head comes last.

    Raises UserError: a file cannot be made, or the private key would be passed on with the log.
    """
    if keys.resolve().is_relative_to(folder.resolve()):
        raise UserError(
            f"{keys} lies in the ledger's folder, which is passed on: keep private keys elsewhere."
        )
    private = Ed25519PrivateKey.generate()
    public = private.public_key()
    raw = public.public_bytes_raw()
    head = Head(0, _first(raw), raw.hex())
    head = head._replace(signature=private.sign(_heading(head)).hex())
    own = private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    others = public.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    try:
        keys.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.mkdir(parents=True, exist_ok=True)
        replace(keys / f"{raw.hex()[:16]}.key", own, 0o600)
        replace(folder / KEY, others)
        replace(folder / EVENTS, b"")
        replace(folder / HEAD, canonical(head._asdict()) + b"\n")
    except OSError as error:
        raise UserError(
            f"{error.filename or folder}: {error.strerror or error}: no ledger was made. Choose a folder "
            "you may write to; the private key's is --keys=FOLDER or $JAXFACE_KEYS."
        ) from None


def read_head(head: "Head | str | Mapping") -> Head:
    """A head from what people keep of it: "8:3f...", "3f...", the JSON of a receipt or of head.json."""
    if isinstance(head, Head):
        return head
    if isinstance(head, Mapping):
        fields = head.get("ledger_head", head)
        if isinstance(fields, Mapping) and type(fields.get("number")) is int:
            texts = [fields.get(name, "") for name in ("hash", "key", "signature")]
            whole = fields["number"] >= 0 and all(isinstance(text, str) for text in texts)
            if whole and re.fullmatch(r"[0-9a-f]{64},[0-9a-f]*,[0-9a-f]*", ",".join(texts)):
                return Head(fields["number"], *texts)
    else:
        found = re.fullmatch(r"(?:([0-9]{1,15}):)?([0-9a-f]{64})", str(head).strip().lower())
        if found:
            return Head(int(found[1]) if found[1] else None, found[2])
    raise UserError(
        f"{str(head)[:80]!r} is no head of a ledger: give NUMBER:HASH as a receipt prints it, or the "
        "receipt's .json file."
    )


def canonical(content: Mapping) -> bytes:
    """JSON with sorted keys and no spaces, UTF-8: one text for one content."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode()


def replace(path: pathlib.Path, content: bytes, mode: int = 0o644) -> None:
    """Writes a file that is, also after a power cut, either the old one or the new one."""
    draft = path.with_name(path.name + ".part")
    draft.unlink(missing_ok=True)
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _read(line: bytes) -> dict | None:
    """The event of a line; None where that is not, byte for byte, one with the right hash."""
    try:
        event = json.loads(line)
        if not isinstance(event, dict) or not event.keys() >= _OWN or canonical(event) != line:
            return None
    except (ValueError, RecursionError):
        return None
    hashed = canonical({name: value for name, value in event.items() if name != "hash"})
    plain = type(event["number"]) is int and all(map(_plain, event.items()))
    return event if plain and hashlib.sha256(hashed).hexdigest() == event["hash"] else None


def _plain(field: tuple[str, object]) -> bool:
    """Whether a field is what events hold: text, a list of texts, or its number."""
    name, value = field
    texts = value if isinstance(value, list) and name not in _OWN else [value]
    return name == "number" or all(isinstance(text, str) for text in texts)


def _first(raw: bytes) -> str:
    """What the first event follows on: the hash of the public key."""
    return hashlib.sha256(b"jaxface consent ledger\n" + raw).hexdigest()


def _heading(head: Head) -> bytes:
    """What the signature of a head is over. No signed event can be taken for it."""
    return f"jaxface consent head\n{head.number}:{head.hash}".encode()


def _signed(key: Ed25519PublicKey, message: bytes, signature: str) -> bool:
    try:
        key.verify(bytes.fromhex(signature), message)
    except (InvalidSignature, ValueError):
        return False
    return True


def _read_public(path: pathlib.Path) -> Ed25519PublicKey:
    try:
        key = serialization.load_pem_public_key(path.read_bytes())
    except (OSError, ValueError):
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise TamperedError(path, 0, "unsigned", "the public key is missing or is none")
    return key


def _facts(file: IO[bytes]) -> tuple[int, int, int]:
    found = os.fstat(file.fileno())
    return found.st_size, found.st_mtime_ns, found.st_ino


def _span(first: int, last: int) -> str:
    return f"event {first} is" if first == last else f"events {first} to {last} are"
