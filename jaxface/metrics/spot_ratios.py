"""Spot ratios on translated photographs beside those on real UV photographs: numbers and pictures.

The published measure of UV-photo Net is Pearson's r of the two (Kojima et al. 2021,
10.1038/s41598-020-79995-4); concordance, limits of agreement and the rest are ours.
"""

import csv
import pathlib

import cv2
import numpy as np

from jaxface.metrics import agreement, plots
from jaxface.metrics.intervals import bootstrap, by_subject
from jaxface.system import Figure, Result

TONES = {
    "light": (41, 90),
    "medium": (10, 41),
    "dark": (-90, 10),
}  # ITA, degrees (Del Bino 2013, merged)


def correlations(rows, others, subjects, kind: str) -> dict[str, Result]:
    """How well ratios agree with those of real UV photographs; names as in the results contract."""
    pick = lambda table, name: np.array([row[name] for row in table])
    real, ours, color = (pick(rows, name) for name in ("real", "translated", "color"))
    device = kind == "device"
    who = (
        "held-out people in the device"
        if device
        else "held-out people before phones, against their hidden UV photographs"
    )
    suffix = "" if device else "_phone"
    protocol = f"{who}; one ratio a photograph, both cheeks together; interval by person (BCa)"
    results = {
        f"spot_ratio_r{suffix}": agreement.pearson(ours, real, subjects, protocol),
        f"spot_ratio_r{suffix}_color": agreement.pearson(
            color,
            real,
            subjects,
            f"the same detector on the blue channel with a threshold of its own; {protocol}",
        ),
        f"spot_ratio_r{suffix}_color_gain": agreement.difference_of_r(
            ours, color, real, subjects, f"translated minus color, paired; {protocol}"
        ),
        f"spot_ratio_ccc{suffix}": agreement.lin_ccc(ours, real, subjects, protocol),
    }
    apart = agreement.bland_altman(ours, real, subjects, protocol)
    results |= {
        f"spot_ratio_bias{suffix}": apart.bias,
        f"spot_ratio_limit_low{suffix}": apart.low,
        f"spot_ratio_limit_high{suffix}": apart.high,
    }
    for name, table in others.items():
        theirs = pick(table, "translated")
        place = suffix or "_device"
        results[f"spot_ratio_r{place}_{name}"] = agreement.pearson(theirs, real, subjects, protocol)
        results[f"spot_ratio_r{place}_gain"] = agreement.difference_of_r(
            ours, theirs, real, subjects, f"this network minus {name}, paired; {protocol}"
        )
    if "pigment" in rows[0]:
        results[f"spot_ratio_r{suffix}_pigment"] = agreement.pearson(
            ours, pick(rows, "pigment"), subjects, f"against the phantom's exact spots; {protocol}"
        )
    return results


def mean_of_people(values, subjects) -> Result:
    """Mean of one value a photograph, NaN where it has none, with its interval."""
    known = np.isfinite(values)
    protocol = "mean over held-out people with a UV photograph, inside the skin; interval by person"
    if not known.any():
        return Result(float("nan"), n=0, protocol=protocol)
    interval = bootstrap(by_subject(values[known], subjects[known]), np.mean)
    return Result(interval.value, interval.low, interval.high, interval.n, protocol=protocol)


def by_tone(rows, subjects, ita) -> dict[str, Result]:
    """The headline for each skin tone that has at least five people."""
    results = {}
    for tone, (low, high) in TONES.items():
        chosen = (ita >= low) & (ita < high)
        if len(np.unique(subjects[chosen])) < 5:
            continue
        pick = lambda name, chosen=chosen: np.array([row[name] for row in rows])[chosen]
        results[f"spot_ratio_r_{tone}"] = agreement.pearson(
            pick("translated"),
            pick("real"),
            subjects[chosen],
            f"as spot_ratio_r, people with an individual typology angle from {low} to {high} degrees",
        )
    return results


def write_table(workdir: pathlib.Path, rows: list[dict]) -> None:
    """spot_ratios.csv: every held-out photograph with its ratios."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    with open(workdir / "spot_ratios.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def figures(rows: list[dict]) -> dict[str, Figure]:
    """Ratios of translated against real UV photographs, and their differences, for each device."""
    drawn = {}
    for device in dict.fromkeys(row["device"] for row in rows):
        chosen = [row for row in rows if row["device"] == device]
        pick = lambda name, chosen=chosen: np.array([row[name] for row in chosen])
        suffix, subjects = "" if device == "device" else f"_{device}", pick("subject")
        names = [name for name in chosen[0] if name.startswith("translated")] + ["color"]
        who = f"held-out people before {'the device' if device == 'device' else 'phones'}"
        drawn[f"spot_ratio{suffix}"] = plots.against(
            pick("real"),
            {name.replace("_", " "): pick(name) for name in names},
            subjects=subjects,
            caption=f"Spot ratio of both cheeks of {who}, against that of the real UV photograph.",
        )
        drawn[f"bland_altman{suffix}"] = plots.bland_altman(
            pick("translated"),
            pick("real"),
            subjects,
            caption=f"How far the spot ratio of {who} is off (Bland and Altman 1986).",
        )
    return drawn


def gallery(shown, people: int = 4) -> Figure:
    """Faces side by side: color, real UV, translated UV, spots of both (red: ours, blue: real)."""
    order = np.argsort([-np.mean(seen["real"][seen["cheeks"]]) for _, seen in shown])
    picked = order[np.linspace(0, len(order) - 1, min(people, len(order))).astype(int)]
    images = []
    for i in picked:
        color, seen = shown[i]
        gray = lambda x: np.repeat(x[..., None], 3, -1)
        mask = seen["mask"]
        real = np.where(mask, seen["uv"], 0)
        both = gray(real)
        both[seen["real"]] = (40, 110, 255)
        both[seen["translated"]] = (255, 60, 40)
        both[seen["real"] & seen["translated"]] = (255, 255, 255)
        row = [color, gray(real), gray(seen["fake"]), both]
        images += [cv2.resize(x, (512, 512), interpolation=cv2.INTER_AREA) for x in row]
    caption = (
        "Held-out people from many spots to few: color photograph, real UV photograph, translated one, "
        "spots found (white: in both, blue: in the real one only, red: in the translated one only)."
    )
    return Figure(np.stack(images), 4, caption, photographs=True)
