"""Fluid, weight and videos of the phantom's dialysis patients."""

import dataclasses

import numpy as np
import pytest

from jaxface.phantom import fluid, shape
from jaxface.phantom import head as heads
from jaxface.phantom.people import View
from jaxface.phantom.render import look, render

SEED = 123_000_000  # no phantom's own
MM = 0.01  # mesh units


@pytest.fixture(scope="module")
def patient():
    return fluid.draw_patient(SEED)


@pytest.fixture(scope="module")
def crowd():
    """Fluid and weight [150, 6, 2] of patients, days, (before, after), and their dry weights."""
    patients = [fluid.draw_patient(SEED + n) for n in range(150)]
    days = [fluid.draw_days(one, 6) for one in patients]
    read = lambda name: np.array([[[getattr(s, name) for s in d] for d in p] for p in days])
    dry = np.array([one.dry_kg for one in patients])
    return read("fluid_kg"), read("weight_kg"), dry[:, None, None]


def moved(patient, fluid_kg, gains=None):
    """Displacement [V, 3] by fluid."""
    if gains:
        patient = dataclasses.replace(patient, gains=gains)
    return shape.build(fluid.swell(patient, fluid_kg)) - shape.build(patient.subject)


def test_same_seed_same_patient_days_and_bytes(patient):
    assert fluid.draw_patient(SEED) == patient != fluid.draw_patient(SEED + 1)
    days = fluid.draw_days(patient, 3)
    assert fluid.draw_days(patient, 5)[:3] == days  # further days move no earlier one
    assert len({session.view for day in days for session in day}) == 6
    one, two = ([f.tobytes() for _, f in fluid.film(days[1][0], 2, 32)] for _ in range(2))
    assert one == two and len(set(one)) == 2
    other = [f.tobytes() for _, f in fluid.film(days[2][0], 2, 32)]
    assert not set(one) & set(other)


def test_patients_are_old_and_shaved():
    patients = [fluid.draw_patient(SEED + n) for n in range(40)]
    for one in patients:
        assert 0.65 <= one.subject.age <= 1 and one.subject.beard == 0
        assert 40 <= one.dry_kg <= 90 and 1.4 <= one.before_kg <= 3.2
        assert np.mean(one.gains) == pytest.approx(1)
    # Some swell at the lids, some at the jaw.
    most = np.argmax([one.gains for one in patients], axis=1)
    assert set(most) == {0, 1, 2}


def test_skin_moves_in_proportion_to_fluid(patient):
    assert not moved(patient, 0.0).any()
    one, three = moved(patient, 1.0), moved(patient, 3.0)
    np.testing.assert_allclose(three, 3 * one, atol=0.01 * MM)
    reach = np.linalg.norm(three, axis=1)
    assert 5 * MM < reach.max() < 25 * MM


@pytest.mark.parametrize(
    "region, place, far",
    [
        ("cheeks", (0.5, 6.8, 1.2), (0.3, 7.3, 1.4)),
        ("lids", (0.36, 7.2, 1.38), (0.4, 6.5, 1.0)),
        ("jaw", (0.45, 6.45, 0.9), (0.3, 7.3, 1.4)),
    ],
)
def test_each_region_swells_where_it_lies(patient, region, place, far):
    gains = tuple(3.0 * (name == region) for name in fluid.REGIONS)
    change = moved(patient, 2.5, gains)
    rest = heads.load().rest
    for side in (1, -1):
        near = np.linalg.norm(rest - np.multiply(place, [side, 1, 1]), axis=1) < 0.12
        away = np.linalg.norm(rest - np.multiply(far, [side, 1, 1]), axis=1) < 0.12
        reach = np.linalg.norm(change, axis=1)
        assert reach[near].max() > 1 * MM and reach[near].mean() > 3 * reach[away].mean()
    # Swelling is outward: the skin gains volume.
    head = heads.load()
    outward = np.einsum("vk,vk->v", heads.normals(head, shape.build(patient.subject)), change)
    assert outward[reach > 0.5 * MM].mean() > 0.2 * reach[reach > 0.5 * MM].mean()


def test_weight_is_dry_weight_drift_fluid_and_clothes(crowd):
    fluids, weights, dry = crowd
    before, after = fluids[..., 0], fluids[..., 1]
    assert before.min() >= 0.9 and before.max() <= 4.2
    assert after.min() >= 0 and after.max() <= 0.5
    rest = weights - dry - fluids
    # Before and after share the day's drift; what else differs is clothes and scales.
    assert rest.mean() == pytest.approx(0, abs=0.04)
    assert (rest[..., 0] - rest[..., 1]).std() == pytest.approx(0.13 * np.sqrt(2), rel=0.1)
    assert rest.mean(-1).std() == pytest.approx(np.hypot(0.28, 0.13 / np.sqrt(2)), rel=0.1)
    lag = np.corrcoef(rest.mean(-1)[:, :-1].ravel(), rest.mean(-1)[:, 1:].ravel())[0, 1]
    assert 0.25 < lag < 0.65  # a drift, not another weight every day


def test_what_weight_alone_gives(crowd):
    """Errors of the trivial predictions, a day left out: known before any method is."""
    _, weights, _ = crowd
    rest = weights.sum(1, keepdims=True) - weights  # [patients, days, 2], the other days' sums
    by_mean = np.abs(weights - rest.mean(-1, keepdims=True) / 5).mean()
    by_class = np.abs(weights - rest / 5).mean()
    assert 0.9 < by_mean < 1.15 and 0.38 < by_class < 0.52


def test_the_room_does_not_tell_before_from_after():
    """Of 200 days, no property of the view differs by more than four of its standard errors."""
    days = [day for n in range(20) for day in fluid.draw_days(fluid.draw_patient(SEED + n), 10)]
    describe = lambda s: [
        s.view.exposure, s.view.yaw, s.view.pitch, s.view.zoom, s.view.distance, s.view.noise,
        *s.view.background, *s.view.white_balance, *s.view.ambient, *s.view.shift,
        *np.ravel(s.view.lights),
    ]  # fmt: skip
    before, after = (np.array([describe(day[which]) for day in days]) for which in (0, 1))
    error = np.sqrt((before.var(0) + after.var(0)) / len(days))
    assert np.all(np.abs(before.mean(0) - after.mean(0)) < 4 * error)
    assert np.all(before.std(0) > 0)


def test_clothes_are_the_days(patient):
    days = fluid.draw_days(patient, 3)
    assert all(day[0].subject.cloth_color == day[1].subject.cloth_color for day in days)
    assert len({day[0].subject.cloth_color for day in days}) == 3


def test_frames_are_moments_of_one_video(patient):
    session = fluid.draw_days(patient, 1)[0][0]
    few, many = (list(fluid.moments(session, n)) for n in (4, 12))
    assert [time for time, _, _ in few] == [22.5, 67.5, 112.5, 157.5]
    for (time, subject, view), (at, same, seen) in zip(few, many[1::3]):
        assert time == at and subject == same
        assert dataclasses.replace(view, seed=0) == dataclasses.replace(seen, seed=0)
    assert len({view.seed for _, _, view in many}) == 12
    dense = list(fluid.moments(session, 900))  # 5 a second
    yaw = np.array([view.yaw for _, _, view in dense])
    assert 1 < yaw.std() < 3 and np.abs(np.diff(yaw)).max() < 2.5
    assert abs(yaw.mean() - session.view.yaw) < 1.5
    for _, subject, view in dense:
        assert 0 <= subject.smile < 0.35 and abs(view.pitch) < 13
        assert subject.targets[: len(session.subject.targets)] == session.subject.targets


def test_fluid_is_seen_at_cheeks_lids_and_jaw_alone(patient):
    """The same moment with and without fluid: the face differs, forehead and wall do not."""
    patient = dataclasses.replace(patient, gains=(1.0, 1.0, 1.0))
    view = dataclasses.replace(View(), zoom=0.73, shift=(0.0, 0.02))
    seen = look(patient.subject, view, 64)
    dry, wet = (render(fluid.swell(patient, kg), view, 64).image.astype(int) for kg in (0, 2.5))
    change = np.abs(wet - dry).max(-1)
    assert (change > 10).mean() > 0.02  # to be seen
    places = {}
    for name, (x, y, z) in {"forehead": (0, 7.7, 1.3), "cheek": (0.5, 6.75, 1.2)}.items():
        away = np.linalg.norm(heads.load().rest - [x, y, z], axis=1)
        places[name] = seen.points[np.argmin(away), :2]
    row, column = np.mgrid[:64, :64] + 0.5
    part = lambda at: change[np.hypot(column - at[0], row - at[1]) < 4].mean()
    assert part(places["cheek"]) > 3 * part(places["forehead"])
    assert change[:8, :8].max() == change[:8, -8:].max() == 0


def test_colors_do_not_tell_before_from_after():
    """Of 24 days, no channel's mean or deviation differs by more than four standard errors."""
    days = [day for n in range(12) for day in fluid.draw_days(fluid.draw_patient(SEED + n), 2)]
    frames = np.stack([[next(fluid.film(s, 1, 32))[1] for s in day] for day in days]).astype(float)
    colors = np.concatenate([frames.mean((2, 3)), frames.std((2, 3))], axis=-1)
    change = colors[:, 1] - colors[:, 0]
    assert np.all(change.std(0) > 2)
    assert np.all(np.abs(change.mean(0)) < 4 * change.std(0) / np.sqrt(len(days)))


def test_the_same_moment_tells_the_fluid(patient):
    """Of renders with 0, 1, .. 4 kg, the frame is most like the one with about its own fluid."""
    for session in fluid.draw_days(patient, 1)[0]:
        _, subject, view = next(fluid.moments(session, 1))
        face = subject.targets[len(session.subject.targets) :]
        seen = look(subject, view, 64)
        skin = seen.pixel[seen.group == heads.SKIN]
        errors = []
        for kg in range(5):
            one = dataclasses.replace(subject, targets=fluid.swell(patient, kg).targets + face)
            change = render(one, view, 64).image.astype(int) - render(subject, view, 64).image
            errors.append(np.square(change.reshape(-1, 3)[skin]).mean())
        assert abs(np.argmin(errors) - session.fluid_kg) < 0.7


def test_a_near_camera_makes_the_nose_wider(patient):
    wide = {}
    for distance in (6.0, 12.0):
        seen = look(patient.subject, View(distance=distance), 64)
        rest = heads.load().rest
        nose = np.linalg.norm(rest - [0, 6.93, 1.65], axis=1) < 0.12
        ears = (np.abs(rest[:, 0]) > 0.75) & (np.abs(rest[:, 1] - 7.1) < 0.3) & (rest[:, 2] < 0.6)
        wide[distance] = np.ptp(seen.points[nose, 0]) / np.ptp(seen.points[ears, 0])
    assert wide[6.0] > 1.04 * wide[12.0]
    assert look(patient.subject, View(), 64).points.tobytes() == seen.points.tobytes()
