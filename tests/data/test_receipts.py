import datetime
import errno
import html.parser
import json
import re
import subprocess
import sys
import tomllib

import pytest

from jaxface.data import consent, duo, receipts
from jaxface.data.consent import Ledger
from jaxface.errors import UserError

NOON = datetime.datetime(2026, 11, 27, 12, tzinfo=datetime.UTC)
SCRIPT = "<script>alert('x')</script>&amp;"


@pytest.fixture(autouse=True)
def keys(tmp_path, monkeypatch):
    """Private keys of a test stay in its own folder."""
    monkeypatch.setenv("JAXFACE_KEYS", str(tmp_path / "keys"))
    return tmp_path / "keys"


@pytest.fixture
def ledger(tmp_path):
    """Two people; the first had two consents and the study is filled in."""
    ledger = Ledger.open(tmp_path / "ledger", create=True)
    ledger.give("a0000001", "GRU", method="paper", now=NOON)
    ledger.give("a0000002", "GRU", now=NOON)
    ledger.give("a0000001", "HMB DS:MONDO:0016044 NPU", expires="2030-03-31", now=NOON)
    fill(tmp_path / "ledger")
    return ledger


def fill(folder, **more):
    path = receipts.write_study(folder)
    text = path.read_text(encoding="utf-8")
    language = ""
    lines = []
    for line in text.splitlines():
        if found := re.match(r"\[(\w+)\]", line):
            language = found[1]
        if found := re.match(r"(\w+) = ", line):
            name = f"{found[1]}_{language}" if language else found[1]
            value = more.get(name, f"fact {name}")
            line = f"{found[1]} = {json.dumps(value)}"
        lines.append(line)
    path.write_text("\n".join(lines), encoding="utf-8")


class Page(html.parser.HTMLParser):
    """Tags, attributes and visible text of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.texts = [], [], []
        self.feed(text)
        self.text = " ".join(" ".join(self.texts).split())

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes

    def handle_data(self, data):
        self.texts.append(data)


def test_the_record_has_the_fields_of_the_standard(ledger):
    record = receipts.record(ledger, "a0000001")
    head = ledger.signed_head()
    assert record["schema_version"] == "ISO/IEC TS 27560:2023"
    assert record["record_id"] == f"{head.key[:16]}-3"
    assert record["pii_principal_id"] == "a0000001" and record["language"] == ["en", "ja"]
    processing = record["pii_processing"]
    assert processing["purposes"] == [
        {"code": "HMB", "duo": "DUO:0000006"}
        | {"en": "health, medical or biomedical research", "ja": "健康・医学・生命医科学の研究"},
        {"code": "DS:MONDO:0016044", "duo": "DUO:0000007"}
        | {"en": "research on one disease: MONDO:0016044", "ja": "特定の疾患の研究: MONDO:0016044"},
    ]
    assert [part["code"] for part in processing["conditions"]] == ["NPU"]
    assert (processing["status"], processing["expires"]) == ("given", "2030-03-31")
    assert processing["privacy_notice"] == "fact notice"
    assert processing["storage"] == {"en": "fact storage_en", "ja": "fact storage_ja"}
    words = processing["withdrawal_method"]["words"]
    assert words["en"] == "I withdraw my consent. My agreement number is a0000001."
    assert "同意番号は a0000001 です" in words["ja"]
    assert record["parties"][0]["name"]["ja"] == "fact controller_ja"
    assert [(e["number"], e["state"], e["method"]) for e in record["events"]] == [
        (1, "given", "paper"),
        (3, "given", None),
    ]
    assert "a0000002" not in json.dumps(record)


def test_equal_ledgers_give_equal_bytes(ledger, tmp_path):
    once = receipts.write(ledger, "a0000001", tmp_path / "once", ("en", "ja"))
    again = receipts.write(
        Ledger.open(tmp_path / "ledger"), "a0000001", tmp_path / "again", ("en", "ja")
    )
    assert [path.name for path in once] == [
        "receipt-a0000001.json",
        "receipt-a0000001.en.html",
        "receipt-a0000001.ja.html",
    ]
    assert [p.read_bytes() for p in once] == [p.read_bytes() for p in again]


@pytest.mark.parametrize("language", ["en", "ja"])
def test_the_page(ledger, language):
    record = receipts.record(ledger, "a0000001")
    page = Page(receipts.page(record, language))
    head = record["ledger_head"]
    said = [
        "a0000001",
        receipts.TEXTS[language]["until"].format("2030-03-31"),
        record["pii_processing"]["withdrawal_method"]["words"][language],
        "DUO:0000006",
        "DUO:0000045",
        f"--head=3:{head['hash']}",
        " ".join(head["signature"][i : i + 8] for i in range(0, 128, 8)),
        *(f"fact {name}" for name in receipts.COMMON),
        *(f"fact {name}_{language}" for name in receipts.WORDED),
        *(part[language] for part in record["pii_processing"]["purposes"]),
    ]
    for text in said:
        assert text in page.text, text
    assert ("lang", language) in page.attributes
    # It opens offline and runs nothing.
    assert not {"script", "link", "img", "iframe"} & set(page.tags)
    assert not [a for a in page.attributes if a[0] in ("src", "href") or a[0].startswith("on")]
    assert "url(" not in page.text
    other = "japanese" if language == "en" else "english"
    assert duo.words("HMB", other) not in page.text


def test_both_languages_say_the_same_things():
    assert receipts.TEXTS["en"].keys() == receipts.TEXTS["ja"].keys()
    template = (receipts.FOLDER / "receipt.html.jinja").read_text(encoding="utf-8")
    used = set(re.findall(r"\bt\.(\w+)", template))
    used |= {"given", "reconfirmed", "expired", "withdrawn"}  # t[status]
    used |= {f"seal_{name}" for name in ("hash", "key", "signature")}
    assert used == receipts.TEXTS["en"].keys()
    assert set(receipts.METHODS) == {*consent.METHODS, ""}


def test_nothing_from_outside_becomes_markup(tmp_path):
    folder = tmp_path / "ledger"
    ledger = Ledger.open(folder, create=True)
    ledger.give("a0000001", "GRU")
    names = [*receipts.COMMON, *(f"{name}_en" for name in receipts.WORDED)]
    names += [f"{name}_ja" for name in receipts.WORDED]
    fill(folder, **{name: f"{SCRIPT} {name}" for name in names})
    for language in ("en", "ja"):
        text = receipts.page(receipts.record(ledger, "a0000001"), language)
        page = Page(text)
        assert "script" not in page.tags and "<script" not in text
        assert page.text.count("alert('x')") >= len(receipts.COMMON) + len(receipts.WORDED)
    paths = receipts.write(ledger, "a0000001", tmp_path / "out", ("en",))
    assert json.loads(paths[0].read_text())["pii_processing"]["privacy_notice"].startswith(SCRIPT)


def test_withdrawn_and_expired(ledger):
    ledger.withdraw("a0000001", now=NOON + datetime.timedelta(days=3))
    page = Page(receipts.page(receipts.record(ledger, "a0000001"), "en"))
    assert "You withdrew your consent (2026-11-30). Your data may not be used" in page.text
    assert "How to withdraw" not in page.text and "What you had agreed to" in page.text
    ledger.expire("a0000002")
    page = Page(receipts.page(receipts.record(ledger, "a0000002"), "ja"))
    assert "同意は終了しました" in page.text and "同意を撤回するには" in page.text


def test_a_receipt_shows_that_the_ledger_was_cut(ledger, tmp_path, keys):
    path = receipts.write(ledger, "a0000001", tmp_path, ("en",))[0]
    folder = tmp_path / "ledger"
    before = {name: (folder / name).read_bytes() for name in ("events.jsonl", "head.json")}
    ledger.withdraw("a0000001")
    late = receipts.write(ledger, "a0000001", tmp_path / "late", ("en",))[0]
    next(keys.glob("*.head")).unlink()
    for name, content in before.items():
        (folder / name).write_bytes(content)
    assert consent.main(["verify", str(folder), f"--head={path}"]) == 0
    assert consent.main(["verify", str(folder), f"--head={path}", f"--head={late}"]) == 2


def test_what_a_study_lacks(ledger, tmp_path):
    folder = tmp_path / "ledger"
    study = folder / "study.toml"
    study.unlink()
    with pytest.raises(UserError, match="study.toml was missing: fill in the one"):
        receipts.record(ledger, "a0000001")
    assert set(tomllib.loads(study.read_text())) == {*receipts.COMMON, "en", "ja"}
    with pytest.raises(UserError, match="study.toml, notice is empty: say where the text"):
        receipts.record(ledger, "a0000001")
    for name in receipts.WORDED:
        for language in ("en", "ja"):
            study.unlink()
            fill(folder, **{f"{name}_{language}": " "})
            said = rf"study.toml, \[{language}\] {name} is empty: .*--language={language}"
            with pytest.raises(UserError, match=said):
                receipts.record(ledger, "a0000001")
            other = "ja" if language == "en" else "en"
            assert receipts.record(ledger, "a0000001", (other,))["language"] == [other]
    study.write_text("contact = yes")
    with pytest.raises(UserError, match="is no TOML file"):
        receipts.record(ledger, "a0000001")
    with pytest.raises(UserError, match="'nobody' is not on the ledger"):
        receipts.record(ledger, "nobody")


def test_a_study_that_cannot_be_written_or_read(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="gone/study.toml is missing and cannot be written"):
        receipts.write_study(tmp_path / "gone")
    with pytest.raises(UserError, match="gone/study.toml is missing and cannot be written.*folder"):
        receipts.read_study(tmp_path / "gone", ("en",))

    def refuse(path, content):
        raise OSError(errno.EROFS, "Read-only file system", f"{path}.part")

    monkeypatch.setattr(receipts, "replace", refuse)
    with pytest.raises(UserError, match=r"study.toml .*\(Read-only file system\).*may write to"):
        receipts.read_study(tmp_path, ("en",))
    (tmp_path / "study.toml").mkdir()
    with pytest.raises(UserError, match="study.toml cannot be read .*you may read"):
        receipts.read_study(tmp_path, ("en",))


def test_writing_a_study_keeps_what_is_filled_in(ledger, tmp_path):
    before = (tmp_path / "ledger" / "study.toml").read_text()
    receipts.write_study(tmp_path / "ledger")
    assert (tmp_path / "ledger" / "study.toml").read_text() == before


# ---- command ------------------------------------------------------------------------------------


def run(capsys, *arguments, status=0):
    assert consent.main([str(one) for one in arguments]) == status
    output = capsys.readouterr()
    assert bool(output.err) == bool(status)
    return output.err if status else output.out


def test_the_life_of_a_consent(tmp_path, capsys, keys):
    folder = tmp_path / "study" / "consent"
    said = run(capsys, "init", folder)
    assert str(next(keys.glob("*.key"))) in said and "study.toml" in said
    assert "holds a ledger already" in run(capsys, "init", folder, status=2)
    said = run(capsys, "add", folder, "--new=2", "--purpose=hmb,npu", "--expires=2999-03-31")
    one, other = (line.split("\t")[0] for line in said.splitlines())
    assert re.fullmatch("a0[0-9a-f]{6}", one) and one != other
    assert "HMB, health, medical or biomedical research; NPU, by not-for-profit" in said
    assert "until 2999-03-31" in said
    run(capsys, "add", folder, "FT001", "FT002", "--purpose=GRU", "--method=paper")
    run(capsys, "add", folder, "FT001", "FT002", "--kind=reconfirmed", "--expires=2999-01-01")
    run(capsys, "add", folder, "FT002", "--kind=expired")
    said = run(capsys, "withdraw", folder, one)
    assert f"python -m jaxface.withdraw {one} --ledger={folder} --under=FOLDER" in said
    said = run(capsys, "list", folder, "--purpose=HMB NPU")
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    assert f"{one}\twithdrawn\t{today}\tHMB NPU\t2999-03-31\twithdrawn on {today}" in said
    assert f"FT001\treconfirmed\t{today}\tGRU\t2999-01-01\tmay be used" in said
    assert f"FT002\texpired\t{today}\tGRU\t2999-01-01\texpired on {today}" in said
    assert "may be used" not in run(capsys, "list", folder)
    said = run(capsys, "verify", folder)
    head = re.search(r"head (8:[0-9a-f]{64})", said)[1]
    assert "8 events of 4 people" in said
    assert "(1 given)" in run(capsys, "verify", folder, f"--head={head}")
    assert "notice is empty" in run(capsys, "receipt", folder, one, status=2)
    fill(folder)
    said = run(capsys, "receipt", folder, other, f"--output={tmp_path / 'out'}", "--language=ja")
    stem = tmp_path / "out" / f"receipt-{other}"
    assert said.splitlines() == [f"{stem}.json", f"{stem}.ja.html"]
    with (folder / "events.jsonl").open("ab") as file:
        file.write(b'{"hash":"half')
    assert "half written (13 bytes)" in run(capsys, "verify", folder)
    events = folder / "events.jsonl"
    events.write_bytes(events.read_bytes().replace(b"FT002", b"FT003", 1))
    for command in (["verify"], ["list"], ["add", "FT009", "--purpose=GRU"], ["withdraw", "FT001"]):
        said = run(capsys, command[0], folder, *command[1:], status=2)
        assert "event 4 is not what was signed (edited)" in said


@pytest.mark.parametrize(
    "arguments,said",
    [
        (["add", "{}", "Taro Yamada", "--purpose=GRU"], "has a space, like a name"),
        (["add", "{}", "FT001"], "--purpose is missing: only you can know.*HMB"),
        (["add", "{}", "--purpose=GRU"], "nobody is named: give a SUBJECT, or draw"),
        (["add", "{}", "FT001", "--purpose=HBM"], "'HBM' is no code.*Did you mean 'HMB'"),
        (["add", "{}", "FT001", "FT001", "--purpose=GRU"], "named twice"),
        (["add", "{}", "--new=-1", "--purpose=GRU"], "--new=-1: say how many"),
        (["add", "{}", "FT001", "--kind=expired", "--purpose=GRU"], "--purpose has no meaning"),
        (["add", "{}", "--new=1", "--kind=expired"], "--new has no meaning"),
        (["add", "{}", "FT001", "--kind=expired", "--expires=2027-01-01"], "--expires has no"),
        (["add", "{}", "FT001", "--purpose=GRU", "--expires=soon"], "'soon' is no day"),
        (["add", "{}", "FT001", "--kind=reconfirmed"], "'FT001' is not on the ledger"),
        (["withdraw", "{}", "FT001"], "'FT001' is not on the ledger"),
        (["verify", "{}", "--head=7:abc"], "'7:abc' is no head of a ledger"),
        (["verify", "{}", "--head=absent.json"], "--head=absent.json cannot be read"),
        (["verify", "{}/nowhere"], "holds no consent ledger"),
        (["list", "{}", "--purpose=NPU"], "add one of NRES"),
        (["add", "{}", "FT001", "--purpose=GRU", "--keys={}x"], "is missing: only who holds"),
    ],
)
def test_bad_input_is_told_in_one_message(tmp_path, capsys, arguments, said):
    folder = tmp_path / "ledger"
    ledger = Ledger.open(folder, create=True)
    ledger.give("FT000", "GRU")
    message = run(capsys, *(one.format(folder) for one in arguments), status=2)
    assert re.search(said, message, re.DOTALL) and message.count("\n") == 1
    assert len(ledger.events()) == 1


def test_an_event_without_a_signed_head_has_no_receipt(ledger, tmp_path):
    head = tmp_path / "ledger" / "head.json"
    before = head.read_bytes()
    ledger.give("a0000003", "GRU")
    head.write_bytes(before)  # as if the power had failed in between
    with pytest.raises(UserError, match="event 4 was written.* record the next event first"):
        receipts.record(Ledger.open(tmp_path / "ledger"), "a0000003")
    ledger = Ledger.open(tmp_path / "ledger")
    ledger.withdraw("a0000002")
    assert receipts.record(ledger, "a0000003")["ledger_head"]["number"] == 5


def test_two_people_never_share_a_file(ledger, tmp_path):
    others = ("患者一", "被験二", "a/b", "a_b")
    ledger.give_all(others, "GRU", now=NOON)
    files = [receipts.write(ledger, one, tmp_path / "out", ("ja",))[0] for one in others]
    assert len(set(files)) == 4 and files[-1].name == "receipt-a_b.json"
    for one, file in zip(others, files):
        assert json.loads(file.read_text(encoding="utf-8"))["pii_principal_id"] == one


def test_where_receipts_cannot_be_written(ledger, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="choose another --output"):
        receipts.write(ledger, "a0000001", tmp_path / "file", ("en",))


def test_command_in_a_shell(tmp_path):
    command = [sys.executable, "-m", "jaxface.data.consent"]
    done = subprocess.run([*command, "init", str(tmp_path / "l")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    bad = [*command, "withdraw", str(tmp_path / "l"), "S1"]
    done = subprocess.run(bad, capture_output=True, text=True)
    assert done.returncode == 2 and "Traceback" not in done.stderr
