"""Purposes that a person consents to, in the words of the Data Use Ontology (DUO) of the GA4GH.

Lawson et al., Cell Genomics 1(2), 100028 (2021). A consent is one permission or several, and conditions
on it; what is asked for is a use, and the conditions that it meets:

  NRES                   no restriction
    GRU                  general research use
      HMB                health, medical or biomedical research
        DS:DISEASE       research on one disease, named by its MONDO (or any other) identifier
      POA                research on population origins or ancestry only
    CC                   clinical care (stands beside research: GRU does not cover it)

A permission covers itself and all that stands below it. Several permissions cover what any of them covers.

  NPU NCU NPUNCU IRB COL PUB RTN GSO        the use must say that it meets them
  GS:PLACE IS:INSTITUTION US:USER PS:PROJECT RS:TOPIC   likewise, and every one it names must be allowed
  MOR:DATE               until that day the use must say MOR: nothing is published before
  TS:DATE                the consent lapses after that day (UTC)
  NPOA, NMDS             the use must not be POA, or MDS (development of methods, DUO:0000031)

So "HMB NPU IRB" is covered by a consent "GRU NPU", and not by "HMB NPU IRB COL". No disease is known to
be part of another: DS covers the very same identifier. "research", the word that runs declare by
default, is GRU: research of any kind; who was given HMB must ask for HMB. Any other word in lower case
("teaching") is a purpose of its own, which only itself and NRES cover. Codes may be written in lower case
or as DUO identifiers (DUO:0000006), and are separated by spaces, commas, semicolons or +.
"""

import datetime
import re
import unicodedata
from collections.abc import Iterable
from typing import NamedTuple

from jaxface.errors import UserError, nearest


class Term(NamedTuple):
    """One term of the ontology."""

    number: int  # DUO:0000000
    english: str
    japanese: str
    value: str = ""  # what must follow the code and a colon, if anything


PERMISSIONS = {
    "NRES": Term(4, "any use, without restriction", "制限なし(あらゆる利用)"),
    "GRU": Term(42, "research of any kind", "研究一般"),
    "HMB": Term(6, "health, medical or biomedical research", "健康・医学・生命医科学の研究"),
    "DS": Term(7, "research on one disease", "特定の疾患の研究", "the disease"),
    "POA": Term(11, "research on population origins or ancestry", "集団の起源・祖先の研究"),
    "CC": Term(43, "clinical care", "診療での利用"),
}
CONDITIONS = {
    "NPU": Term(45, "by not-for-profit organisations only", "非営利機関に限る"),
    "NCU": Term(46, "for non-commercial use only", "非商用の利用に限る"),
    "IRB": Term(21, "with the approval of an ethics committee", "倫理審査の承認を要する"),
    "COL": Term(20, "together with those who took the data", "データ取得者との共同研究に限る"),
    "PUB": Term(19, "results must be published", "成果の公表を要する"),
    "RTN": Term(29, "results must be returned", "成果の返還を要する"),
    "GSO": Term(16, "genetic studies only", "遺伝学の研究に限る"),
    "GS": Term(22, "in this place only", "この地域に限る", "the place"),
    "IS": Term(28, "by this institution only", "この機関に限る", "the institution"),
    "US": Term(26, "by this user only", "この利用者に限る", "the user"),
    "PS": Term(27, "in this project only", "この課題に限る", "the project"),
    "RS": Term(12, "on this research topic only", "この研究テーマに限る", "the topic"),
    "MOR": Term(24, "nothing published before this day", "この日まで成果を公表しない", "the day"),
    "TS": Term(25, "until this day", "この日まで有効", "the day"),
    "NPOA": Term(
        44, "no research on population origins or ancestry", "集団の起源・祖先の研究を除く"
    ),
    "NMDS": Term(15, "no development of methods", "手法開発の研究を除く"),
}
METHODS = {"MDS": Term(31, "development of methods", "手法の開発")}  # of what is asked for only
TERMS = PERMISSIONS | CONDITIONS | METHODS
ABOVE = {"GRU": "NRES", "HMB": "GRU", "DS": "HMB", "POA": "GRU", "CC": "NRES"}
BOTH = {"NPUNCU": ("NPU", "NCU")}  # DUO:0000018 is the two together
SYNONYMS = {"RESEARCH": "GRU"}
_NUMBERS = {term.number: code for code, term in TERMS.items()} | {18: "NPUNCU"}
_PLAIN = re.compile(r"[^\W\d_][\w.-]*")


def split(text: str) -> tuple[str, str]:
    """(code or plain word, what follows it) of one part of a consent: "DS:MONDO:1" -> DS, MONDO:1."""
    code, _, value = text.partition(":")
    return code, value


def consent(purposes: str | Iterable[str]) -> tuple[str, ...]:
    """What a person agrees to, in one form and order: ("hmb, npu",) -> ("HMB", "NPU").

    Raises UserError: no such code, a value that is missing or has no place, a day that is none, or no
    permission among the conditions.
    """
    found = _parse(purposes)
    for part in found:
        code, value = split(part)
        if code in METHODS:
            raise UserError(
                f"purpose {code}: general, medical and disease research include the development of "
                "methods: leave it out, or rule it out with NMDS."
            )
        if code in TERMS and bool(value) != bool(TERMS[code].value):
            raise UserError(
                f"purpose {part}: name {TERMS[code].value}: {code}:VALUE."
                if TERMS[code].value
                else f"purpose {part}: nothing may follow {code}: leave out {':' + value!r}."
            )
        if code in ("MOR", "TS"):
            day(value, f"purpose {part}")
    return found


def use(purpose: str | Iterable[str]) -> tuple[str, ...]:
    """What data is asked for, with the conditions that are met, in the same form.

    Raises UserError as `consent`, and for a condition that no use can meet (NPOA, NMDS, TS).
    """
    found = _parse(purpose)
    for part in found:
        code, value = split(part)
        if code in ("NPOA", "NMDS", "TS"):
            raise UserError(
                f"purpose {part}: {code} restricts a consent and says nothing of a use: leave it out."
            )
        needed = code in TERMS and TERMS[code].value and code != "MOR"
        if code in TERMS and bool(value) != bool(needed):
            raise UserError(
                f"purpose {part}: name {TERMS[code].value}: {code}:VALUE."
                if needed
                else f"purpose {part}: nothing may follow {code}: leave out {':' + value!r}."
            )
    return found


def uncovered(given: tuple[str, ...], asked: tuple[str, ...], today: datetime.date) -> str:
    """Why a consent, as `consent` gives it, does not cover a use, as `use` does; "" where it does."""
    permissions = [part for part in given if _permits(part)]
    for part in asked:
        if _permits(part) and not any(_within(part, one) for one in permissions):
            return f"{part} is not covered"
    for code in dict.fromkeys(split(part)[0] for part in given):
        values = {split(part)[1].casefold() for part in given if split(part)[0] == code}
        met = {split(part)[1].casefold() for part in asked if split(part)[0] == code}
        if code == "NPOA":
            if "POA" in asked:
                return "NPOA rules out POA"
        elif code == "NMDS":
            if "MDS" in asked:
                return "NMDS rules out MDS"
        elif code == "TS":
            last = min(values)
            if today.isoformat() > last:
                return f"TS: lapsed on {last}"
        elif code == "MOR":
            if not met and today.isoformat() <= max(values):
                return f"the use must say MOR: nothing is published before {max(values)}"
        elif code in CONDITIONS and not met:
            return f"the use must meet {code} ({CONDITIONS[code].english})"
        elif code in CONDITIONS and not met <= values:
            return f"{code}:{min(met - values)} is not among those allowed"
    return ""


def words(part: str, language: str = "english") -> str:
    """One part of a consent for people: "DS:MONDO:1" -> "research on one disease: MONDO:1"."""
    code, value = split(part)
    name = getattr(TERMS[code], language) if code in TERMS else code
    return f"{name}: {value}" if value else name


def identifier(part: str) -> str:
    """DUO:0000006 for "HMB"; "" for a plain word."""
    code, _ = split(part)
    return f"DUO:{TERMS[code].number:07d}" if code in TERMS else ""


def day(text: str, where: str) -> datetime.date:
    """A day like 2027-03-31; UserError saying `where` it stands if it is none."""
    try:
        if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
            return datetime.date.fromisoformat(text)
    except ValueError:
        pass  # no such day in that month
    raise UserError(f"{where}: {text!r} is no day: write it like 2027-03-31.")


def _permits(part: str) -> bool:
    """Whether a part is a permission or a plain word, and no condition."""
    return split(part)[0] not in CONDITIONS | METHODS


def _within(asked: str, given: str) -> bool:
    """Whether a permission that was given covers the one that is asked for."""
    code, value = split(asked)
    holder, allowed = split(given)
    if code == holder:
        return value.casefold() == allowed.casefold()
    if code not in PERMISSIONS:
        return holder == "NRES"
    while code in ABOVE:
        code = ABOVE[code]
        if code == holder:
            return True
    return False


def _parse(purposes: str | Iterable[str]) -> tuple[str, ...]:
    text = purposes if isinstance(purposes, str) else " ".join(purposes)
    found = set()
    for word in re.split(r"[\s,;+|]+", unicodedata.normalize("NFKC", text)):
        if not word:
            continue
        if not word.isprintable():  # half a character of another encoding, or what moves a terminal
            raise UserError(f"purpose {word!r} has signs that are no text: leave them out.")
        known = re.fullmatch(r"DUO[:_]([0-9]{7})(:.*)?", word, re.IGNORECASE)
        if known and int(known[1]) in _NUMBERS:
            word = _NUMBERS[int(known[1])] + (known[2] or "")
        code, value = split(word)
        code = SYNONYMS.get(code.upper(), code.upper())
        if code in BOTH and not value:
            found |= set(BOTH[code])
        elif code in TERMS:
            found.add(f"{code}:{value}" if value or word.endswith(":") else code)
        elif word == word.lower() and _PLAIN.fullmatch(word) and word not in ("yes", "no", "true"):
            found.add(word)
        else:
            raise UserError(
                f"purpose {word!r} is no code of the Data Use Ontology and no word in lower case."
                + nearest(code, TERMS)
            )
    order = {code: place for place, code in enumerate(TERMS)}
    if not any(_permits(part) for part in found):
        raise UserError(
            f"purpose {text.strip()!r} says what is required and not for what: add one of "
            f"{', '.join(PERMISSIONS)}."
        )
    return tuple(sorted(found, key=lambda part: (order.get(split(part)[0], len(order)), part)))
