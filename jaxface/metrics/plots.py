"""Pictures of agreement between two measurements: Bland-Altman, and one against the other.

Series differ in marker and line as well as in color. The pictures depend on the numbers alone.
"""

from collections.abc import Mapping

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Canvas

from jaxface.metrics.agreement import limits
from jaxface.system import Figure

COLORS = ("#0f6e84", "#c2571a", "#6b4fa0", "#4d7c0f", "#b0275b", "#7a6a4f")
MARKERS = ("o", "^", "s", "D", "v", "P")
INK, FAINT = "#33404d", "#dde3e8"
STYLE = {
    "font.family": "DejaVu Sans", "font.size": 20, "text.color": INK, "axes.labelcolor": INK,
    "axes.edgecolor": INK, "xtick.color": INK, "ytick.color": INK, "axes.unicode_minus": True,
    "axes.spines.top": False, "axes.spines.right": False,
}  # fmt: skip


@matplotlib.rc_context(STYLE)
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
    return Figure(_drawn(canvas), 1, caption)


@matplotlib.rc_context(STYLE)
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
    shown, drawn = [0.0], np.zeros(len(real), bool)
    for k, (name, values) in enumerate(series.items()):
        values = np.asarray(values, np.float64)
        finite = np.isfinite(values) & np.isfinite(real)
        drawn |= finite
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
    axes.set_title(_count(len(np.unique(people[drawn])), "person", "people"))
    canvas.legend(loc="outside upper center", ncols=2, frameon=False)
    return Figure(_drawn(canvas), 1, caption)


def _axes(inches: tuple[float, float]):
    canvas = Canvas(figsize=inches, dpi=100, layout="constrained")
    FigureCanvasAgg(canvas)
    return canvas, canvas.add_subplot()


def _drawn(canvas: Canvas) -> np.ndarray:
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
