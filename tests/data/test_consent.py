"""The ledger of consents: what it answers, and that no change to it goes unseen.

Speed, in seconds of CPU on one busy core: 14,851 events (277 people, 54 batches by `give_all`) were signed
and written in 1.7 and verified in 0.85; an edit in the middle was found and named in 3.3, since then all
signatures are checked. One event alone takes 2.5 ms. The file has 6.2 MB.
"""

import datetime
import hashlib
import itertools
import json
import multiprocessing
import os
import re
import shutil
import stat

import pytest

from jaxface.data import chain, consent
from jaxface.data.consent import Ledger, TamperedError, check_subject, draw_number
from jaxface.errors import UserError

NOON = datetime.datetime(2026, 11, 27, 12, tzinfo=datetime.UTC)
LATER = datetime.timedelta(hours=1)


@pytest.fixture(autouse=True)
def keys(tmp_path, monkeypatch):
    """Private keys of a test stay in its own folder."""
    monkeypatch.setenv("JAXFACE_KEYS", str(tmp_path / "keys"))
    return tmp_path / "keys"


@pytest.fixture
def small(tmp_path):
    """A ledger of seven events and the folder it lies in."""
    ledger = Ledger.open(tmp_path / "ledger", create=True)
    ledger.give("a0000001", "HMB NPU", expires="2027-03-31", method="online", now=NOON)
    ledger.give("a0000002", ["GRU"], now=NOON + LATER)
    ledger.withdraw("a0000001", now=NOON + 2 * LATER)
    ledger.give("a0000003", {"teaching"}, now=NOON + 3 * LATER)
    ledger.reconfirm("a0000002", expires="2028-01-01", now=NOON + 4 * LATER)
    ledger.expire("a0000003", now=NOON + 5 * LATER)
    ledger.give("a0000001", "GRU", now=NOON + 6 * LATER)
    return tmp_path / "ledger"


def lines(folder):
    return (folder / "events.jsonl").read_bytes().splitlines(keepends=True)


def write(folder, lines_):
    (folder / "events.jsonl").write_bytes(b"".join(lines_))


def caught(folder, number, what, head=None):
    """The message with which a ledger is refused; asserts what it names, also by whoever only asks."""
    with pytest.raises(TamperedError) as error:
        Ledger.open(folder).verify(head)
    assert (error.value.number, error.value.what) == (number, what), error.value
    if head is None:
        for ask in (
            lambda ledger: ledger.may_use("a0000002", "GRU"),
            lambda ledger: ledger.subjects(),
            lambda ledger: ledger.head,
            lambda ledger: ledger.give("a0000009", "GRU"),
        ):
            before = (folder / "events.jsonl").read_bytes()
            with pytest.raises(TamperedError):
                ask(Ledger.open(folder))
            assert (folder / "events.jsonl").read_bytes() == before
    return str(error.value)


# ---- what it answers ----------------------------------------------------------------------------


def test_a_person_may_be_used_from_consent_to_withdrawal(tmp_path):
    ledger = Ledger.open(tmp_path / "new" / "ledger", create=True)
    assert ledger.subjects() == () and not ledger.may_use("S1", "research")
    first = ledger.head
    assert ledger.give("S1", "GRU").number == 1
    ledger.give("S2", ["HMB"])
    assert ledger.subjects() == ("S1", "S2") and ledger.head != first
    assert ledger.may_use("S1", "research") and ledger.may_use("S1", ["HMB"])
    assert ledger.may_use("S2", "HMB") and not ledger.may_use("S2", "research")
    again = Ledger.open(tmp_path / "new" / "ledger")
    assert again.head == ledger.head and again.may_use("S1", "research")
    again.withdraw("S1")
    assert not again.may_use("S1", "research")
    assert not ledger.may_use("S1", "research")  # also asked by whoever opened it before
    assert ledger.may_use("S2", "HMB")
    assert ledger.verify().head.number == 3
    with pytest.raises(UserError, match="'HBM' is no code"):
        ledger.may_use("S2", "HBM")
    with pytest.raises(UserError, match="'HBM' is no code"):  # also of one who is not there
        ledger.may_use("S3", "HBM")


def test_events_and_states(small):
    ledger = Ledger.open(small)
    kinds = [(e.number, e.kind, e.subject) for e in ledger.events()]
    assert kinds == [
        (1, "given", "a0000001"),
        (2, "given", "a0000002"),
        (3, "withdrawn", "a0000001"),
        (4, "given", "a0000003"),
        (5, "reconfirmed", "a0000002"),
        (6, "expired", "a0000003"),
        (7, "given", "a0000001"),
    ]
    first = ledger.events("a0000001")[0]
    assert (first.time, first.purposes) == ("2026-11-27T12:00:00Z", ("HMB", "NPU"))
    assert (first.expires, first.method) == ("2027-03-31", "online")
    state = ledger.state("a0000001")  # a new consent replaces the old one and its end
    assert (state.newest.number, state.given.purposes, state.expires) == (7, ("GRU",), "")
    state = ledger.state("a0000002")
    assert (state.newest.number, state.given.number, state.expires) == (5, 2, "2028-01-01")
    assert ledger.state("nobody") is None


def test_why_not(small):
    ledger = Ledger.open(small)
    why = lambda subject, purpose, day=NOON: ledger.refusal(subject, purpose, day)
    assert why("a0000009", "GRU") == "never given"
    assert why("a0000003", "teaching") == "expired on 2026-11-27"
    assert why("a0000002", "HMB") == ""
    assert why("a0000002", "CC") == "given for GRU: CC is not covered"
    ledger.withdraw("a0000002", now=NOON + 7 * LATER)
    assert why("a0000002", "GRU") == "withdrawn on 2026-11-27"


def test_expiry_and_what_follows_it(tmp_path):
    ledger = Ledger.open(tmp_path / "l", create=True)
    ledger.give("S1", "HMB TS:2027-03-31", now=NOON)
    day = datetime.date.fromisoformat
    moment = datetime.datetime.fromisoformat
    assert ledger.state("S1").given.purposes == ("HMB",)
    assert ledger.may_use("S1", "HMB", day("2027-03-31"))
    assert ledger.may_use("S1", "HMB", moment("2027-03-31T23:59:59Z"))
    assert not ledger.may_use("S1", "HMB", moment("2027-04-01T00:00:00Z"))
    assert ledger.may_use("S1", "HMB", moment("2027-04-01T08:59:00+09:00"))  # still March in UTC
    assert ledger.refusal("S1", "HMB", day("2027-04-01")) == "expired on 2027-03-31"
    with pytest.raises(ValueError, match="no time zone"):
        ledger.may_use("S1", "HMB", moment("2027-04-01T00:00:00"))
    ledger.reconfirm("S1", expires=day("2028-03-31"), now=moment("2027-05-01T00:00:00Z"))
    assert ledger.may_use("S1", "HMB", day("2028-03-31"))
    assert not ledger.may_use("S1", "HMB", day("2028-04-01"))
    ledger.reconfirm("S1")
    assert ledger.may_use("S1", "HMB", day("2099-01-01"))
    ledger.give("S1", "HMB TS:2027-03-31", expires="2027-02-01")  # the earlier one counts
    assert ledger.state("S1").expires == "2027-02-01"
    ledger.expire("S1")
    assert not ledger.may_use("S1", "HMB", day("2026-11-27"))
    ledger.reconfirm("S1", expires="2028-01-01")
    assert ledger.may_use("S1", "HMB", day("2027-06-01"))


def test_a_clock_set_back_revives_no_consent(tmp_path, monkeypatch):
    ledger = Ledger.open(tmp_path / "l", create=True)
    ledger.give("S1", "HMB", expires="2027-03-31", now=NOON)
    ledger.give("S2", "HMB", now=NOON + datetime.timedelta(days=200))
    ledger.give("S3", "HMB", now=NOON)  # of an older record, brought in last
    early = Ledger.open(tmp_path / "early", create=True)
    early.give("S1", "HMB", expires="2027-03-31", now=NOON)
    clock = ["2026-11-28T12:00:00Z"]
    time = lambda now: now.isoformat() if now else clock[0]
    monkeypatch.setattr("jaxface.data.consent._time", time)
    for asked in (ledger, Ledger.open(tmp_path / "l")):
        assert asked.refusal("S1", "HMB") == "expired on 2027-03-31"
        assert asked.may_use("S2", "HMB") and asked.may_use("S3", "HMB")
        assert asked.may_use("S1", "HMB", NOON)  # who names a day asks about that day
    assert early.may_use("S1", "HMB")
    clock[0] = "2027-04-01T00:00:00Z"
    assert early.refusal("S1", "HMB") == "expired on 2027-03-31"  # the clock alone says so


def test_withdrawal_is_final_until_a_new_consent(tmp_path):
    ledger = Ledger.open(tmp_path / "l", create=True)
    with pytest.raises(UserError, match="'S1' is not on the ledger .* list"):
        ledger.withdraw("S1")
    given = ledger.give("S1", "GRU")
    event = ledger.withdraw("S1", method="message")
    assert ledger.withdraw("S1") == event and len(ledger.events()) == 2
    with pytest.raises(UserError, match="only a new consent"):
        ledger.reconfirm("S1")
    with pytest.raises(UserError, match="only a new consent"):
        ledger.expire("S1")
    ledger.give("S1", "HMB")
    assert ledger.may_use("S1", "HMB") and not ledger.may_use("S1", "GRU")
    assert ledger.state("S1").given.hash != given.hash


def test_several_at_once_all_or_none(tmp_path):
    ledger = Ledger.open(tmp_path / "l", create=True)
    events = ledger.give_all(["S2", "S1"], "GRU")
    assert [(e.number, e.subject) for e in events] == [(1, "S2"), (2, "S1")]
    for bad in (["S3", "Taro Yamada"], ["S3", "S3"]):
        with pytest.raises(UserError):
            ledger.give_all(bad, "GRU")
    assert ledger.subjects() == ("S1", "S2")
    ledger.verify()


def test_bad_facts_are_not_recorded(tmp_path):
    ledger = Ledger.open(tmp_path / "l", create=True)
    for purposes, more, said in [
        ("HBM", {}, "no code"),
        ("HMB", {"expires": "31.3.2027"}, "expires: '31.3.2027' is no day"),
        ("HMB", {"method": "on-line"}, "method 'on-line' is none. Did you mean 'online'"),
    ]:
        with pytest.raises(UserError, match=said):
            ledger.give("S1", purposes, **more)
    with pytest.raises(ValueError, match="no time zone"):
        ledger.give("S1", "HMB", now=datetime.datetime(2026, 1, 1))
    assert (tmp_path / "l" / "events.jsonl").read_bytes() == b""


# ---- who is on it -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name,said",
    [
        ("", "is empty"),
        ("yamada@example.org", "e-mail"),
        ("yamada＠example.org", "e-mail"),
        ("Taro Yamada", "space, like a name"),
        ("山田　太郎", "space, like a name"),
        ("a\n", "space"),
        ("090-1234-5678", "telephone number or a date"),
        ("+81(90)12345678", "signs other|telephone"),
        ("０９０１２３４５６７８", "telephone"),
        ("1980-05-12", "telephone number or a date"),
        ("x" * 65, "more than 64"),
        ("<b>", "signs other"),
        ("..", "signs other"),
        ("a\x00", "signs other"),
    ],
)
def test_what_is_no_pseudonym(tmp_path, name, said):
    ledger = Ledger.open(tmp_path / "l", create=True)
    with pytest.raises(UserError, match=said) as error:
        ledger.give(name, "GRU")
    assert "random agreement number" in str(error.value)
    assert ledger.subjects() == ()


def test_pseudonyms_in_use_are_taken():
    for name in ("S1", "FT277", "a0f3e21c", "a0123456", "E0004", "sub/a", "277", "p_3.x", "山田"):
        check_subject(name)


@pytest.mark.parametrize(
    "form,other", [("S2", "s2"), ("caf\u00e9", "cafe\u0301"), ("S2", "\uff33\uff12")]
)
def test_one_name_in_two_spellings(tmp_path, form, other):
    """Else two people would come of one, and a withdrawal would leave one of them in use."""
    folder = tmp_path / "l"
    ledger = Ledger.open(folder, create=True)
    with pytest.raises(UserError, match="named twice"):
        ledger.give_all([form, other], "GRU")
    ledger.give(form, "GRU")
    for asked in (ledger, Ledger.open(folder)):
        for names in ([other], ["S1", other]):
            with pytest.raises(UserError, match=f"spelling alone .* as '{form}'"):
                asked.give_all(names, "GRU")
        with pytest.raises(UserError, match=f"is not on the ledger .* as '{form}'"):
            asked.withdraw(other)
        assert asked.refusal(other, "GRU") == f"never given (it is on the ledger as '{form}')"
    ledger.withdraw(form)
    with pytest.raises(UserError, match="spelling alone"):
        ledger.give(other, "GRU")
    assert ledger.give(form, "GRU").number == 3 and ledger.subjects() == (form,)


def test_drawn_numbers(monkeypatch):
    drawn = {draw_number() for _ in range(200)}
    assert len(drawn) > 190 and all(re.fullmatch("a0[0-9a-f]{6}", one) for one in drawn)
    given = iter(["000001", "000001", "000002"])
    monkeypatch.setattr("secrets.token_hex", lambda n: next(given))
    assert draw_number(["a0000001"]) == "a0000002"


# ---- keys and files -----------------------------------------------------------------------------


def test_the_private_key_stays_out(small, keys):
    (key,) = keys.glob("*.key")
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert stat.S_IMODE(keys.stat().st_mode) == 0o700
    passed_on = {file.name: file.read_bytes() for file in small.rglob("*")}
    assert set(passed_on) == {"events.jsonl", "head.json", "public.pem"}
    assert not any(b"PRIVATE" in content for content in passed_on.values())


def test_who_has_no_key_reads_and_cannot_write(small, keys):
    keys.rename(keys.with_name("elsewhere"))
    ledger = Ledger.open(small)
    assert ledger.verify().head.number == 7 and ledger.may_use("a0000002", "GRU", NOON)
    with pytest.raises(UserError, match=r"is missing: only who holds the private key.*--keys"):
        ledger.give("a0000004", "GRU")
    Ledger.open(small, keys=keys.with_name("elsewhere")).give("a0000004", "GRU")
    assert ledger.verify().head.number == 8


def test_a_key_that_others_may_read_is_not_used(small, keys):
    (key,) = keys.glob("*.key")
    key.chmod(0o640)
    with pytest.raises(UserError, match="chmod 600"):
        Ledger.open(small).withdraw("a0000002")
    key.chmod(0o600)
    key.write_text("nothing")
    with pytest.raises(UserError, match="is no private key"):
        Ledger.open(small).withdraw("a0000002")
    Ledger.open(keys.with_name("other"), create=True)
    (foreign,) = set(keys.glob("*.key")) - {key}
    shutil.copy(foreign, key)
    with pytest.raises(UserError, match="is not the private key of"):
        Ledger.open(small).withdraw("a0000002")


def test_where_a_ledger_cannot_be(tmp_path):
    with pytest.raises(UserError, match=r"holds no consent ledger.* init"):
        Ledger.open(tmp_path / "nowhere")
    with pytest.raises(UserError, match="keep private keys elsewhere"):
        Ledger.open(tmp_path / "l", create=True, keys=tmp_path / "l" / "keys")
    assert not (tmp_path / "l").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="no ledger was made"):
        Ledger.open(tmp_path / "file" / "l", create=True)
    with pytest.raises(UserError, match=r"file: .*no ledger was made.*JAXFACE_KEYS"):
        Ledger.open(tmp_path / "l", create=True, keys=tmp_path / "file")


def test_opening_twice_with_create_keeps_what_is_there(small):
    before = {file: file.read_bytes() for file in small.iterdir()}
    assert Ledger.open(small, create=True).verify().head.number == 7
    assert {file: file.read_bytes() for file in small.iterdir()} == before


def test_equal_events_give_equal_bytes(tmp_path, keys):
    """Signatures of Ed25519 are deterministic: with one key, the same events are the same files."""
    Ledger.open(tmp_path / "a", create=True)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    for name in "ab":
        ledger = Ledger.open(tmp_path / name)
        if name == "b":
            next(keys.glob("*.head")).unlink()
        ledger.give("a0000001", "NPU,HMB TS:2027-03-31", method="online", now=NOON)
        ledger.give("a0000002", "DUO:0000042", now=NOON + LATER)
    for file in ("events.jsonl", "head.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_the_format_is_plain(small):
    """What the docstring of `chain` says, checked with the standard library alone."""
    previous = None
    for number, line in enumerate(lines(small), start=1):
        event = json.loads(line)
        assert event["number"] == number and previous in (None, event["previous"])
        digest = event.pop("hash")
        text = json.dumps(event, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        assert hashlib.sha256(text.encode()).hexdigest() == digest
        previous = digest
    assert json.loads((small / "head.json").read_text())["hash"] == previous


# ---- tampering ----------------------------------------------------------------------------------


def rehashed(line, **changes):
    """The line with fields changed and its hash made to fit: all that is possible without the key."""
    event = json.loads(line) | changes
    event.pop("hash")
    event["hash"] = hashlib.sha256(chain.canonical(event)).hexdigest()
    return chain.canonical(event) + b"\n"


@pytest.mark.parametrize("which", range(7))
def test_each_edit_is_located(small, which):
    whole = lines(small)
    edits = [
        whole[which].replace(b"a000000", b"a000001"),
        whole[which].replace(b'"time":"2026', b'"time":"2025'),
        whole[which].replace(b'"number"', b'"number" '),  # the same content, other bytes
        whole[which].replace(b'{"', b'{"also":"x","', 1),
        b"\n",
        b"\xff\xfe\n",
        b"[" * 100_000 + b"\n",
        b'{"number":' + b"9" * 5000 + b"}\n",
        rehashed(whole[which], subject="a0000002", kind="given", purposes=["NRES"]),
        rehashed(whole[which], time="2020-01-01T00:00:00Z"),
        rehashed(whole[which], signature="00" * 64),
        rehashed(whole[which], number=str(which + 1)),
    ]
    for edit in edits:
        assert edit != whole[which]
        write(small, [*whole[:which], edit, *whole[which + 1 :]])
        assert f"event {which + 1} " in caught(small, which + 1, "edited")


@pytest.mark.parametrize("which", range(7))
def test_a_history_that_is_made_to_fit_again_is_located(small, which):
    """One event is changed and every hash after it is computed anew."""
    whole = lines(small)
    made = rehashed(whole[which], time="2020-01-01T00:00:00Z")
    changed = [*whole[:which], made]
    for line in whole[which + 1 :]:
        changed.append(rehashed(line, previous=json.loads(changed[-1])["hash"]))
    write(small, changed)
    caught(small, which + 1, "edited")


def test_each_byte_counts(small):
    content = (small / "events.jsonl").read_bytes()
    for place in range(0, len(content), 7):
        changed = bytearray(content)
        changed[place] ^= 1
        (small / "events.jsonl").write_bytes(changed)
        with pytest.raises(TamperedError) as error:
            Ledger.open(small).verify()
        assert error.value.number == content[:place].count(b"\n") + 1


@pytest.mark.parametrize("first,last", list(itertools.combinations(range(8), 2)))
def test_each_deletion_is_located(small, first, last):
    whole = lines(small)
    write(small, whole[:first] + whole[last:])
    what = "truncated" if last == 7 else "deleted"
    said = caught(small, first + 1, what)
    gone = f"event {last} is" if first + 1 == last else f"events {first + 1} to {last} are"
    assert f"{gone} missing" in said


@pytest.mark.parametrize("one,other", list(itertools.combinations(range(7), 2)))
def test_each_swap_is_located(small, one, other):
    whole = lines(small)
    whole[one], whole[other] = whole[other], whole[one]
    write(small, whole)
    assert f"event {one + 1} stands behind" in caught(small, one + 1, "reordered")


@pytest.mark.parametrize("place", range(8))
def test_each_insertion_is_located(small, place, tmp_path):
    whole = lines(small)
    stranger = Ledger.open(tmp_path / "stranger", create=True)
    for _ in range(place + 1):
        stranger.give("a0000009", "NRES")
    forged = lines(tmp_path / "stranger")[-1]  # a true event of another ledger, with its number
    write(small, [*whole[:place], forged, *whole[place:]])
    caught(small, place + 1, "inserted")
    for again in whole[:place]:  # an event of this ledger stands a second time
        write(small, [*whole[:place], again, *whole[place:]])
        caught(small, place + 1, "inserted")


def test_each_cut_of_the_tail_is_located(small):
    content = (small / "events.jsonl").read_bytes()
    for size in range(len(content)):
        (small / "events.jsonl").write_bytes(content[:size])
        with pytest.raises(TamperedError) as error:
            Ledger.open(small).verify()
        assert error.value.number == content[:size].count(b"\n") + 1
        assert error.value.what == "truncated"
    (small / "events.jsonl").unlink()
    with pytest.raises(TamperedError, match="the file with the events is missing"):
        Ledger.open(small).verify()


def test_a_tail_cut_off_together_with_the_head(tmp_path, keys):
    """An older state of the whole folder is put back: no file in it is wrong."""
    ledger = Ledger.open(tmp_path / "l", create=True)
    ledger.give("S1", "GRU")
    shutil.copytree(tmp_path / "l", tmp_path / "old")
    ledger.withdraw("S1")
    receipt = {"ledger_head": ledger.signed_head()._asdict()}
    written = [str(ledger.signed_head()), ledger.head, receipt, ledger.signed_head()]
    shutil.rmtree(tmp_path / "l")
    shutil.copytree(tmp_path / "old", tmp_path / "l")
    said = caught(tmp_path / "l", 2, "truncated")
    assert "kept beside the private key counts 2" in said
    shutil.rmtree(keys)  # for somebody else, the folder alone says nothing
    assert Ledger.open(tmp_path / "l").verify().head.number == 1
    for kept in written:
        caught(tmp_path / "l", 2, "truncated", head=kept)
    old = Ledger.open(tmp_path / "l").signed_head()
    caught(tmp_path / "l", 2, "truncated", head=[old, *written])
    assert Ledger.open(tmp_path / "l").verify([old, str(old), old.hash]).head == old._replace(
        signature=""
    )


def test_older_heads_hold(small):
    events = Ledger.open(small).events()
    heads = [f"{e.number}:{e.hash}" for e in events] + [e.hash for e in events]
    assert Ledger.open(small).verify(heads).unfinished == 0
    assert Ledger.open(small).verify(heads[3].upper()).head.number == 7
    caught(small, 4, "rewritten", head=f"4:{events[4].hash}")
    caught(small, 0, "rewritten", head=f"0:{events[4].hash}")
    for bad in ("", "7", "7:abc", "x:" + "0" * 64, {"number": "7"}, {"ledger_head": 3}, {}):
        with pytest.raises(UserError, match="is no head of a ledger"):
            Ledger.open(small).verify(bad)


def test_a_file_without_a_head_checks_nothing_and_is_refused(small, tmp_path, capsys):
    file = tmp_path / "x.json"
    for content in ("null", "[]", "{}", "[null]", '""'):
        file.write_text(content)
        assert consent.main(["verify", str(small), f"--head={file}"]) == 2
        output = capsys.readouterr()
        assert f"--head={file}: " in output.err and "is no head of a ledger" in output.err
        assert output.out == ""
    with pytest.raises(UserError, match="'None' is no head"):
        Ledger.open(small).verify([None])
    file.write_text(json.dumps(Ledger.open(small).signed_head()._asdict()))
    assert consent.main(["verify", str(small), f"--head={file}"]) == 0
    assert "(1 given)" in capsys.readouterr().out


def test_signatures_of_another_key(small, tmp_path):
    stranger = Ledger.open(tmp_path / "stranger", create=True)
    stranger.give("a0000001", "NRES")
    own = Ledger.open(small).signed_head()
    foreign = stranger.signed_head()
    private = stranger._chain._private()
    head = small / "head.json"
    for forged in (
        foreign,
        foreign._replace(key=own.key),
        own._replace(signature=foreign.signature),
        own._replace(signature=private.sign(chain._heading(own)).hex()),
        own._replace(number=6),
        own._replace(signature=""),
        # The signature of an event is no signature of a head.
        own._replace(signature=json.loads(lines(small)[-1])["signature"]),
    ):
        head.write_bytes(chain.canonical(forged._asdict()))
        caught(small, 0, "unsigned")
        head.write_bytes(chain.canonical(own._asdict()))
        if forged.signature:
            caught(small, 0, "unsigned", head=forged)
    for content in (b"", b"{}", b"[1]", b"[" * 100_000, b"\xff"):
        head.write_bytes(content)
        caught(small, 0, "unsigned")
    head.unlink()
    caught(small, 0, "unsigned")


def test_all_signed_anew_by_another_key(small, tmp_path, keys):
    """The whole ledger is exchanged for one that verifies: only what others kept can tell."""
    kept = Ledger.open(small).signed_head()
    forged = Ledger.open(tmp_path / "forged", create=True)
    for number in range(1, 8):
        forged.give(f"a000000{number}", "NRES")
    shutil.rmtree(small)
    shutil.copytree(tmp_path / "forged", small)
    assert Ledger.open(small).verify().head.number == 7
    assert "another key" in caught(small, 0, "unsigned", head=kept)
    caught(small, 7, "rewritten", head=str(kept))
    caught(small, 8, "truncated", head=kept.hash)
    (small / "public.pem").write_text("-----BEGIN PUBLIC KEY-----\n")
    with pytest.raises(TamperedError, match="public key is missing or is none"):
        Ledger.open(small)


def test_two_copies_that_were_both_written_to(tmp_path, keys):
    ledger = Ledger.open(tmp_path / "a", create=True)
    ledger.give("S1", "GRU")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    shutil.copytree(keys, tmp_path / "other_keys")
    ledger.give("S2", "GRU")
    ledger.give("S3", "GRU")
    other = Ledger.open(tmp_path / "b", keys=tmp_path / "other_keys")
    other.withdraw("S1")
    caught(tmp_path / "a", 2, "rewritten", head=other.signed_head())
    write(tmp_path / "a", [*lines(tmp_path / "b"), lines(tmp_path / "a")[2]])
    assert "two copies" in caught(tmp_path / "a", 3, "rewritten")
    with pytest.raises(TamperedError, match="kept beside the private key"):
        Ledger.open(tmp_path / "b").verify()


# ---- power cuts and two writers -----------------------------------------------------------------


def test_a_half_written_line_is_no_tampering(small, tmp_path, keys):
    shutil.copytree(small, tmp_path / "before")
    shutil.copytree(keys, tmp_path / "keys_before")
    Ledger.open(small).give("a0000004", "GRU", now=NOON)
    last, whole = lines(small)[-1], b"".join(lines(tmp_path / "before"))
    for size in (1, len(last) // 2, len(last) - 1):
        for rest in (last[:size], bytes(size)):  # some disks leave zeros
            shutil.rmtree(small)
            shutil.rmtree(keys)
            shutil.copytree(tmp_path / "before", small)
            shutil.copytree(tmp_path / "keys_before", keys)
            (small / "events.jsonl").write_bytes(whole + rest)
            ledger = Ledger.open(small)
            found = ledger.verify()
            assert (found.head.number, found.unfinished) == (7, size)
            assert "a0000004" not in ledger.subjects()
            ledger.give("a0000004", "GRU", now=NOON)
            assert lines(small)[-1] == last and ledger.verify().unfinished == 0


def test_the_power_fails_between_event_and_head(small, monkeypatch):
    ledger = Ledger.open(small)
    ledger.verify()
    with monkeypatch.context() as patch:

        def fail(source, target):
            raise OSError(5, "Input/output error", str(target))

        patch.setattr(os, "replace", fail)
        with pytest.raises(UserError, match=r"head.json: Input/output error.* list"):
            ledger.give("a0000004", "GRU")
    for one in (ledger, Ledger.open(small)):
        assert one.verify().head.number == 8 and one.signed_head().number == 7
        assert one.may_use("a0000004", "GRU")
    forged = rehashed(lines(small)[7], subject="a0000005")
    write(small, [*lines(small)[:7], forged])
    caught(small, 8, "inserted")
    write(small, lines(small)[:7])
    ledger.give("a0000006", "GRU")
    assert ledger.signed_head().number == 8 == ledger.verify().head.number


def test_a_full_disk_leaves_the_ledger_whole(small, monkeypatch):
    ledger = Ledger.open(small)
    with monkeypatch.context() as patch:

        def full(descriptor):
            raise OSError(28, "No space left on device")

        patch.setattr(os, "fsync", full)
        with pytest.raises(UserError, match="events.jsonl: No space left on device"):
            ledger.give("a0000004", "GRU")
    assert Ledger.open(small).verify().head.number in (7, 8)
    Ledger.open(small).give("a0000005", "GRU")
    Ledger.open(small).verify()


def give_many(folder, who):
    ledger = Ledger.open(folder)
    for number in range(15):
        ledger.give(f"{who}{number}", "GRU")


def test_writers_wait_for_each_other(tmp_path):
    folder = tmp_path / "l"
    Ledger.open(folder, create=True)
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=give_many, args=(folder, who)) for who in "ABC"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(120)
        assert writer.exitcode == 0
    ledger = Ledger.open(folder)
    assert ledger.verify().head.number == 45
    assert set(ledger.subjects()) == {f"{who}{n}" for who in "ABC" for n in range(15)}
    for who in "ABC":
        order = [e.subject for e in ledger.events() if e.subject[0] == who]
        assert order == [f"{who}{n}" for n in range(15)]
