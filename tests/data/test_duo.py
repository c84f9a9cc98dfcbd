import datetime

import pytest

from jaxface.data import duo
from jaxface.errors import UserError

TODAY = datetime.date(2026, 11, 27)


# What was consented to, what is asked for, and whether the one covers the other.
CASES = [
    ("NRES", "GRU", True),
    ("NRES", "CC", True),
    ("NRES", "teaching", True),
    ("GRU", "GRU", True),
    ("GRU", "HMB", True),
    ("GRU", "DS:MONDO:0016044", True),
    ("GRU", "POA", True),
    ("GRU", "CC", False),
    ("GRU", "NRES", False),
    ("GRU", "teaching", False),
    ("GRU", "research", True),
    ("HMB", "research", False),
    ("research", "HMB", True),
    ("HMB", "HMB", True),
    ("HMB", "GRU", False),
    ("HMB", "POA", False),
    ("HMB", "DS:MONDO:0016044", True),
    ("DS:MONDO:0016044", "DS:mondo:0016044", True),
    ("DS:MONDO:0016044", "DS:MONDO:0005240", False),
    ("DS:MONDO:0016044", "HMB", False),
    ("DS:MONDO:0016044 DS:MONDO:0005240", "DS:MONDO:0005240", True),
    ("POA", "HMB", False),
    ("POA", "POA", True),
    ("CC", "CC", True),
    ("CC", "HMB", False),
    ("HMB CC", "HMB CC", True),
    ("HMB CC", "GRU CC", False),
    ("teaching", "teaching", True),
    ("teaching", "GRU", False),
    ("GRU NPOA", "POA", False),
    ("GRU NPOA", "GRU", True),
    ("GRU NMDS", "GRU MDS", False),
    ("GRU NMDS", "GRU", True),
    ("GRU", "GRU MDS", True),
    ("HMB NPU", "HMB", False),
    ("HMB NPU", "HMB NPU", True),
    ("HMB NPU", "HMB NCU", False),
    ("HMB NPUNCU", "HMB NPU", False),
    ("HMB NPUNCU", "HMB NPU NCU", True),
    ("HMB NPU", "HMB NPUNCU", True),
    ("HMB", "HMB NPU IRB PUB", True),
    ("HMB IRB", "HMB", False),
    ("HMB IRB", "HMB IRB", True),
    ("HMB COL PUB RTN", "HMB COL PUB", False),
    ("HMB COL PUB RTN", "HMB COL PUB RTN", True),
    ("HMB GSO", "HMB", False),
    ("HMB GS:JP", "HMB", False),
    ("HMB GS:JP", "HMB GS:jp", True),
    ("HMB GS:JP", "HMB GS:JP GS:US", False),
    ("HMB GS:JP GS:US", "HMB GS:US", True),
    ("HMB IS:NCCHD US:lab1", "HMB IS:NCCHD", False),
    ("HMB IS:NCCHD US:lab1", "HMB IS:NCCHD US:lab1", True),
    ("HMB PS:cleft RS:face", "HMB PS:cleft RS:face", True),
    ("HMB MOR:2026-11-27", "HMB", False),
    ("HMB MOR:2026-11-27", "HMB MOR", True),
    ("HMB MOR:2026-11-26", "HMB", True),
    ("HMB TS:2026-11-27", "HMB", True),
    ("HMB TS:2026-11-26", "HMB", False),
]


@pytest.mark.parametrize("given,asked,covered", CASES, ids=lambda x: str(x))
def test_what_covers_what(given, asked, covered):
    why = duo.uncovered(duo.consent(given), duo.use(asked), TODAY)
    assert (why == "") is covered, why


def test_the_reason_names_what_is_missing():
    why = lambda given, asked: duo.uncovered(duo.consent(given), duo.use(asked), TODAY)
    assert why("HMB", "GRU") == "GRU is not covered"
    assert why("HMB NPU", "HMB") == ("the use must meet NPU (by not-for-profit organisations only)")
    assert why("HMB GS:JP", "HMB GS:FR") == "GS:fr is not among those allowed"
    assert "2026-12-01" in why("HMB MOR:2026-12-01", "HMB")


def test_one_form_for_all_ways_to_write_it():
    once = ("HMB", "NPU", "NCU")
    for written in (
        "HMB NPU NCU",
        "ncu;npu,hmb",
        ["NPUNCU", "HMB"],
        "DUO:0000006 DUO:0000018",
        "duo_0000046+DUO:0000045|HMB HMB",
        "ＨＭＢ　ＮＰＵＮＣＵ",  # full width, as Japanese keyboards write
    ):
        assert duo.consent(written) == once
    assert duo.consent("DUO:0000007:MONDO:0016044 GRU") == ("GRU", "DS:MONDO:0016044")
    assert duo.consent("Research") == ("GRU",)


@pytest.mark.parametrize(
    "purposes,said",
    [
        ("HBM", "'HBM' is no code.*Did you mean 'HMB'"),
        ("Teaching", "'Teaching' is no code of the Data Use Ontology and no word in lower case"),
        ("yes", "'yes' is no code"),
        ("DUO:0000099", "'DUO:0000099' is no code"),
        ("", "says what is required and not for what"),
        ("NPU IRB", "'NPU IRB' says what is required and not for what: add one of NRES, GRU"),
        ("DS", "purpose DS: name the disease: DS:VALUE"),
        ("HMB GS:", "purpose GS:: name the place"),
        ("HMB:all", "nothing may follow HMB: leave out ':all'"),
        ("HMB TS:2026-13-01", "purpose TS:2026-13-01: '2026-13-01' is no day"),
        ("HMB MOR:soon", "'soon' is no day: write it like 2027-03-31"),
        ("HMB MDS", "include the development of methods"),
        ("DS:\udcff", r"purpose 'DS:\\udcff' has signs that are no text"),
        ("DS:\x1b[2J", "has signs that are no text"),
    ],
)
def test_bad_consents(purposes, said):
    with pytest.raises(UserError, match=said):
        duo.consent(purposes)


@pytest.mark.parametrize(
    "purpose,said",
    [
        ("HMB TS:2027-01-01", "TS restricts a consent and says nothing of a use"),
        ("GRU NPOA", "NPOA restricts a consent"),
        ("HMB GS", "purpose GS: name the place"),
        ("HMB MOR:2027-01-01", "nothing may follow MOR"),
        ("NPU", "says what is required"),
        ("HBM", "Did you mean 'HMB'"),
    ],
)
def test_bad_uses(purpose, said):
    with pytest.raises(UserError, match=said):
        duo.use(purpose)


def test_words_and_identifiers():
    assert duo.words("DS:MONDO:1") == "research on one disease: MONDO:1"
    assert duo.words("HMB", "japanese") == "健康・医学・生命医科学の研究"
    assert duo.words("teaching", "japanese") == "teaching"
    assert [duo.identifier(p) for p in ("GRU", "DS:X", "teaching")] == [
        "DUO:0000042",
        "DUO:0000007",
        "",
    ]
    assert all(term.japanese and term.english for term in duo.TERMS.values())
    numbers = [term.number for term in duo.TERMS.values()]
    assert len(set(numbers)) == len(numbers)
