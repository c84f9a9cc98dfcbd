"""What a person who consented is given: a receipt with the fields of ISO/IEC TS 27560:2023.

The record is JSON in the order of the standard's sections (header, PII processing, parties, events), with the
words of both languages; the page is one HTML file a language, which opens offline, runs nothing and can be
printed. Both end with the ledger's newest signed head: whoever keeps a receipt can find out that the
ledger was cut off or rewritten before that point. Equal ledgers give equal bytes: the time on a
receipt is that of the person's newest event.

What a receipt says of the study comes from `study.toml` beside the ledger, which `init` writes and the user
fills in. No field of it may be empty.
"""

import hashlib
import json
import os
import pathlib
import re
import tomllib

import jinja2

from jaxface.data import duo
from jaxface.data.chain import replace
from jaxface.errors import UserError

FOLDER = pathlib.Path(__file__).parent
STUDY = "study.toml"
LANGUAGES = {"en": "english", "ja": "japanese"}
STANDARD = "ISO/IEC TS 27560:2023"
COMMON = {
    "notice": "where the text that people read before they agreed is found: an address, a document's number",
    "contact": "where a withdrawal or a question goes: the study's e-mail address, telephone or post",
    "jurisdiction": "whose law applies, as a country code: JP",
}
WORDED = {
    "title": "of the study",
    "controller": "who answers for the data: institution and department",
    "data": "what is kept of a person: photographs of the face, ...",
    "storage": "where it is kept and who can get at it",
    "recipients": "who is given it: nobody outside of ..., or whom",
    "retention": "until when it is kept",
}
WITHDRAWAL = {
    "en": "I withdraw my consent. My agreement number is {}.",
    "ja": "同意を撤回します。私の同意番号は {} です。",
}
METHODS = {
    "online": {"en": "online form", "ja": "オンライン"},
    "paper": {"en": "signed on paper", "ja": "書面"},
    "spoken": {"en": "spoken", "ja": "口頭"},
    "message": {"en": "letter or e-mail", "ja": "手紙または電子メール"},
    "": {"en": "not recorded", "ja": "記録なし"},
}
TEXTS = {
    "en": {
        "receipt": "Receipt for your consent",
        "number": "Your agreement number",
        "keep": "Please keep this page. With this number you can withdraw at any time, without giving a "
        "reason and without any disadvantage. Your name is not on the ledger, and not on this page.",
        "given": "You agreed",
        "reconfirmed": "You agreed again",
        "expired": "The consent has ended",
        "withdrawn": "You withdrew your consent",
        "stop": ". ",
        "until": "It holds to the end of {} (UTC).",
        "always": "It holds until you withdraw it.",
        "over": "Your data may not be used any more.",
        "purposes": "What your data may be used for",
        "conditions": "Under these conditions",
        "purposes_ended": "What you had agreed to",
        "about": "About the study",
        "controller": "Responsible for your data",
        "contact": "Contact",
        "notice": "What you read before you agreed",
        "data": "What is kept of you",
        "storage": "Where it is kept",
        "recipients": "Who receives it",
        "retention": "Kept until",
        "jurisdiction": "Law of",
        "withdraw": "How to withdraw",
        "write": "Write or say to the contact above:",
        "after": "From that day no new data set is built from your data and no new model learns from it. "
        "What was built from it is erased, and models that learned from it are listed and used only if "
        "somebody decides so explicitly and it is recorded. What has been published or handed to others "
        "before cannot be called back.",
        "events": "What is recorded about you",
        "event": "Event",
        "time": "Time (UTC)",
        "what": "What",
        "method": "How",
        "seal": "How you can tell that nothing was changed",
        "seal_text": "Every consent of this study stands in one ledger, numbered and sealed one after the "
        "other. The seal below covers all of them up to its number. If any of them were changed, "
        "removed or cut off later, the ledger would no longer fit this seal; anybody who has the ledger can "
        "check that:",
        "seal_number": "Events sealed",
        "seal_hash": "Seal (sha256)",
        "seal_key": "Key of the ledger (Ed25519)",
        "seal_signature": "Signature",
        "standard": "Fields after",
        "record": "Record",
    },
    "ja": {
        "receipt": "同意の控え",
        "number": "あなたの同意番号",
        "keep": "この控えを大切に保管してください。この番号により、いつでも、理由を述べることなく、"
        "何の不利益も受けずに同意を撤回できます。あなたの氏名は台帳にもこの控えにも記載されていません。",
        "given": "同意しました",
        "reconfirmed": "あらためて同意しました",
        "expired": "同意は終了しました",
        "withdrawn": "同意を撤回しました",
        "stop": "。",
        "until": "{} の終わり(協定世界時)まで有効です。",
        "always": "撤回されるまで有効です。",
        "over": "あなたのデータは今後利用できません。",
        "purposes": "データの利用目的",
        "conditions": "利用の条件",
        "purposes_ended": "同意していた内容",
        "about": "研究について",
        "controller": "データの責任者",
        "contact": "連絡先",
        "notice": "同意の前にお読みいただいた説明",
        "data": "保管されるデータ",
        "storage": "保管場所",
        "recipients": "提供先",
        "retention": "保管期間",
        "jurisdiction": "適用される法の国・地域",
        "withdraw": "同意を撤回するには",
        "write": "上記の連絡先へ、次のとおりお伝えください。",
        "after": "撤回の日以降、あなたのデータから新しいデータセットが作られることも、"
        "新しいモデルが学習することもありません。作成済みのデータセットからは消去されます。すでに学習したモデルは一覧にされ、"
        "明示的な判断とその記録がない限り使用されません。すでに公表または提供されたものを取り戻すことはできません。",
        "events": "あなたについての記録",
        "event": "番号",
        "time": "日時(協定世界時)",
        "what": "内容",
        "method": "方法",
        "seal": "変更されていないことの確認",
        "seal_text": "この研究のすべての同意は、一つの台帳に順に番号を付けて封印されています。"
        "下の封印は、その番号までのすべての記録に及びます。後から変更・削除・切り捨てがあれば、台帳はこの封印と一致しません。"
        "台帳を持つ人はだれでも次の方法で確かめられます。",
        "seal_number": "封印された件数",
        "seal_hash": "封印(sha256)",
        "seal_key": "台帳の鍵(Ed25519)",
        "seal_signature": "署名",
        "standard": "項目の準拠規格:",
        "record": "記録番号",
    },
}


def write_study(folder: pathlib.Path) -> pathlib.Path:
    """Writes a study.toml to be filled in, unless there is one; returns its path.

    Raises UserError for a folder that is not there or cannot be written to.
    """
    path = folder / STUDY
    lines = [
        "# What every receipt says of the study. Fill in each field, in a language or in both."
    ]
    lines += [f'{name} = ""  # {text}' for name, text in COMMON.items()]
    for language, name in LANGUAGES.items():
        lines += ["", f"[{language}]  # in {name.capitalize()}"]
        lines += [f'{name} = ""  # {text}' for name, text in WORDED.items()]
    try:
        if not path.exists():
            replace(path, ("\n".join(lines) + "\n").encode())
    except OSError as error:
        raise UserError(
            f"{path} is missing and cannot be written ({error.strerror or error}): the ledger's folder "
            "must be there, and one that you may write to, on a disk with space; or put a study.toml there."
        ) from None
    return path


def read_study(folder: pathlib.Path, languages: tuple[str, ...]) -> dict:
    """The fields of study.toml: {COMMON..., "en": {WORDED...}, ...}.

    Raises UserError: no such file, not to be read, not TOML, or a field of these languages that is empty
    or no text.
    """
    path = folder / STUDY
    try:
        study = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        write_study(folder)
        raise UserError(f"{path} was missing: fill in the one that was written.") from None
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror or error}): it must be a file that you may read."
        ) from None
    except ValueError as error:
        raise UserError(f"{path} is no TOML file ({error}): mend it.") from None
    groups = [("", COMMON, study)]
    for language in languages:
        worded = study.get(language)
        groups.append((f"[{language}] ", WORDED, worded if isinstance(worded, dict) else {}))
    for where, fields, found in groups:
        for name, text in fields.items():
            value = found.get(name)
            if not isinstance(value, str) or not value.strip():
                other = f", or write the receipt without --language={where[1:3]}" if where else ""
                raise UserError(f"{path}, {where}{name} is empty: say {text}{other}.")
    return study


def record(ledger, subject: str, languages: tuple[str, ...] = tuple(LANGUAGES)) -> dict:
    """The receipt of one person as JSON-able content.

    Args:
      ledger: a `consent.Ledger`.
      languages: of the texts that stem from the study.

    Raises UserError: nobody of that name, a study that is not filled in, TamperedError.
    """
    state = ledger.state(subject)
    if state is None:
        raise UserError(
            f"subject {subject!r} is not on the ledger {ledger.folder}: look who is with "
            f"python -m jaxface.data.consent list {ledger.folder}"
        )
    head = ledger.signed_head()
    if head.number < state.newest.number:
        raise UserError(
            f"{ledger.folder}: the power failed while event {state.newest.number} was written, and it is "
            "not under a signed head yet: record the next event first."
        )
    study = read_study(ledger.folder, languages)
    worded = lambda name: {language: study[language][name] for language in languages}
    parts = state.given.purposes

    def described(part: str) -> dict:
        words = {language: duo.words(part, LANGUAGES[language]) for language in languages}
        return {"code": part, "duo": duo.identifier(part)} | words

    return {
        "schema_version": STANDARD,
        "record_id": f"{head.key[:16]}-{state.given.number}",
        "receipt_time": state.newest.time,
        "pii_principal_id": subject,
        "language": list(languages),
        "pii_processing": {
            "study": worded("title"),
            "privacy_notice": study["notice"],
            "status": state.newest.kind,
            "expires": state.expires or None,
            "purposes": [described(p) for p in parts if duo.split(p)[0] not in duo.CONDITIONS],
            "conditions": [described(p) for p in parts if duo.split(p)[0] in duo.CONDITIONS],
            "pii_categories": worded("data"),
            "storage": worded("storage"),
            "retention": worded("retention"),
            "recipients": worded("recipients"),
            "jurisdiction": study["jurisdiction"],
            "withdrawal_method": {
                "contact": study["contact"],
                "words": {one: WITHDRAWAL[one].format(subject) for one in languages},
            },
        },
        "parties": [
            {
                "role": "PII controller",
                "name": worded("controller"),
                "contact": study["contact"],
            }
        ],
        "events": [
            {
                "number": event.number,
                "time": event.time,
                "state": event.kind,
                "purposes": list(event.purposes),
                "expires": event.expires or None,
                "method": event.method or None,
                "hash": event.hash,
            }
            for event in ledger.events(subject)
        ],
        "ledger_head": head._asdict(),
    }


def page(receipt: dict, language: str) -> str:
    """The HTML of a receipt, as `record` gives it, in one of its languages."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("receipt.html.jinja").render(
        language=language,
        t=TEXTS[language],
        methods={name: words[language] for name, words in METHODS.items()},
        receipt=receipt,
        processing=receipt["pii_processing"],
        groups=lambda text: [text[i : i + 8] for i in range(0, len(text), 8)],
    )


def write(
    ledger, subject: str, folder: str | os.PathLike, languages: tuple[str, ...]
) -> list[pathlib.Path]:
    """Writes receipt-SUBJECT.json and a page receipt-SUBJECT.LANGUAGE.html each; returns their paths."""
    receipt = record(ledger, subject, languages)
    plain = re.sub("[^0-9A-Za-z_.-]", "_", subject)
    if plain != subject:  # another pseudonym may become the same name
        plain += f"-{hashlib.sha256(subject.encode()).hexdigest()[:8]}"
    stem = f"receipt-{plain}"
    texts = {f"{stem}.json": json.dumps(receipt, indent=1, ensure_ascii=False) + "\n"}
    texts |= {f"{stem}.{language}.html": page(receipt, language) for language in languages}
    folder = pathlib.Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            replace(folder / name, text.encode())
    except OSError as error:
        raise UserError(
            f"{error.filename or folder}: {error.strerror or error}: choose another --output."
        ) from None
    return [folder / name for name in texts]
