"""What each part of a method is worth: all rivals of a run side by side, with their intervals."""

from collections.abc import Mapping

from jaxface.metrics.plots import COLORS, FAINT, INK, blank, drawn, styled
from jaxface.system import Figure, Result

NUMBERS = 0.42  # of a panel, right of the points, where the numbers stand


@styled
def table(
    rows: Mapping[str, Mapping[str, Result]],
    columns: Mapping[str, str],
    *,
    caption: str,
    published: Mapping[str, float],
    most: Mapping[str, float],
) -> Figure:
    """One row a method, one panel a measure: point, 95 % interval and the number itself. 1600 px wide.

    Args:
      rows: {method: {measure: Result}}; the first method is the one that the run is about. A measure
        that a method does not answer is left out.
      columns: {measure: its words}; a share without a unit is shown in percent.
      published: {measure: value}, a dashed line.
      most: {measure: value}; what lies beyond is told by its number and an arrow.
    """
    from matplotlib.ticker import MaxNLocator

    canvas = blank(16, 2.8 + 0.6 * len(rows))
    panels = canvas.subplots(1, len(columns), sharey=True, squeeze=False)[0]
    for axes, (measure, words) in zip(panels, columns.items()):
        found = {at: row[measure] for at, row in enumerate(rows.values()) if measure in row}
        unit = next((result.unit for result in found.values()), "")
        factor, digits = (1, 2) if unit else (100, 1)
        right = factor * most[measure]
        ends = {
            at: [factor * (r.value if end is None else end) for end in (r.low, r.value, r.high)]
            for at, r in found.items()
        }
        least = min([0.95 * factor * published[measure], *(low for low, _, _ in ends.values())])
        for at, (low, value, high) in ends.items():
            first = at == 0
            color = COLORS[0] if first else INK
            if value > right:
                arrow = {"arrowstyle": "->", "color": color, "linewidth": 2}
                axes.annotate(
                    "", (right, at), (right - 0.12 * (right - least), at), arrowprops=arrow
                )
            else:
                axes.plot([low, min(high, right)], [at, at], color=color, linewidth=2.6, zorder=3)
                axes.plot(
                    value, at, "o" if first else "s", color=color, markersize=12, markeredgewidth=2,
                    markerfacecolor=color if first else "white", zorder=4,
                )  # fmt: skip
            told = f"{value:.{digits}f}"
            if found[at].low is not None:
                told += f"  [{low:.{digits}f}, {high:.{digits}f}]"
            axes.annotate(
                told, (1.0, at), xycoords=axes.get_yaxis_transform(), ha="right", va="center",
                size=16, color=color, annotation_clip=False,
            )  # fmt: skip
        line = factor * published[measure]
        axes.axvline(line, color=COLORS[1], linestyle="--", linewidth=2, zorder=2)
        axes.annotate(
            f"published {line:g}", (line, 0.0), xycoords=axes.get_xaxis_transform(), ha="center",
            va="bottom", size=14, color=COLORS[1], bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
        )  # fmt: skip
        edge = 0.04 * (right - least)
        axes.set_xlim(least - edge, least + (right - least + edge) / (1 - NUMBERS))
        # Ticks only where points are: what stands right of them are words.
        axes.set_xticks(
            [t for t in MaxNLocator(3).tick_values(least, right) if least <= t <= right]
        )
        axes.set_title(f"{words} ({unit or '%'})", size=20, loc="left")
        axes.grid(axis="x", color=FAINT, zorder=0)
        axes.tick_params(axis="y", length=0)
    panels[0].set_yticks(range(len(rows)), list(rows))
    panels[0].set_ylim(len(rows), -0.5)
    return Figure(drawn(canvas), 1, caption)
