import matplotlib
import numpy as np
import pytest

from jaxface.metrics import plots

RNG = np.random.default_rng(0)
REAL = RNG.gamma(2, 0.02, 24)
MADE = REAL + RNG.normal(0.003, 0.005, 24)
NAME = "translated photograph, phone (v1)"  # as long as names get
PEOPLE = np.repeat(np.arange(12), 2)


def inked(image):
    return (image < 250).any(-1)


@pytest.fixture
def texts(monkeypatch):
    """Words and numbers of the next picture, and whether two of them overlap."""
    seen = {}
    draw = plots.drawn

    def spy(canvas):
        image = draw(canvas)
        renderer = canvas.canvas.get_renderer()
        parts = [
            t for t in canvas.findobj(matplotlib.text.Text) if t.get_text() and t.get_visible()
        ]
        boxes = [t.get_window_extent(renderer) for t in parts]
        seen["words"] = [t.get_text() for t in parts]
        # Ticks beyond the axes have a place as well, but are not drawn.
        names = [
            box
            for box, word in zip(boxes, seen["words"])
            if not word.lstrip("\N{MINUS SIGN}")[0].isdigit() or "%" in word or "people" in word
        ]
        seen["inside"] = all(
            b.x0 >= 0 and b.y0 >= 0 and b.x1 <= image.shape[2] and b.y1 <= image.shape[1]
            for b in names
        )
        seen["apart"] = not any(a.overlaps(b) for i, a in enumerate(names) for b in names[:i])
        seen["size"] = min(t.get_fontsize() for t in parts)
        return image

    monkeypatch.setattr(plots, "drawn", spy)
    return seen


def test_bland_altman_shows_bias_limits_and_people(texts):
    figure = plots.bland_altman(MADE, REAL, PEOPLE, caption="how far off")
    image = figure.images
    assert image.dtype == np.uint8 and image.shape == (1, 1000, 1600, 3)
    assert (figure.columns, figure.caption) == (1, "how far off")
    bias, spread = (MADE - REAL).mean(), 1.96 * (MADE - REAL).std(ddof=1)
    number = lambda x: f"{x:+.4f}".replace("-", "\N{MINUS SIGN}")
    for words in (
        f"bias {number(bias)}", f"95 % limit {number(bias + spread)}",
        f"95 % limit {number(bias - spread)}", "12 people, 24 pairs",
        "translated minus real UV spot ratio",
    ):  # fmt: skip
        assert words in texts["words"]
    assert texts["inside"] and texts["apart"] and texts["size"] >= 18
    assert np.array_equal(image, plots.bland_altman(MADE, REAL, PEOPLE, caption="").images)


def test_labels_of_narrow_limits_stay_apart(texts):
    plots.bland_altman(REAL + 0.5 + 1e-5 * MADE, REAL, PEOPLE, caption="")
    assert len({w for w in texts["words"] if w.startswith(("bias", "95 %"))}) == 3
    assert texts["apart"] and texts["inside"]


def test_series_differ_without_color(texts):
    series = {f"{k}: {NAME}": REAL * (1 - 0.1 * k) for k in range(6)}
    image = plots.against(REAL, series, caption="", subjects=PEOPLE).images
    assert image.shape == (1, 1200, 1600, 3) and {*series, "equal", "12 people"} <= {
        *texts["words"]
    }
    assert texts["inside"] and texts["apart"]
    alone = [
        inked(plots.against(REAL, {"one": REAL, **{f"{i}": [np.nan] * 24 for i in range(k)}, "x": REAL},
                            caption="").images[0])
        for k in range(2)
    ]  # fmt: skip
    assert (alone[0] != alone[1]).any()  # same values, next marker
    with pytest.raises(ValueError, match="at most 6"):
        plots.against(REAL, {**series, "more": REAL}, caption="")


def test_nothing_or_one_to_show():
    empty = plots.bland_altman([np.nan], [1.0], ["a"], caption="").images
    one = plots.bland_altman([1.0], [1.0], ["a"], caption="").images
    assert empty.shape == one.shape and (empty != one).any()
    assert plots.against([], {}, caption="").images.shape == (1, 1200, 1600, 3)
    assert plots.against([0.0], {"flat": [0.0]}, caption="").images.shape == (1, 1200, 1600, 3)
