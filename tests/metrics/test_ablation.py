"""The table of rivals: every number is told, and what lies beyond the panel is not drawn inside it."""

import numpy as np
import pytest

from jaxface.metrics import ablation
from jaxface.system import Result

ROWS = {
    "ours": {"share": Result(0.9, 0.8, 0.95, 14), "kg": Result(0.5, 0.4, 0.6, 14, "kg")},
    "constant": {"share": Result(0.5)},
    "wild": {"kg": Result(6.0, 3.5, 9.25, 14, "kg")},
}


@pytest.fixture
def drawn(monkeypatch):
    """(figure, the canvas it was drawn on)"""
    seen, draw = {}, ablation.drawn
    monkeypatch.setattr(
        ablation, "drawn", lambda canvas: seen.update(canvas=canvas) or draw(canvas)
    )
    figure = ablation.table(
        ROWS,
        {"share": "told right", "kg": "error"},
        caption="words",
        published={"share": 0.85, "kg": 0.5},
        most={"share": 1.0, "kg": 1.6},
    )
    return figure, seen["canvas"]


def test_every_number_is_told(drawn):
    figure, canvas = drawn
    assert figure.images.dtype == np.uint8 and figure.images.shape[2] == 1600
    share, kg = canvas.axes
    words = lambda axes: {text.get_text() for text in axes.texts} - {""}
    assert words(share) == {"90.0  [80.0, 95.0]", "50.0", "published 85"}
    assert words(kg) == {"0.50  [0.40, 0.60]", "6.00  [3.50, 9.25]", "published 0.5"}
    assert [label.get_text() for label in share.get_yticklabels()] == list(ROWS)
    assert share.get_title("left") == "told right (%)" and kg.get_title("left") == "error (kg)"


def test_what_lies_beyond_is_no_point_but_an_arrow(drawn):
    _, canvas = drawn
    _, kg = canvas.axes
    points = [x for line in kg.lines for x in line.get_xdata() if line.get_linestyle() != "--"]
    assert max(points) == pytest.approx(0.6)
    assert sum(text.arrow_patch is not None for text in kg.texts) == 1
    assert all(tick <= 1.6 for tick in kg.get_xticks())
