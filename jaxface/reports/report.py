"""The page a run ends with: one HTML file that needs no network, in the order a doctor reads.

Everything on it comes from the workdir. A file that is not there, or cannot be read, costs its section
and leaves one sentence instead.
"""

import base64
import collections
import importlib.metadata
import io
import json
import os
import pathlib
import platform
import shlex
from typing import Any

import jinja2
import numpy as np
from PIL import Image

from jaxface.reports import charts
from jaxface.reports.words import MEASURES, duration, family, number, place

FOLDER = pathlib.Path(__file__).parent
WIDE, NARROW = 1600, 420  # px of a picture shown by itself, and of one among many
HEAVY = 2**21  # bytes of a PNG above which a picture is shown as JPEG
SHOWN = 6  # grids over time
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


class _Missing(Exception):
    """A section has nothing to show; the message is the sentence that stands in its place."""


def write(workdir: str | pathlib.Path) -> pathlib.Path:
    """Writes `report.html` into a workdir from the files in it, and returns its path.

    Reads config.json, metrics.jsonl, timing.jsonl, results.json, lineage.json and samples/*.png with
    samples/captions.json; none of them has to exist. Equal files give an equal page.
    """
    folder = pathlib.Path(workdir)
    sections = {
        "config": _config,
        "results": _results,
        "pictures": _pictures,
        "figures": _figures,
        "curves": _curves,
        "times": _times,
        "lineage": _lineage,
    }
    page: dict[str, Any] = {"missing": {}}
    for name, read in sections.items():
        try:
            page[name] = read(folder)
        except _Missing as sentence:
            page[name], page["missing"][name] = None, str(sentence)
    page["about"] = _about(folder, page)
    page["versions"] = _versions(page["lineage"])
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    html = environment.get_template("report.html.jinja").render(page)
    path = folder / "report.html"
    draft = folder / "report.html.tmp"
    draft.write_text(html, encoding="utf-8")
    os.replace(draft, path)
    return path


# ---- reading --------------------------------------------------------------------------------


def _json(folder: pathlib.Path, name: str, why: str) -> dict:
    try:
        content = json.loads((folder / name).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise _Missing(f"There is no {name} in this workdir: {why}.") from None
    except (OSError, ValueError) as error:
        raise _Missing(f"{name} could not be read ({error}).") from None
    if not isinstance(content, dict):
        raise _Missing(f"{name} does not hold what it should.")
    return content


def _lines(folder: pathlib.Path, name: str, keys: tuple[str, ...], why: str) -> list[dict]:
    """Records of a .jsonl file; a line cut by a kill is passed over."""
    try:
        lines = (folder / name).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise _Missing(f"There is no {name} in this workdir: {why}.") from None
    except (OSError, ValueError) as error:
        raise _Missing(f"{name} could not be read ({error}).") from None
    records = []
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and all(key in record for key in keys):
            records.append(record)
    if not records:
        raise _Missing(f"{name} is empty: {why}.")
    return records


# ---- sections -------------------------------------------------------------------------------


def _config(folder: pathlib.Path) -> dict:
    content = _json(folder, "config.json", "the settings of this run are not known")
    run = content.pop("run", None)
    run = dict(run) if isinstance(run, dict) else {}
    for key in ("experiment", "scale", "command"):
        if key in content:
            run.setdefault(key, content.pop(key))
    shown = {k: json.dumps(v) if not isinstance(v, str) else v for k, v in content.items()}
    return {"run": run, "fields": dict(sorted(shown.items())), "raw": content}


def _results(folder: pathlib.Path) -> dict:
    content = _json(folder, "results.json", "the run has not reached its evaluation")
    if not content:
        raise _Missing("results.json holds no number: nothing was evaluated.")
    rows = []
    families = collections.defaultdict(list)
    for name in sorted(content, key=place):
        result = content[name] if isinstance(content[name], dict) else {"value": content[name]}
        value, low, high = (result.get(key) for key in ("value", "low", "high"))
        whole = None not in (value, low, high)
        spread = (high - low) / 2 if whole else None
        words = MEASURES.get(name)
        row = {
            "name": name,
            "title": words.title if words else name,
            "meaning": words.meaning if words else "",
            "known": words is not None,
            "exact": (value, low, high),
            "value": number(value, spread),
            "low": number(low, spread) if whole else None,
            "high": number(high, spread) if whole else None,
            "n": result.get("n"),
            "unit": result.get("unit") or "",
            "protocol": result.get("protocol") or "",
            "mark": None,
        }
        rows.append(row)
        if value is not None:
            families[family(name)].append(row)
    for members in families.values():
        if len(members) > 1:
            _mark(members)
    # A family stands together, where its first member stands.
    first = {row["name"]: index for index, row in enumerate(rows)}
    leader = {f: min(first[row["name"]] for row in m) for f, m in families.items()}
    rows.sort(key=lambda row: (leader.get(family(row["name"]), first[row["name"]]),))
    return {"rows": rows, "marks": any(row["mark"] for row in rows), "verdict": _verdict(content)}


def _mark(rows: list[dict]) -> None:
    """Where each row of a family lies on the family's one scale, in percent of its width."""
    ends = [x for row in rows for x in row["exact"] if x is not None] + [0.0]
    low, high = min(ends), max(ends)
    width = (high - low) or 1.0
    at = lambda x: round(4 + 92 * (x - low) / width, 2)
    for row in rows:
        value, begin, end = row["exact"]
        row["mark"] = {
            "zero": at(0.0),
            "value": at(value),
            "low": at(begin) if begin is not None else None,
            "high": at(end) if end is not None else None,
        }


def _verdict(results: dict) -> str:
    """What the three KIDs say together, if they are there."""
    get = lambda name: results.get(name) if isinstance(results.get(name), dict) else None
    now, base, floor = map(get, ("kid_mobilenetv2", "kid_mobilenetv2_base", "kid_noise_floor"))
    if not now or now.get("value") is None:
        return ""
    spread = (now["high"] - now["low"]) / 2 if now.get("low") is not None else None
    text = f"The generated pictures are {number(now['value'], spread)} from the real ones (KID)"
    if spread is not None:
        low, high = number(now["low"], spread), number(now["high"], spread)
        text += f", 95\N{NARROW NO-BREAK SPACE}% interval {low} to {high}"
    if base and base.get("value") is not None:
        text += f"; before this training it was {number(base['value'], spread)}"
        if None not in (now.get("low"), base.get("low")):
            if now["high"] < base["low"]:
                text += ", and the intervals do not overlap: training has brought them nearer"
            elif base["high"] < now["low"]:
                text += ", and the intervals do not overlap: training has taken them further away"
            else:
                text += ", and the intervals overlap: no change is shown"
    text += "."
    if floor and floor.get("value") is not None:
        where = "below" if now["value"] <= floor["value"] else "above"
        text += f" That is {where} the noise floor of {number(floor['value'])}"
        text += (
            ": with this many photographs no difference can be shown."
            if where == "below"
            else ": generated and real pictures can still be told apart."
        )
    return text


def _picture(path: pathlib.Path, width: int) -> dict | None:
    """A picture no wider than `width` as a data URI, with what its text chunks say."""
    try:
        content = path.read_bytes()
        with Image.open(io.BytesIO(content)) as image:
            image.load()
            about = {k: v for k, v in getattr(image, "text", {}).items() if isinstance(v, str)}
            kind = "png"
            if image.format != "PNG" or image.width > width or len(content) > HEAVY:
                image = image.convert("RGB")
                image.thumbnail((width, 10 * width), Image.Resampling.LANCZOS)
                content = _encoded(image, "PNG")
                if len(content) > HEAVY:
                    content, kind = _encoded(image, "JPEG", quality=90), "jpeg"
            size = image.size
    except (OSError, ValueError):
        return None
    uri = f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
    return {"name": path.name, "uri": uri, "about": about, "width": size[0], "height": size[1]}


def _encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def _captions(folder: pathlib.Path) -> dict:
    try:
        return _json(folder, "samples/captions.json", "")
    except _Missing:
        return {}


def _is_step(path: pathlib.Path) -> bool:
    return path.stem.isdigit() and len(path.stem) == 8


def _pictures(folder: pathlib.Path) -> dict:
    captions = _captions(folder)
    steps = sorted(path for path in (folder / "samples").glob("*.png") if _is_step(path))
    reals = folder / "samples" / "reals.png"
    last = _picture(steps[-1], WIDE) if steps else None
    real = _picture(reals, WIDE) if reals.exists() else None
    if last is None and real is None:
        raise _Missing("There are no sample pictures in this workdir: none were drawn.")
    if last:
        last["step"] = int(steps[-1].stem)
        last["caption"] = str(captions.get(last["name"], f"Samples at step {last['step']}."))
    if real:
        real["caption"] = str(captions.get("reals.png", "Training photographs."))
    if len(steps) > SHOWN:
        chosen = sorted({round(x) for x in np.linspace(0, len(steps) - 1, SHOWN)})
        steps = [steps[i] for i in chosen]
    history = []
    for path in steps if len(steps) > 1 else []:
        picture = _picture(path, NARROW)
        if picture:
            history.append(picture | {"step": int(path.stem)})
    return {"last": last, "real": real, "history": history}


def _figures(folder: pathlib.Path) -> list[dict]:
    captions = _captions(folder)
    figures = []
    for path in sorted((folder / "samples").glob("*.png")):
        if _is_step(path) or path.name == "reals.png":
            continue
        picture = _picture(path, WIDE)
        if picture:
            title = path.stem.replace("_", " ").capitalize()
            caption = str(captions.get(path.name, ""))
            figures.append(picture | {"title": title, "caption": caption})
    if not figures:
        raise _Missing("This run has drawn no further figures.")
    return figures


def _curves(folder: pathlib.Path) -> dict:
    why = "nothing was logged"
    records = _lines(folder, "metrics.jsonl", ("step", "name", "value"), why)
    series = collections.defaultdict(dict)  # a step logged twice counts once, the later one
    gaps = collections.Counter()
    for record in records:
        step, value = record["step"], record["value"]
        if not isinstance(step, int) or not isinstance(value, int | float | None):
            continue
        if value is None or not np.isfinite(value):
            gaps[record["name"]] += 1
        else:
            series[str(record["name"])][step] = float(value)
    groups, still = collections.defaultdict(dict), {}
    for name, points in sorted(series.items()):
        steps = np.array(sorted(points))
        values = np.array([points[int(step)] for step in steps])
        if len(steps) > 1 and np.ptp(values) == 0:
            still[name] = number(float(values[0]))
        elif len(steps) > 1:
            group, slash, label = name.partition("/")
            groups[group if slash else "other"][label if slash else group] = (steps, values)
    charted = []
    for group, curves in sorted(groups.items(), key=lambda item: (item[0] != "loss", item[0])):
        ends = ", ".join(f"{k} {number(float(v[0]))} to {number(float(v[-1]))}" for k, (_, v) in
                         curves.items())  # fmt: skip
        log = charts.wants_log(curves)
        charted.append(
            {
                "group": group,
                "log": log,
                "uri": charts.uri(charts.curves(group, curves)),
                "alt": f"Curves of {group} over training steps: {ends}.",
            }
        )
    if not charted and not still:
        raise _Missing("metrics.jsonl holds no curve: the run was too short to draw one.")
    return {"charts": charted, "still": still, "gaps": dict(gaps)}


def _times(folder: pathlib.Path) -> dict:
    why = "how long this run took is not known"
    records = _lines(folder, "timing.jsonl", ("activity", "seconds"), why)
    seconds, times = collections.Counter(), collections.Counter()
    for record in records:
        if isinstance(record["seconds"], int | float):
            seconds[str(record["activity"])] += record["seconds"]
            times[str(record["activity"])] += 1
    total = sum(seconds.values())
    if not total:
        raise _Missing("timing.jsonl holds no time.")
    rows = [
        {
            "activity": name,
            "words": ACTIVITIES.get(name, ""),
            "time": duration(spent),
            "times": times[name],
            "percent": round(100 * spent / total, 1),
        }
        for name, spent in seconds.most_common()
    ]
    return {"rows": rows, "total": duration(total)}


ACTIVITIES = {
    "data": "building and reading the training set",
    "start": "making or restoring the networks",
    "compile": "first step, with compilation",
    "step": "training steps",
    "sample": "drawing pictures",
    "save": "checkpoints",
    "evaluate": "judging the result",
    "report": "earlier versions of this page",
}


def _lineage(folder: pathlib.Path) -> dict:
    content = _json(folder, "lineage.json", "where this run comes from is not known")
    starts = content.get("starts")
    starts = [s for s in starts if isinstance(s, dict)] if isinstance(starts, list) else []
    told = ("starts", "now", "allowed", "withdrawn")
    rest = {k: v for k, v in content.items() if k not in told} if starts else content
    plain = lambda v: v if isinstance(v, str) else json.dumps(v, ensure_ascii=False)
    shown = []
    for start in starts:
        hidden = {"versions", "python", "devices", "processes"}
        shown.append(
            {k: plain(v) for k, v in start.items() if k not in hidden and v not in ("", None)}
        )
    return {
        "people": _people(content),
        "withdrawn": _withdrawn(content),
        "starts": shown,
        "rest": {k: plain(v) for k, v in rest.items()},
        "newest": starts[-1] if starts else {},
    }


def _people(content: dict) -> str:
    """From how many people the newest checkpoint has learned, under which ledger; "" if not known."""
    now = content.get("now")
    if not isinstance(now, dict):
        return ""
    some = lambda count, one, more: f"{count} {one if count == 1 else more}"
    text = (
        f"The networks of step {now.get('step')} have learned from "
        f"{some(now.get('people'), 'person', 'people')} and "
        f"{some(now.get('images'), 'picture', 'pictures')} of them (data set {now.get('data')}"
        + (f", used for {now['purpose']})" if now.get("purpose") else ")")
    )
    parents = [one for one in now.get("ancestors") or () if isinstance(one, dict)]
    if parents:
        count = parents[0].get("people")
        whom = "people it does not tell of" if count is None else some(count, "person", "people")
        text += f", and began as networks that had learned from {whom}"
    head = str(now.get("ledger") or "")
    text += (
        f". Their consent stood on a ledger whose newest entry was {head[:16]}."
        if head
        else ". No consent ledger was in use."
    )
    return text + " The checkpoints keep the list of them; it holds hashes and no names."


def _withdrawn(content: dict) -> str:
    """That people have withdrawn, or that this was overruled; "" where neither is so."""
    gone, allowed = content.get("withdrawn"), content.get("allowed")
    text = ""
    if isinstance(gone, dict):
        count = gone.get("people")
        who = "One of these people has" if count == 1 else f"{count} of these people have"
        text += (
            f"{who} withdrawn the consent, the last on {gone.get('on')}. Do not use these networks and "
            "do not quote these numbers: train anew without them."
        )
    if isinstance(allowed, list) and allowed:
        times = "once" if len(allowed) == 1 else f"{len(allowed)} times"
        text += f" In spite of a withdrawal the networks were used {times} (--allow_withdrawn)."
    return text.strip()


def _versions(lineage: dict | None) -> dict:
    newest = lineage["newest"] if lineage else {}
    if isinstance(newest.get("versions"), dict):
        rows = {"python": newest.get("python")} | newest["versions"]
        devices = newest.get("devices")
        if isinstance(devices, list):
            counts = collections.Counter(map(str, devices))
            rows["devices"] = ", ".join(f"{n} × {d}" for d, n in counts.items())
        rows["processes"] = newest.get("processes")
        note = "As noted when the run was last started."
    else:
        rows = {"python": platform.python_version()}
        for name in PACKAGES:
            try:
                rows[name] = importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                continue
        note = "Of the environment that wrote this page; the run itself noted none."
    return {"rows": {k: str(v) for k, v in rows.items() if v is not None}, "note": note}


def _about(folder: pathlib.Path, page: dict) -> dict:
    """Title, what this run is and is not, and how to go on."""
    config = page["config"] or {"run": {}, "raw": {}}
    run, raw = config["run"], config["raw"]
    experiment, scale = (str(run.get(key) or "") for key in ("experiment", "scale"))
    data = str(raw.get("data") or "")
    phantom = data.startswith("phantom")
    what = str(run.get("title") or "").strip()
    named = f"experiment {experiment}" if experiment else "an experiment it does not name"
    sentence = f"This page is the record of one run of {named}"
    sentence += f" at scale {scale}" if scale else ""
    if page["pictures"] and page["pictures"]["last"]:
        sentence += f", after {number(page['pictures']['last']['step'])} training steps"
    sentence += f", on the data set {data}." if data else "."
    if page["times"]:
        sentence += f" It took {page['times']['total']}."
    if phantom:
        warning = (
            "The training pictures are a digital phantom: rendered heads with stylised signs of "
            "disease, of nobody. They test that the method works as a program. Nothing on this page "
            "is a clinical claim, and no number here carries over to patients."
        )
    else:
        warning = (
            "Research software, not a medical device. Numbers hold for the pictures they were measured "
            "on. Generated faces are meant to show no real person: look at their nearest photographs "
            "before any of them leaves your hands."
        )
    on = []
    if experiment:
        name = f"{experiment}:{scale}" if scale else experiment
        made_by = str(run.get("command") or f"python launch.py --experiment={name}")
        # The run's own words, so that its --config settings are kept; a later flag overrules.
        kept = [w for w in made_by.split() if not w.startswith(("--mode=", "--workdir="))]
        again = " ".join([*kept, f"--workdir={shlex.quote(str(folder))}"])
        on += [
            ("Continue this run; name a new --workdir to repeat it", again),
            ("Draw 64 more pictures", f"{again} --mode=sample --num=64 --seed=1"),
            ("Judge the newest checkpoint again", f"{again} --mode=evaluate"),
            ("Write this page again", f"{again} --mode=report"),
        ]
        if scale and scale != "paper":
            on.append(
                (
                    "See what the published scale would take, on your own photographs",
                    f"python launch.py --experiment={experiment}:paper --data_dir=YOUR_FOLDER --dry_run",
                )
            )
    title = " · ".join(part for part in (experiment or "A run", scale) if part)
    return {
        "title": title,
        "what": what,
        "sentence": sentence,
        "phantom": phantom,
        "warning": warning,
        "next": on,
    }
