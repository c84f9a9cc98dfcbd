"""Judgement of edema: by hand, by counting, against SciPy, and where there is nothing to judge."""

import csv
import functools
import math

import matplotlib
import numpy as np
import pytest
import scipy.stats

from jaxface.metrics import agreement, edema, intervals, plots
from jaxface.metrics.edema import Frames
from jaxface.system import Result


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch):
    """Intervals have tests of their own; here it matters what is resampled, not how often."""
    few = functools.partial(intervals.bootstrap, resamples=200)
    for module in (edema, agreement):
        monkeypatch.setattr(module, "bootstrap", few)


def frames_of(rows):
    """Rows (subject, day, session, weight, [logits], [predicted]) -> Frames."""
    table = [
        (subject, day, session, f"{subject}/{day}/{session}", kg, logit, predicted)
        for subject, day, session, kg, logits, weights in rows
        for logit, predicted in zip(logits, weights)
    ]
    return Frames(*map(np.array, zip(*table)))


BY_HAND = frames_of(
    [
        ("a", "d1", "pre", 62.0, [3, -1, -1], [62.5, 62.5, 90.0]),
        ("a", "d1", "post", 60.0, [-1, -1, 1], [60.0, 60.0, 60.0]),
        ("a", "d2", "pre", 63.0, [-2, -2, 1], [61.0, 61.0, 61.0]),
        ("a", "d2", "post", 61.0, [-1, -1, -1], [61.0, 61.0, 61.0]),
        ("b", "d1", "pre", 80.0, [0, 0, 0], [81.0, 81.0, 81.0]),
        ("b", "d1", "post", 79.0, [-2, -2, -2], [79.5, 79.5, 79.5]),
    ]
)


@pytest.fixture(scope="module")
def many():
    """20 patients of 1 to 4 days, 5 frames a video."""
    rng, rows = np.random.default_rng(0), []
    for p in range(20):
        dry, shift = rng.uniform(45, 90), rng.normal(0, 0.5)
        for day in range(1 + p % 4):
            for session, y in (("pre", 1), ("post", -1)):
                kg = dry + 2.0 * (y > 0) + rng.normal(0, 0.3)
                logits = 0.8 * y + shift + rng.normal(0, 1) + rng.normal(0, 0.5, 5)
                made = kg + rng.normal(0, 0.5) + rng.normal(0, 0.2, 5)
                rows.append((f"p{p:02}", f"d{day}", session, kg, logits, made))
    return frames_of(rows)


def test_frames_of_a_video_come_together():
    videos = edema.by_video(BY_HAND)
    assert videos.video.tolist() == [
        "a/d1/post", "a/d1/pre", "a/d2/post", "a/d2/pre", "b/d1/post", "b/d1/pre"
    ]  # fmt: skip
    np.testing.assert_allclose(videos.logit, [-1 / 3, 1 / 3, -1, -1, -2, 0])
    # The median passes over the frame that says 90 kg.
    np.testing.assert_array_equal(videos.predicted_kg, [60, 62.5, 61, 61, 79.5, 81])
    assert videos.frames.tolist() == [3] * 6 and videos.session.tolist() == ["post", "pre"] * 3
    order = np.random.default_rng(1).permutation(len(BY_HAND.video))
    mixed = edema.by_video(Frames(*(column[order] for column in BY_HAND)))
    for one, other in zip(videos, mixed):
        assert np.asarray(one).dtype.kind == np.asarray(other).dtype.kind
        if one.dtype.kind == "U":
            assert one.tolist() == other.tolist()
        else:
            np.testing.assert_allclose(one, other, rtol=1e-14)


def test_scores_by_hand():
    found = edema.scores(BY_HAND, "_x")
    errors = np.array([0, 0.5, 0, 2, 0.5, 1])
    wanted = {
        # frames: a 1 + 2 + 1 + 3 of 12 right, b 3 and three halves of 6
        "image_accuracy": (7 + 4.5) / 18,
        "image_accuracy_by_patient": (7 / 12 + 4.5 / 6) / 2,
        "video_accuracy": (1 + 1 + 0 + 1 + 0.5 + 1) / 6,
        "video_accuracy_by_patient": (3 / 4 + 1.5 / 2) / 2,
        # before: 1/3, -1, 0; after: -1/3, -1, -2
        "video_auc": (3 + 1.5 + 3) / 9,
        "video_auc_by_patient": ((2 + 0.5) / 4 + 1) / 2,
        "mae_kg": errors.mean(),
        "mae_kg_by_patient": (2.5 / 4 + 1.5 / 2) / 2,
        "rmse_kg": math.sqrt(np.square(errors).mean()),
        # changes: 2 told as 2.5, 2 told as 0, 1 told as 1.5
        "mae_kg_change": (0.5 + 2 + 0.5) / 3,
    }
    for name, value in wanted.items():
        result = found[f"{name}_x"]
        assert result.value == pytest.approx(value, abs=1e-12), name
        assert result.n == 2 and result.unit == ("kg" if "kg" in name else "")
        assert "not seen" in result.protocol and "\n" not in result.protocol
    assert found.keys() == {f"{name}_x" for name in [*wanted, "r_kg", "r_kg_within"]}
    assert found["r_kg_x"].unit == found["r_kg_within_x"].unit == ""


def test_correlation_between_patients_is_told_from_that_within():
    rows = [
        (name, day, session, base + kg, [1], [base + made])
        for name, base in (("a", 50.0), ("b", 80.0))
        for day, session, kg, made in (
            ("1", "pre", 2, 1), ("1", "post", 1, 2), ("2", "pre", 3, 0), ("2", "post", 0, 3)
        )
    ]  # fmt: skip
    found = edema.scores(frames_of(rows))
    assert found["r_kg"].value > 0.98 and found["r_kg_within"].value == pytest.approx(-1)
    assert "raise" in found["r_kg"].protocol and "own mean" in found["r_kg_within"].protocol


def test_scores_are_those_of_slow_references(many):
    found, videos = edema.scores(many), edema.by_video(many)
    error = videos.predicted_kg - videos.weight_kg
    own = {name: videos.subject == name for name in np.unique(videos.subject)}
    centered = lambda kg: np.concatenate([kg[rows] - kg[rows].mean() for rows in own.values()])
    r = lambda x, y: scipy.stats.pearsonr(x, y)[0]
    logits = {s: videos.logit[videos.session == s] for s in ("pre", "post")}
    statistic = scipy.stats.mannwhitneyu(logits["pre"], logits["post"]).statistic
    wanted = {
        "image_accuracy": np.mean((many.logit > 0) == (many.session == "pre")),
        "video_accuracy": np.mean((videos.logit > 0) == (videos.session == "pre")),
        "video_auc": statistic / (len(logits["pre"]) * len(logits["post"])),
        "mae_kg": np.abs(error).mean(),
        "mae_kg_by_patient": np.mean([np.abs(error[rows]).mean() for rows in own.values()]),
        "rmse_kg": math.sqrt(np.square(error).mean()),
        "r_kg": r(videos.predicted_kg, videos.weight_kg),
        "r_kg_within": r(centered(videos.predicted_kg), centered(videos.weight_kg)),
    }
    for name, value in wanted.items():
        result = found[name]
        assert result.value == pytest.approx(value, abs=1e-10), name
        assert result.n == 20 and result.low < result.value < result.high
    assert found == edema.scores(many)  # bit for bit, intervals too


def test_interval_resamples_patients_not_videos(many):
    # Ten times the same frames say nothing new of these patients.
    times = Frames(*(np.tile(column, 10) for column in many))
    one, ten = edema.scores(many), edema.scores(times)
    for name in ("image_accuracy", "mae_kg", "video_auc"):
        np.testing.assert_allclose(one[name][:3], ten[name][:3], atol=1e-12)


def test_auc_counts_pairs():
    rng = np.random.default_rng(2)
    for _ in range(20):
        score = rng.integers(0, 6, 15).astype(float)  # many ties
        positive = rng.random(15) < 0.4
        positive[:2] = True, False
        pairs = [(a > b) + 0.5 * (a == b) for a in score[positive] for b in score[~positive]]
        assert edema.auc(score, positive) == pytest.approx(np.mean(pairs), abs=1e-14)
        assert edema.auc(-score, positive) == pytest.approx(1 - np.mean(pairs), abs=1e-14)
    assert edema.auc([1, 1], [True, False]) == 0.5
    assert math.isnan(edema.auc([1, 2], [True, True])) and math.isnan(edema.auc([], []))
    assert math.isnan(edema.auc([1, np.nan], [True, False]))


def test_one_class_and_one_patient():
    only = frames_of(
        [("a", "1", "pre", 60.0, [1, 2], [61, 61]), ("b", "1", "pre", 70.0, [-1, 1], [70, 70])]
    )
    found = edema.scores(only)
    for name in ("video_auc", "video_auc_by_patient", "mae_kg_change"):
        assert math.isnan(found[name].value) and found[name].low is None
    assert found["video_auc_by_patient"].n == found["mae_kg_change"].n == 0
    assert found["video_accuracy"].value == 0.75 and found["mae_kg"].value == 0.5
    alone = edema.scores(Frames(*(column[BY_HAND.subject == "a"] for column in BY_HAND)))
    assert alone["video_accuracy"][:4] == (0.75, None, None, 1)
    assert alone["video_auc"].value == alone["video_auc_by_patient"].value == 2.5 / 4
    # A patient with one class has no AUC, and is not counted there.
    both = edema.scores(Frames(*(np.concatenate(pair) for pair in zip(
        BY_HAND, frames_of([("c", "1", "pre", 60.0, [1, 2], [61, 61])])))))  # fmt: skip
    assert both["video_auc_by_patient"].n == 2 and both["video_auc"].n == 3


def test_what_a_method_does_not_answer_is_left_out():
    silent = np.full(len(BY_HAND.video), np.nan)
    weight_only = edema.scores(BY_HAND._replace(logit=silent))
    class_only = edema.scores(BY_HAND._replace(predicted_kg=silent))
    assert "mae_kg" in weight_only and not [n for n in weight_only if "video" in n or "image" in n]
    assert "video_auc" in class_only and not [n for n in class_only if "kg" in n]
    assert weight_only | class_only == edema.scores(BY_HAND)
    assert edema.gain(BY_HAND, BY_HAND._replace(logit=silent), "x").keys() == {"mae_kg_gain_x"}
    row = edema.by_patient(BY_HAND._replace(logit=silent))[0]
    assert math.isnan(row["auc"]) and math.isnan(row["image_accuracy"]) and row["mae_kg"] == 0.625


def test_gain_is_paired(many):
    rng = np.random.default_rng(3)
    noise = dict(zip(np.unique(many.video), rng.normal(0, 0.15, len(np.unique(many.video)))))
    shift = np.array([noise[video] for video in many.video])
    old = many._replace(logit=many.logit + 4 * shift, predicted_kg=many.predicted_kg + shift)
    order = rng.permutation(len(many.video))
    found = edema.gain(many, Frames(*(column[order] for column in old)), "old")
    new_scores, old_scores = edema.scores(many), edema.scores(old)
    for name in ("video_accuracy", "mae_kg"):
        gained, single = found[f"{name}_gain_old"], new_scores[name]
        wanted = single.value - old_scores[name].value
        assert gained.value == pytest.approx(wanted, abs=1e-12) and gained.n == 20
        assert gained.high - gained.low < single.high - single.low
        assert "minus old" in gained.protocol and "paired" in gained.protocol
    same = edema.gain(many, many, "itself")
    assert same["mae_kg_gain_itself"][:4] == (0.0, None, None, 20)


def test_gain_wants_the_same_videos():
    less = Frames(*(column[3:] for column in BY_HAND))
    with pytest.raises(ValueError, match=r"1 video\(s\) are in one method only.*a/d1/pre"):
        edema.gain(BY_HAND, less, "x")
    heavier = BY_HAND._replace(weight_kg=BY_HAND.weight_kg + 1)
    with pytest.raises(ValueError, match="another weight_kg"):
        edema.gain(BY_HAND, heavier, "x")


def test_table_of_patients(tmp_path):
    rows = edema.by_patient(BY_HAND)
    assert [row["subject"] for row in rows] == ["a", "b"]
    a, b = rows
    assert (a["days"], a["videos"], a["images"]) == (2, 4, 12)
    assert a["image_accuracy"] == pytest.approx(7 / 12) and a["video_accuracy"] == 0.75
    assert a["auc"] == 2.5 / 4 and a["mae_kg"] == 2.5 / 4 and a["mae_kg_change"] == 1.25
    assert a["rmse_kg"] == pytest.approx(math.sqrt(4.25 / 4))
    assert a["r_kg"] == pytest.approx(np.corrcoef([60, 62.5, 61, 61], [60, 62, 61, 63])[0, 1])
    assert b["r_kg"] == pytest.approx(1) and b["auc"] == 1
    edema.write_table(tmp_path, [a, b | {"subject": "é", "auc": math.nan}])
    with open(tmp_path / "patients.csv", encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    assert table[0]["mae_kg"] == "0.625" and table[1]["subject"] == "é" and table[1]["auc"] == ""


def test_changes_need_both_videos_of_a_day():
    rows = [("a", "1", "pre", 62.0, [1], [63]), ("a", "2", "post", 60.0, [1], [60]),
            ("b", "2", "pre", 62.5, [1], [61]), ("b", "2", "post", 61.0, [1], [60.5])]  # fmt: skip
    whose, measured, predicted = edema.changes(edema.by_video(frames_of(rows)))
    assert (whose.tolist(), measured.tolist(), predicted.tolist()) == (["b"], [1.5], [0.5])


@pytest.mark.parametrize(
    "change, match",
    [
        ({"session": np.full(18, "PRE")}, "'PRE' is neither pre nor post"),
        ({"logit": np.arange(17.0)}, "one length"),
        ({"logit": np.array([np.nan, *np.ones(17)])}, "logit of video a/d1/pre is not finite"),
        ({"predicted_kg": np.full(18, np.inf)}, "predicted_kg of video"),
        ({"weight_kg": np.full(18, np.nan)}, "weight_kg of video"),
        ({"video": np.full(18, "one")}, "video one has more than one subject"),
        ({"weight_kg": 60 + np.arange(18.0)}, "a/d1/pre has more than one weight_kg"),
    ],
)
def test_columns_that_contradict_each_other(change, match):
    with pytest.raises(ValueError, match=match):
        edema.scores(BY_HAND._replace(**change))


def test_no_frames():
    with pytest.raises(ValueError, match="no frames"):
        edema.scores(Frames(*([np.array([])] * 7)))


# ---- pictures ----


@pytest.fixture
def texts(monkeypatch):
    """Words of the next picture, and whether those in the legend and under the axes lie inside it."""
    seen, draw = {}, plots.drawn

    def spy(canvas):
        image = draw(canvas)
        renderer = canvas.canvas.get_renderer()
        parts = [t for t in canvas.findobj(matplotlib.text.Text) if t.get_text()]
        boxes = [t.get_window_extent(renderer) for t in parts]
        seen["words"] = [t.get_text() for t in parts]
        seen["inside"] = all(
            b.x0 >= 0 and b.y0 >= 0 and b.x1 <= image.shape[2] and b.y1 <= image.shape[1]
            for b, t in zip(boxes, parts)
            if not t.get_text()[0].isdigit()
        )
        seen["axes"] = canvas.axes
        return image

    monkeypatch.setattr(plots, "drawn", spy)
    return seen


DAYS = ["2026-03-02", "2026-03-02", "2026-03-04", "2026-03-04"]
SESSIONS = ["pre", "post", "pre", "post"]
KG = np.array([62.0, 60.0, np.nan, 60.5])
MADE = np.array([61.5, 60.25, 62.25, np.nan])


def test_day_chart(texts):
    figure = plots.day_chart(DAYS, KG, MADE, MADE - 1, MADE + 1, SESSIONS, "one patient")
    assert figure.images.dtype == np.uint8 and figure.images.shape == (1, 1000, 1600, 3)
    assert (figure.columns, figure.caption, figure.photographs) == (1, "one patient", False)
    for words in ("measured before dialysis", "estimated after dialysis", "withheld", *DAYS[::2]):
        assert words in texts["words"]
    assert texts["words"].count("withheld") == 1 and texts["inside"]
    points = [c for c in texts["axes"][0].collections if hasattr(c, "get_sizes")]
    heights = [np.ma.compressed(c.get_offsets()[:, 1]).tolist() for c in points]
    finite = [[y for y in column if np.isfinite(y)] for column in heights]
    assert finite == [[62.0], [61.5, 62.25], [60.0, 60.5], [60.25]]
    # Told apart without color: by marker, and measured from estimated by filling.
    shapes = [len(c.get_paths()[0].vertices) for c in points]
    assert shapes[0] == shapes[1] != shapes[2] == shapes[3]
    fillings = [c.get_facecolor()[0, :3].tolist() == [1, 1, 1] for c in points]
    assert fillings == [False, True, False, True]
    again = plots.day_chart(DAYS, KG, MADE, MADE - 1, MADE + 1, SESSIONS, "")
    assert np.array_equal(figure.images, again.images)


def test_day_chart_without_ends_or_days(texts):
    endless = np.full(4, np.inf)
    figure = plots.day_chart(DAYS, KG, MADE, -endless, endless, SESSIONS, "")
    bottom, top = texts["axes"][0].get_ylim()
    assert 59 < bottom < 60 and 62.25 < top < 63  # what has no end does not decide the axis
    narrow = plots.day_chart(DAYS, KG, MADE, MADE, MADE, SESSIONS, "")
    assert (figure.images != narrow.images).any()
    empty = plots.day_chart([], [], [], [], [], [], "")
    assert empty.images.shape == figure.images.shape
    many = [f"2026-03-{d:02}" for d in range(1, 31)]
    plots.day_chart(many, *[np.full(30, 60.0)] * 4, ["pre"] * 30, "")
    assert len(set(many) & set(texts["words"])) <= plots.MOST_DAYS
    with pytest.raises(ValueError, match="pre or post"):
        plots.day_chart(["1"], [60], [60], [59], [61], ["before"], "")


def test_accuracy_by_days(texts):
    share = lambda value, n=39: Result(value, value - 0.1, value + 0.05, n)
    table = {
        "pre-trained": {1: share(0.7), 2: share(0.8), "D-1": share(0.85)},
        "scratch": {1: share(0.6), "D-1": share(0.7, 38)},
        "majority": {1: Result(0.5, n=39)},
    }
    figure = plots.accuracy_by_days(table, "curves")
    assert figure.images.shape == (1, 1000, 1600, 3) and figure.caption == "curves"
    for words in (*table, "chance", "video accuracy (%)", "1\n39 patients", "all but one"):
        assert words in texts["words"]
    assert texts["inside"]
    curves = {c.get_label(): c for c in texts["axes"][0].containers}
    np.testing.assert_allclose(curves["pre-trained"][0].get_ydata(), [70, 80, 85])
    np.testing.assert_allclose(curves["scratch"][0].get_xdata(), [0, 2], atol=0.1)
    reach = curves["pre-trained"][2][0].get_segments()[0][:, 1]
    np.testing.assert_allclose(reach, [60, 75])
    lines = [(c[0].get_marker(), c[0].get_linestyle()) for c in curves.values()]
    assert len(set(lines)) == 3
    kilograms = {"ours": {1: Result(0.6, 0.5, 0.7, 8, "kg")}}
    plots.accuracy_by_days(kilograms, "", quantity="mean absolute error", chance=None)
    assert "mean absolute error (kg)" in texts["words"] and "chance" not in texts["words"]
    assert "1\n8 patients" in texts["words"]
    assert plots.accuracy_by_days({}, "").images.shape == figure.images.shape
    with pytest.raises(ValueError, match="at most 6"):
        plots.accuracy_by_days({str(k): {} for k in range(7)}, "")
    with pytest.raises(ValueError, match="several units"):
        plots.accuracy_by_days(table | kilograms, "")
