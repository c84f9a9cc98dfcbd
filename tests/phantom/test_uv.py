"""Both photographs of the phantom: what marks do to them, and what may not depend on the camera."""

import dataclasses

import numpy as np
import pytest

from jaxface.phantom import head as heads
from jaxface.phantom import uv
from jaxface.phantom.people import draw_subject
from jaxface.phantom.render import look
from jaxface.phantom.skin import ABSORBS, HEMOGLOBIN, MELANIN, Marks, draw_marks

SIZE = 256


@pytest.fixture(scope="module")
def person():
    return dataclasses.replace(draw_subject(3), melanin=0.2, beard=0.0, smile=0.0)


def still(view):
    return dataclasses.replace(view, noise=0.0)


@pytest.fixture(scope="module")
def view():
    return still(uv.device_view(5))


@pytest.fixture(scope="module")
def bare(person, view):
    return uv.photograph(person, marks(MELANIN, 0), view, SIZE)


def marks(kind, number=1, density=0.8):
    """No pores, and large spots in the middle of the forehead or none."""
    middle = heads.load().rest[heads.load().faces].mean(1)
    face = np.argmin(np.abs(middle - [0.0, 7.65, 1.3]).max(1))
    return Marks(
        kind=np.full(number, kind),
        face=np.full(number, face),
        weights=np.full([number, 3], 1 / 3),
        radius=np.full(number, 0.08),
        density=np.full(number, density),
        shape=np.tile([1.0, 0.0], (number, 1)),
        relief=0.0,
        seed=3,
    )


def light(levels):
    """sRGB levels -> linear light in 0..1."""
    value = levels.astype(np.float64) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def skin_of(person, view, size=SIZE):
    """Pixels well inside the skin, away from eyes, hair and the neck's shadow."""
    seen = look(person, view, size)
    inside = np.zeros(size * size, bool)
    inside[seen.pixel] = seen.group == heads.SKIN
    return inside.reshape(size, size)


def middle_of(pigment):
    """The core of a spot, where its density is that of its center."""
    row, column = np.nonzero(pigment)
    y, x = np.mgrid[: pigment.shape[0], : pigment.shape[1]]
    return np.hypot(y - row.mean(), x - column.mean()) < 0.3 * np.sqrt(pigment.sum() / np.pi)


def test_same_seed_same_bytes(person):
    view, phone = uv.phone_view(7)
    one, two = (uv.photograph(person, draw_marks(person), view, SIZE, phone) for _ in range(2))
    for field in ("color", "uv", "pigment"):
        assert getattr(one, field).tobytes() == getattr(two, field).tobytes()
    assert one.color.shape == (SIZE, SIZE, 3) and one.color.dtype == np.uint8
    assert one.uv.shape == (SIZE, SIZE) and one.uv.dtype == np.uint8
    assert one.pigment.shape == (SIZE, SIZE) and one.pigment.dtype == bool
    assert uv.phone_view(7) == (view, phone) != uv.phone_view(8)
    assert uv.device_view(7) == uv.device_view(7) != uv.device_view(8)
    other = uv.photograph(person, draw_marks(person), uv.phone_view(8)[0], SIZE)
    assert np.abs(other.color.astype(int) - one.color).mean() > 5


@pytest.mark.parametrize("kind", [MELANIN, HEMOGLOBIN])
def test_a_spot_takes_the_light_it_absorbs(person, view, bare, kind):
    """Measured from the finished 8-bit photographs, by comparison with skin without it."""
    pair = uv.photograph(person, marks(kind), view, SIZE)
    pigment = uv.photograph(person, marks(MELANIN), view, SIZE).pigment
    core = middle_of(pigment)
    assert core.sum() > 10
    dark = 0.8 / (1 + np.exp((0.2 - 1) / 0.16))  # mean over the core, to a percent
    for band in range(3):
        measured = np.log(
            light(bare.color[core, band]).mean() / light(pair.color[core, band]).mean()
        )
        assert measured == pytest.approx(dark * ABSORBS[kind, band], abs=0.02)
    measured = np.log(light(bare.uv[core]).mean() / light(pair.uv[core]).mean())
    assert measured == pytest.approx(dark * ABSORBS[kind, 3], rel=0.05, abs=0.015)
    assert pair.pigment.any() == (kind == MELANIN)


def test_blood_hardly_shows_in_uv_and_pigment_shows_most_there(person, view, bare):
    change = lambda a, b: np.abs(a.astype(int) - b).max()
    red = uv.photograph(person, marks(HEMOGLOBIN), view, SIZE)
    brown = uv.photograph(person, marks(MELANIN), view, SIZE)
    assert change(red.uv, bare.uv) < 8 < 20 < change(red.color, bare.color)
    assert change(brown.uv, bare.uv) > 40 > change(brown.color[..., 0], bare.color[..., 0])


def test_uv_is_the_devices_whatever_the_phone_makes_of_the_color(person):
    view, phone = uv.phone_view(7)
    drawn = draw_marks(person)
    by_phone = uv.photograph(person, drawn, view, SIZE, phone)
    plain = uv.photograph(person, drawn, view, SIZE)
    assert by_phone.uv.tobytes() == plain.uv.tobytes()
    np.testing.assert_array_equal(by_phone.pigment, plain.pigment)
    assert np.abs(by_phone.color.astype(int) - plain.color).mean() > 2
    # Light, exposure and white balance of the color photograph are not those of the UV photograph.
    dim = dataclasses.replace(
        view, exposure=0.4, white_balance=(1.5, 1, 0.6), lights=view.lights[:1]
    )
    assert uv.photograph(person, drawn, dim, SIZE).uv.tobytes() == plain.uv.tobytes()


@pytest.mark.parametrize("device", [True, False])
def test_color_and_uv_show_a_spot_at_the_same_place(person, device):
    """Before the device and before a phone in the phone's own pose."""
    view, phone = (uv.device_view(5), None) if device else uv.phone_view(5)
    plain, spotted = (
        uv.photograph(person, marks(MELANIN, n), still(view), SIZE, None) for n in (0, 1)
    )
    row, column = np.mgrid[:SIZE, :SIZE]
    center = np.array([row[spotted.pigment].mean(), column[spotted.pigment].mean()])
    near = np.hypot(row - center[0], column - center[1]) < 20

    def darkest(before, after):
        lost = np.where(near, np.log((light(before) + 1e-3) / (light(after) + 1e-3)), 0)
        return np.array([(lost * row).sum(), (lost * column).sum()]) / lost.sum()

    in_uv = darkest(plain.uv, spotted.uv)
    in_blue = darkest(plain.color[..., 2], spotted.color[..., 2])
    np.testing.assert_allclose(in_uv, center, atol=0.3)
    np.testing.assert_allclose(in_blue, center, atol=0.3)
    if phone:  # with all that a phone does: 4:2:0, blur and noise move nothing
        before, after = (
            uv.photograph(person, marks(MELANIN, n, 3.0), still(view), SIZE, phone) for n in (0, 1)
        )
        np.testing.assert_allclose(
            darkest(before.color.mean(-1), after.color.mean(-1)), center, atol=0.7
        )


def test_uv_exposure_is_that_of_the_skin_whatever_its_tone(person):
    """The median skin lies at 0.30 of linear light, level 149, from fair to dark."""
    expected = 255 * (1.055 * uv.SKIN_LEVEL ** (1 / 2.4) - 0.055)
    color = []
    for melanin in (0.02, 0.3, 0.6, 0.95):
        subject = dataclasses.replace(person, melanin=melanin)
        pair = uv.photograph(subject, draw_marks(subject), uv.device_view(5), SIZE)
        skin = skin_of(subject, uv.device_view(5))
        assert np.median(pair.uv[skin]) == pytest.approx(expected, abs=2)
        color.append(np.median(pair.color[skin]))
    assert np.all(np.diff(color) < -10)  # while the color photograph darkens


def test_views_hold_their_promises():
    for seed in range(60):
        device = uv.device_view(seed)
        assert abs(device.yaw) <= 4 and abs(device.pitch) <= 3 and abs(device.roll) <= 2
        left, right = device.lights
        assert left[0][0] == -right[0][0] and left[1] == right[1]  # even
        assert device.white_balance == (1, 1, 1) and device.exposure == 1
        view, phone = uv.phone_view(seed)
        assert abs(view.yaw) <= 8 and abs(view.pitch) <= 5
        assert 70 <= phone.quality <= 92 and 1.5 <= phone.noise <= 4 and 0.4 <= phone.blur <= 1
    balance = np.log([uv.phone_view(seed)[0].white_balance for seed in range(200)])
    assert balance[:, 0].std() == pytest.approx(0.09, rel=0.2)
    assert np.corrcoef(balance[:, 0], balance[:, 2])[0, 1] == pytest.approx(-1, abs=1e-6)


def test_phone_without_any_processing_keeps_the_picture():
    """Blur, noise, tone and JPEG each do what they say, on a picture of slow colors."""
    row, column = np.mgrid[:64, :64].astype(np.float32)
    picture = np.stack([60 + 2 * row, 90 + column, 200 - row - column / 2], -1)
    nothing = uv.Phone(contrast=1e-3, quality=100)
    np.testing.assert_allclose(uv._process(picture, nothing), picture, atol=4)
    gray = uv._process(picture, dataclasses.replace(nothing, saturation=0.0)).astype(float)
    assert np.ptp(gray, -1).max() <= 4
    expected = picture @ np.float32([0.299, 0.587, 0.114])
    np.testing.assert_allclose(gray.mean(-1), expected, atol=3)
    noisy = uv._process(picture, dataclasses.replace(nothing, noise=4.0))
    luma = (noisy.astype(float) - picture) @ [0.299, 0.587, 0.114]
    assert luma.std() == pytest.approx(4 * np.linalg.norm([0.299, 0.587, 0.114]), rel=0.1)
    steep = uv._process(picture, dataclasses.replace(nothing, contrast=1.3)).astype(float)
    tone = 127.5 + 127.5 * np.tanh(1.3 * (picture / 127.5 - 1)) / np.tanh(1.3)
    np.testing.assert_allclose(steep, tone, atol=5)
    edge = np.where(column < 32, 60, 200).astype(np.float32)[..., None].repeat(3, -1)
    soft = uv._process(edge, dataclasses.replace(nothing, blur=1.0)).astype(float)
    assert soft[32, 31, 1] == pytest.approx(60 + 140 * 0.3085, abs=3)  # half a px from the edge
