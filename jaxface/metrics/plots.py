"""Pictures of measurements: how two agree, and what is told of people, by day, by method and by how many.

Series differ in marker and line as well as in color. The pictures depend on the numbers alone.
"""

import functools
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from jaxface.metrics.agreement import limits
from jaxface.system import Figure, Result

COLORS = ("#0f6e84", "#c2571a", "#6b4fa0", "#4d7c0f", "#b0275b", "#7a6a4f")
MARKERS = ("o", "^", "s", "D", "v", "P")
DASHES = ("-", "--", "-.", ":", (0, (6, 2, 1, 2, 1, 2)), (0, (1, 3)))
INK, FAINT, STRIPE = "#33404d", "#dde3e8", "#f4f6f8"
SESSIONS = {  # words, marker, color, side of the day
    "pre": ("before dialysis", "^", COLORS[1], -1),
    "post": ("after dialysis", "o", COLORS[0], 1),
}
INSIDE, OUTSIDE = 0.12, 0.28  # days from the middle: what was measured and what was estimated
MOST_DAYS = 12  # names under a chart
FARTHEST = 8  # times the people there were, that a curve is drawn to
STYLE = {
    "font.family": "DejaVu Sans", "font.size": 20, "text.color": INK, "axes.labelcolor": INK,
    "axes.edgecolor": INK, "xtick.color": INK, "ytick.color": INK, "axes.unicode_minus": True,
    "axes.spines.top": False, "axes.spines.right": False,
}  # fmt: skip


def styled(draw: Callable) -> Callable:
    """A function that draws in STYLE. matplotlib comes with its first picture: a run waits for none."""

    @functools.wraps(draw)
    def in_style(*args, **named):
        import matplotlib

        with matplotlib.rc_context(STYLE):
            return draw(*args, **named)

    return in_style


def blank(width: float, height: float):
    """An empty matplotlib figure of so many inches, 100 dots each."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=(width, height), dpi=100, layout="constrained")
    FigureCanvasAgg(canvas)
    return canvas


@styled
def bland_altman(
    made: np.ndarray,
    real: np.ndarray,
    subjects: np.ndarray,
    *,
    caption: str,
    quantity: str = "spot ratio",
    names: tuple[str, str] = ("translated", "real UV"),
) -> Figure:
    """Difference made - real over their mean (Bland & Altman, Lancet 1986), one picture 1600 px wide.

    Args:
      made, real: [N]; pairs with a value that is not finite are left out.
      subjects: person [N] of each pair.
      quantity, names: what was measured, and by what, in the words on the axes.
    """
    made, real = np.asarray(made, np.float64), np.asarray(real, np.float64)
    finite = np.isfinite(made) & np.isfinite(real)
    made, real, people = made[finite], real[finite], len(np.unique(np.asarray(subjects)[finite]))
    canvas, axes = _axes((16, 10))
    axes.set_xlabel(f"mean of {names[0]} and {names[1]} {quantity}")
    axes.set_ylabel(f"{names[0]} minus {names[1]} {quantity}")
    axes.set_title(f"{_count(people, 'person', 'people')}, {_count(len(made), 'pair', 'pairs')}")
    if len(made):
        axes.scatter(
            (made + real) / 2, made - real, s=70, color=COLORS[0], edgecolor="white", zorder=3
        )
        bias, low, high = limits(made - real)
        lines = [(bias, "-", "bias"), (high, "--", "95 % limit"), (low, "--", "95 % limit")]
        lines = [line for line in lines if np.isfinite(line[0])]
        ends = [value for value, _, _ in lines] + [0.0, *(made - real)]
        room = 0.15 * (np.ptp(ends) or 1)
        axes.set_ylim(min(ends) - room, max(ends) + room)
        axes.axhline(0, color=FAINT, linewidth=1.5, zorder=1)
        places = _spread([value for value, _, _ in lines], 0.05 * (np.ptp(ends) + 2 * room))
        for (value, style, name), place in zip(lines, places):
            axes.axhline(value, color=INK, linestyle=style, linewidth=1.6, zorder=2)
            axes.annotate(
                f"{name} {_signed(value, high - low)}", (1.01, place), xycoords=axes.get_yaxis_transform(),
                va="center", annotation_clip=False,
            )  # fmt: skip
    return Figure(drawn(canvas), 1, caption)


@styled
def against(
    real: np.ndarray,
    series: Mapping[str, np.ndarray],
    *,
    caption: str,
    subjects: np.ndarray | None = None,
    quantity: str = "spot ratio",
    source: str = "real UV photograph",
) -> Figure:
    """Each series [N] over the real values [N] with the line of equality, one picture 1600 px wide.

    Args:
      real: [N]; pairs with a value that is not finite are left out, series by series.
      series: {name in the legend: values [N]}, at most six.
      subjects: person [N] of each pair; None: each its own.
      quantity, source: what was measured, and on what the real values, in the words on the axes.
    """
    if len(series) > len(MARKERS):
        raise ValueError(f"at most {len(MARKERS)} series can be told apart, got {len(series)}")
    real = np.asarray(real, np.float64)
    people = np.arange(len(real)) if subjects is None else np.asarray(subjects)
    canvas, axes = _axes((16, 12))
    shown, pairs = [0.0], np.zeros(len(real), bool)
    for k, (name, values) in enumerate(series.items()):
        values = np.asarray(values, np.float64)
        finite = np.isfinite(values) & np.isfinite(real)
        pairs |= finite
        shown += [*real[finite], *values[finite]]
        filled = COLORS[k] if k == 0 else "none"
        axes.scatter(
            real[finite], values[finite], s=90, marker=MARKERS[k], facecolor=filled,
            edgecolor=COLORS[k], linewidth=1.6, label=name, zorder=3,
        )  # fmt: skip
    low, high = min(shown), max(shown)
    room = 0.05 * ((high - low) or 1)
    ends = (low - (room if low < 0 else 0), high + room)
    axes.plot(ends, ends, color=INK, linewidth=1.4, linestyle="--", label="equal", zorder=2)
    axes.set(xlim=ends, ylim=ends, aspect="equal")
    axes.grid(color=FAINT, zorder=0)
    axes.set_xlabel(f"{quantity} on the {source}")
    axes.set_ylabel(f"{quantity} as found otherwise")
    axes.set_title(_count(len(np.unique(people[pairs])), "person", "people"))
    canvas.legend(loc="outside upper center", ncols=2, frameon=False)
    return Figure(drawn(canvas), 1, caption)


def _axes(inches: tuple[float, float]):
    canvas = blank(*inches)
    return canvas, canvas.add_subplot()


def drawn(canvas) -> np.ndarray:
    """uint8 [1, H, W, 3]."""
    canvas.canvas.draw()
    return np.asarray(canvas.canvas.buffer_rgba())[None, ..., :3].copy()


def _spread(values: list[float], apart: float) -> np.ndarray:
    """Places near the values, in their order, of which no two are nearer than `apart`."""
    places = np.array(values, np.float64)
    order = np.argsort(places, kind="stable")
    middle = len(order) // 2
    for i in range(middle + 1, len(order)):
        places[order[i]] = max(places[order[i]], places[order[i - 1]] + apart)
    for i in range(middle - 1, -1, -1):
        places[order[i]] = min(places[order[i]], places[order[i + 1]] - apart)
    return places


def _signed(value: float, spread: float) -> str:
    """With sign, and with three digits of a spread."""
    digits = 2 - np.floor(np.log10(spread)) if spread > 0 else 3
    return f"{value:+.{int(np.clip(digits, 0, 6))}f}".replace("-", "\N{MINUS SIGN}")


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


@styled
def day_chart(
    days: Sequence[str],
    weight_kg: np.ndarray,
    predicted: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    session: Sequence[str],
    caption: str,
) -> Figure:
    """Measured and estimated weight of one patient day by day, one picture 1600 px wide.

    Before and after dialysis differ in marker, place and color, measured and estimated in filling, so that
    the chart can be read in gray. An arrow stands for an interval without an end.

    Args:
      days: [N] of each video; they stand in order of name.
      weight_kg: [N] in kg, NaN where nobody weighed.
      predicted: [N] in kg, NaN where the estimate was withheld.
      low, high: [N] in kg, ends of the intervals; inf where they have none.
      session: [N], pre or post.
    """
    names, place = np.unique(np.asarray(days, str), return_inverse=True)
    columns = [np.asarray(x, np.float64) for x in (weight_kg, predicted, low, high)]
    kg, made, low, high = columns
    session = np.asarray(session, str)
    if not np.isin(session, list(SESSIONS)).all():
        raise ValueError(f"sessions must be pre or post, got {sorted(set(session.tolist()))}")
    canvas, axes = _axes((16, 10))
    axes.set_ylabel("body weight (kg)")
    axes.set_xlabel("day of dialysis")
    # Infinite ends may not decide the axis; the arrows that stand for them reach its ends.
    shown = np.concatenate([x[np.isfinite(x)] for x in columns]) if len(place) else np.zeros(0)
    bottom, top = (shown.min(), shown.max()) if len(shown) else (0.0, 1.0)
    room = max(0.08 * (top - bottom), 0.2)
    bottom, top = bottom - room, top + room
    axes.set(ylim=(bottom, top), xlim=(-0.6, max(len(names), 1) - 0.4))
    size = float(np.clip(1400 / max(len(names), 1), 60, 170))  # of a marker: many stay apart
    for k in range(0, len(names), 2):
        axes.axvspan(k - 0.5, k + 0.5, color=STRIPE, linewidth=0, zorder=0)
    for day in range(len(names)):  # what the dialysis took out
        ends = [kg[(place == day) & (session == one)] for one in SESSIONS]
        at = [day + side * INSIDE for _, _, _, side in SESSIONS.values()]
        if all(len(end) == 1 for end in ends):
            axes.plot(at, np.concatenate(ends), color=INK, linewidth=1.4, zorder=2)
    for one, (words, marker, color, side) in SESSIONS.items():
        of = session == one
        inside, outside = place[of] + side * INSIDE, place[of] + side * OUTSIDE
        kind = {"marker": marker, "s": size, "edgecolor": color, "linewidth": 2.4}
        # An empty series still has its place in the legend, so that all charts have the same.
        axes.scatter(inside, kg[of], facecolor=color, label=f"measured {words}", zorder=4, **kind)
        axes.scatter(
            outside, made[of], facecolor="white", label=f"estimated {words}", zorder=4, **kind
        )
        for x, value, ends in zip(outside, made[of], zip(low[of], high[of])):
            if not np.isfinite(value):
                axes.annotate(
                    "withheld", (x, bottom), xytext=(0, 10), textcoords="offset points", rotation=90,
                    ha="center", va="bottom", size=18, color=color,
                )  # fmt: skip
                continue
            for end, border in zip(ends, (bottom, top)):
                if np.isfinite(end):
                    axes.plot([x, x], [value, end], color=color, linewidth=2, zorder=3)
                    axes.plot([x - 0.04, x + 0.04], [end, end], color=color, linewidth=2, zorder=3)
                else:
                    arrow = {"arrowstyle": "->", "color": color, "linewidth": 2}
                    axes.annotate("", (x, border), (x, value), arrowprops=arrow, zorder=3)
    step = max(1, -(-len(names) // MOST_DAYS))
    axes.set_xticks(range(0, len(names), step), names[::step])
    axes.tick_params(axis="x", length=0)
    if max(map(len, names[::step]), default=0) * len(names[::step]) > 90:
        for label in axes.get_xticklabels():
            label.set(rotation=35, ha="right", rotation_mode="anchor")
    canvas.legend(loc="outside upper center", ncols=2, frameon=False, columnspacing=2.5)
    return Figure(drawn(canvas), 1, caption)


@styled
def accuracy_by_days(
    table: Mapping[str, Mapping[int | str, Result]],
    caption: str,
    *,
    quantity: str = "video accuracy",
    chance: float | None = 0.5,
) -> Figure:
    """One measure of several methods over the days learned from, with intervals, 1600 px wide.

    Args:
      table: {method: {days: Result}}, at most six methods; days are numbers or words ("D-1": all but
        the one judged) and stand in the order in which they first come. The first method is the one the
        chart is about.
      quantity: what the results are, in the words on the axis; a share is shown in percent, a Result
        with a unit in that unit.
      chance: where a line says "chance"; None for none, as for kg.
    """
    if len(table) > len(MARKERS):
        raise ValueError(f"at most {len(MARKERS)} methods can be told apart, got {len(table)}")
    days = list(dict.fromkeys(day for row in table.values() for day in row))
    units = {result.unit for row in table.values() for result in row.values()}
    if len(units) > 1:
        raise ValueError(f"one chart of several units: {sorted(units)}")
    unit = next(iter(units), "")
    factor = 1 if unit else 100
    canvas, axes = _axes((16, 10))
    axes.set_xlabel("days of the patient that were learned from")
    axes.set_ylabel(f"{quantity} ({unit or '%'})")
    if chance is not None:
        axes.axhline(factor * chance, color=INK, linestyle=":", linewidth=1.6, zorder=1)
        axes.annotate(
            "chance", (1.01, factor * chance), xycoords=axes.get_yaxis_transform(), va="center",
            annotation_clip=False,
        )  # fmt: skip
    gap = min(0.09, 0.5 / max(1, len(table)))
    for k, (name, row) in enumerate(table.items()):
        at = np.array([days.index(day) for day in row]) + gap * (k - (len(table) - 1) / 2)
        value = factor * np.array([result.value for result in row.values()], np.float64)
        ends = [[result.value if end is None else end for result, end in zip(row.values(), side)]
                for side in zip(*((r.low, r.high) for r in row.values()))]  # fmt: skip
        reach = np.abs(factor * np.array(ends, np.float64).reshape(2, -1) - value)
        axes.errorbar(
            at, value, reach, color=COLORS[k], linestyle=DASHES[k], linewidth=2.6 if k == 0 else 1.8,
            marker=MARKERS[k], markersize=13, markerfacecolor=COLORS[k] if k == 0 else "white",
            markeredgewidth=2, capsize=6, capthick=1.8, elinewidth=1.8, label=name, zorder=4 - 0.1 * k,
        )  # fmt: skip
    axes.set_xticks(range(len(days)), [_days(day, table) for day in days])
    axes.set_xlim(-0.5, max(len(days), 1) - 0.5)
    axes.grid(axis="y", color=FAINT, zorder=0)
    if table:
        canvas.legend(loc="outside upper center", ncols=min(3, len(table)), frameon=False)
    return Figure(drawn(canvas), 1, caption)


@styled
def answered(
    share: np.ndarray,
    series: Mapping[str, Sequence[Result]],
    *,
    at: float,
    caption: str,
) -> Figure:
    """Accuracy and error in kg over the share of videos that get an estimate, 1600 px wide.

    Args:
      share: [K] in 0..1, increasing.
      series: {"video_accuracy": K results, "mae_kg": K results}; a share without a unit is shown in
        percent.
      at: the share that is answered at the threshold in use.
    """
    share, words = (
        100 * np.asarray(share),
        {"video_accuracy": "videos told right", "mae_kg": "error"},
    )
    canvas = blank(16, 12)
    rows = canvas.subplots(len(series), sharex=True, squeeze=False)[:, 0]
    for k, (axes, (name, results)) in enumerate(zip(rows, series.items())):
        unit = next((result.unit for result in results), "")
        factor = 1 if unit else 100
        column = lambda pick, f=factor, r=results: f * np.array(list(map(pick, r)), np.float64)
        low, high = column(lambda r: r.low), column(lambda r: r.high)  # None becomes NaN: no band
        value = column(lambda r: r.value)
        axes.fill_between(share, low, high, color=COLORS[k], alpha=0.18, linewidth=0, zorder=2)
        axes.plot(
            share, value, color=COLORS[k], marker=MARKERS[k], markersize=11, linewidth=2.4, zorder=4
        )
        axes.axvline(100 * at, color=INK, linestyle="--", linewidth=1.6, zorder=3)
        axes.grid(axis="y", color=FAINT, zorder=0)
        axes.set_ylabel(f"{words.get(name, name)} ({unit or '%'})")
    rows[0].annotate(
        f"threshold in use: {100 * at:.0f} % answered", (100 * at, 1.02),
        xycoords=rows[0].get_xaxis_transform(), ha="right" if at > 0.5 else "left", va="bottom",
        annotation_clip=False,
    )  # fmt: skip
    rows[-1].set_xlabel("videos that get an estimate (%), those most like the training first")
    rows[-1].set_xlim(0, 103)
    return Figure(drawn(canvas), 1, caption)


@styled
def accuracy_answered(share: np.ndarray, results: Sequence[Result], *, caption: str) -> Figure:
    """Accuracy over the share of photographs that are answered, with intervals, 1600 px wide.

    Args:
      share: [K] in 0..1, increasing.
      results: K accuracies, 0..1.
    """
    canvas, axes = _axes((16, 10))
    share = 100 * np.asarray(share, np.float64)
    low, value, high = _percent(results)
    axes.fill_between(share, low, high, color=COLORS[0], alpha=0.18, linewidth=0, zorder=2)
    axes.plot(share, value, color=COLORS[0], marker="o", markersize=11, linewidth=2.4, zorder=4)
    axes.set_xlim(0, 103)
    axes.grid(axis="y", color=FAINT, zorder=0)
    axes.set_xlabel("photographs that get an answer (%), the surest first")
    axes.set_ylabel("of these, told right (%)")
    return Figure(drawn(canvas), 1, caption)


@styled
def reliability(told: np.ndarray, seen: Sequence[Result], *, people: int, caption: str) -> Figure:
    """How often what was told was so, over the probability told, bin by bin, 1600 px wide.

    Args:
      told: mean probability of each bin [K], 0..1.
      seen: share of label 1 in each bin, K results with intervals.
      people: whom all of this rests on.
    """
    canvas, axes = _axes((16, 14))
    told = 100 * np.asarray(told, np.float64)
    low, value, high = _percent(seen)
    axes.plot([0, 100], [0, 100], color=INK, linewidth=1.4, linestyle="--", label="right", zorder=2)
    axes.errorbar(
        told, value, np.nan_to_num([value - low, high - value]), color=COLORS[0], marker="o", markersize=12,
        linewidth=2.4, capsize=6, capthick=1.8, elinewidth=1.8, label="photographs, by bin", zorder=3,
    )  # fmt: skip
    axes.set(xlim=(-2, 102), ylim=(-2, 102), aspect="equal")
    axes.grid(color=FAINT, zorder=0)
    axes.set_xlabel("mean probability told (%)")
    axes.set_ylabel("photographs of label 1 (%)")
    axes.set_title(_count(people, "person", "people"))
    canvas.legend(loc="outside upper center", ncols=2, frameon=False)
    return Figure(drawn(canvas), 1, caption)


@styled
def roc(
    curves: Mapping[str, tuple[np.ndarray, np.ndarray]],
    *,
    point: tuple[float, float] | None,
    caption: str,
) -> Figure:
    """Sensitivity over false positives of at most six methods, one picture 1600 px wide.

    Args:
      curves: {method: (share of label 0 told positive [K], share of label 1 told positive [K])}.
      point: where the threshold in use is, (false, true), both 0..1; None for none.
    """
    if len(curves) > len(COLORS):
        raise ValueError(f"at most {len(COLORS)} methods can be told apart, got {len(curves)}")
    canvas, axes = _axes((16, 14))
    axes.plot([0, 100], [0, 100], color=INK, linewidth=1.4, linestyle=":", label="chance", zorder=1)
    for k, (name, (false, true)) in enumerate(curves.items()):
        axes.plot(
            100 * np.asarray(false), 100 * np.asarray(true), color=COLORS[k], linestyle=DASHES[k],
            linewidth=3 if k == 0 else 2, label=name, zorder=3 - 0.1 * k,
        )  # fmt: skip
    if point is not None:
        axes.plot(
            100 * point[0], 100 * point[1], color=COLORS[0], marker="o", markersize=16, linestyle="none",
            markerfacecolor="white", markeredgewidth=3, label="threshold in use", zorder=4,
        )  # fmt: skip
    axes.set(xlim=(-2, 102), ylim=(-2, 102), aspect="equal")
    axes.grid(color=FAINT, zorder=0)
    axes.set_xlabel("label 0 told positive (%)")
    axes.set_ylabel("label 1 told positive (%)")
    canvas.legend(loc="outside upper center", ncols=2, frameon=False)
    return Figure(drawn(canvas), 1, caption)


@styled
def error_by_people(
    points: Mapping[str, tuple[np.ndarray, Sequence[Result]]],
    curves: Mapping[str, Callable[[np.ndarray], np.ndarray]],
    *,
    target: float,
    needed: Mapping[str, tuple[float, float | None, float | None]],
    caption: str,
) -> Figure:
    """Error over the people learned from, with what was fitted and who is needed, 1600 px wide.

    Args:
      points: {method: (people [K], K errors 0..1 with intervals)}, at most six methods.
      curves: {method: error 0..1 of people [K]}, for those that have a fit.
      target: the error that is asked for, 0..1.
      needed: {method: (people, low, high)}; inf where the target is out of reach, None where unknown.
    """
    if len(points) > len(COLORS):
        raise ValueError(f"at most {len(COLORS)} methods can be told apart, got {len(points)}")
    canvas, axes = _axes((16, 11))
    shown = sorted({int(n) for people, _ in points.values() for n in people}) or [1]
    asked = [x for three in needed.values() for x in three if x is not None and np.isfinite(x)]
    most = min(max([1.01 * shown[-1], *asked]), FARTHEST * shown[-1])
    grid = np.geomspace(min([shown[0], *asked]), most, 300)
    axes.axhline(100 * target, color=INK, linestyle=":", linewidth=1.8, zorder=1)
    axes.annotate(
        f"target {100 * target:.3g} %", (1.01, 100 * target), xycoords=axes.get_yaxis_transform(),
        va="center", annotation_clip=False,
    )  # fmt: skip
    for k, (name, (people, results)) in enumerate(points.items()):
        low, value, high = _percent(results)
        axes.errorbar(
            people, value, np.nan_to_num([value - low, high - value]), color=COLORS[k], linestyle="none",
            marker=MARKERS[k], markersize=13, markerfacecolor=COLORS[k] if k == 0 else "white",
            markeredgewidth=2, capsize=6, capthick=1.8, elinewidth=1.8, label=name, zorder=4 - 0.1 * k,
        )  # fmt: skip
        if name in curves:
            axes.plot(
                grid,
                100 * curves[name](grid),
                color=COLORS[k],
                linestyle=DASHES[k],
                linewidth=2.4,
                zorder=3,
            )
        middle, first, last = needed.get(name, (None, None, None))
        if middle is not None and middle <= most:
            y, kind = 100 * target, {"color": COLORS[k], "linewidth": 4, "alpha": 0.6}
            axes.plot(
                middle, y, marker="|", markersize=34, markeredgewidth=4, color=COLORS[k], zorder=5
            )
            if last is not None and last <= most:
                axes.plot([first, last], [y, y], zorder=2, **kind)
            elif last is not None:  # beyond the picture
                axes.annotate(
                    "", (1.2 * most, y), (first, y), arrowprops={"arrowstyle": "->", **kind}
                )
    axes.set_xscale("log")
    ticks = shown + [round(most)] * (most > 1.3 * shown[-1])
    axes.set_xticks(ticks, [str(n) for n in ticks])
    axes.set_xticks([], minor=True)
    axes.set_ylim(bottom=0)
    axes.grid(axis="y", color=FAINT, zorder=0)
    axes.set_xlabel("people learned from")
    axes.set_ylabel("told wrong (%)")
    if points:
        canvas.legend(loc="outside upper center", ncols=min(3, len(points)), frameon=False)
    return Figure(drawn(canvas), 1, caption)


def _percent(results: Sequence[Result]) -> np.ndarray:
    """low, value, high [3, K] in percent; NaN where there is no interval."""
    ends = [(result.low, result.value, result.high) for result in results]
    return 100 * np.array(ends, np.float64).reshape(-1, 3).T


def _days(day: int | str, table: Mapping[str, Mapping[int | str, Result]]) -> str:
    """What stands under one group of points: the days, and the patients if all methods had as many."""
    people = {row[day].n for row in table.values() if day in row}
    words = "all but one" if day == "D-1" else str(day)
    if len(people) > 1 or None in people:
        return words
    return f"{words}\n{_count(people.pop(), 'patient', 'patients')}"
