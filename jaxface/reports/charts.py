"""Curves of a run, drawn by matplotlib into SVG that depends on the numbers alone."""

import base64
import io
from collections.abc import Mapping

import numpy as np

COLORS = ("#0f6e84", "#c2571a", "#6b4fa0", "#4d7c0f", "#b0275b", "#7a6a4f")
INK, FAINT = "#33404d", "#dde3e8"
POINTS = 400  # drawn of one curve; more only make the file large


def _thinned(steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(step, low, high) of at most POINTS stretches: peaks stay visible."""
    parts = min(POINTS, len(steps))
    edges = np.linspace(0, len(steps), parts + 1).astype(int)[:-1]
    return (
        steps[edges],
        np.minimum.reduceat(values, edges),
        np.maximum.reduceat(values, edges),
    )


def _smooth(values: np.ndarray) -> np.ndarray:
    """Running mean over a 25th of the run, shorter at its ends."""
    width = max(1, len(values) // 25)
    total = np.concatenate([[0.0], np.cumsum(values)])
    center = np.arange(len(values))
    low = np.maximum(center - width, 0)
    high = np.minimum(center + width + 1, len(values))
    return (total[high] - total[low]) / (high - low)


def wants_log(curves: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> bool:
    """A logarithmic axis where all is above zero and spans more than two decades."""
    values = np.concatenate([v for _, v in curves.values()])
    return bool((values > 0).all() and values.max() > 100 * values.min())


def curves(name: str, series: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> str:
    """Draws named (steps, finite values) into one chart. -> SVG text"""
    # Here, since a run needs it at its end only.
    import matplotlib
    from matplotlib.figure import Figure

    style = {
        "svg.hashsalt": "jaxface",
        "font.size": 9,
        "axes.edgecolor": FAINT,
        "axes.labelcolor": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "text.color": INK,
    }
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(5.6, 2.9), layout="constrained")
        axes = figure.subplots()
        for index, (label, (steps, values)) in enumerate(series.items()):
            color = COLORS[index % len(COLORS)]
            dash = "-" if index < len(COLORS) else "--"
            if len(values) > 60:
                at, low, high = _thinned(steps, values)
                axes.fill_between(at, low, high, color=color, alpha=0.16, linewidth=0)
                if len(values) <= POINTS:
                    axes.plot(steps, values, color=color, alpha=0.35, linewidth=0.6)
                chosen = np.unique(np.linspace(0, len(steps) - 1, POINTS).astype(int))
                axes.plot(
                    steps[chosen],
                    _smooth(values)[chosen],
                    dash,
                    color=color,
                    linewidth=1.7,
                    label=label,
                )
            else:
                axes.plot(
                    steps,
                    values,
                    dash,
                    color=color,
                    linewidth=1.5,
                    marker="o" if len(values) <= 25 else None,
                    markersize=3.5,
                    label=label,
                )
        if wants_log(series):
            axes.set_yscale("log")
        else:
            axes.margins(y=0.12)
        axes.set_xlabel("training step")
        axes.grid(color=FAINT, linewidth=0.7)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.xaxis.set_major_locator(
            matplotlib.ticker.MaxNLocator(6, integer=True, steps=[1, 2, 5, 10])
        )
        figure.legend(
            loc="outside upper left", ncols=4, frameon=False, handlelength=1.4, columnspacing=1.4
        )
        buffer = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", metadata=nothing)
    return buffer.getvalue()


def uri(svg: str) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()
