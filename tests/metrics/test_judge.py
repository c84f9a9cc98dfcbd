"""The judgement tells copies, equals and strangers apart. Features are means of pixels here."""

import numpy as np
import pytest

from jaxface.errors import UserError
from jaxface.metrics import judge
from jaxface.system import Result


@pytest.fixture(autouse=True)
def simple_features(monkeypatch):
    calls = []

    def features(images):
        calls.append(len(images))
        parts = images.reshape(len(images), 4, -1)
        return (parts.mean(-1) / 64).astype(np.float32)

    monkeypatch.setattr(judge, "mobilenet_features", features)
    return calls


def draw(n, seed, low=0, high=256):
    """Pictures of n people who differ in brightness."""
    rng = np.random.default_rng(seed)
    people = rng.integers(low, high, (n, 2, 2, 1))
    return people.repeat(2, axis=1).repeat(2, axis=2).astype(np.uint8)


def test_equals_are_below_the_floor_and_strangers_above(simple_features, tmp_path):
    reals, subjects = draw(60, 0), np.array([f"p{i // 2}" for i in range(60)])
    results = judge.against(reals, subjects, draw(80, 1), draw(80, 2, high=80), tmp_path)
    names = {"kid_mobilenetv2", "kid_mobilenetv2_base", "kid_noise_floor", "fd_mobilenetv2"}
    assert names | {"fd_noise_floor", "precision", "recall"} == results.keys()
    now, base, floor = (
        results[k] for k in ("kid_mobilenetv2", "kid_mobilenetv2_base", "kid_noise_floor")
    )
    assert now.value < floor.value < base.value
    assert now.high < base.low
    assert now.n == 30 and "60 photographs of 30 people against 80" in now.protocol
    for result in results.values():
        assert isinstance(result, Result) and "mobilenetv2@128" in result.protocol
        assert result.low is None or result.low <= result.value <= result.high
    assert results["precision"].n == 80 and results["recall"].n == 30
    judge.kid_value(reals, draw(10, 3), tmp_path)
    assert simple_features.count(60) == 1  # of the reals, once


def test_nobody_is_in_both_halves_of_the_floor():
    # Of ten people six equal photographs each: halves that share people would be all alike.
    reals, subjects = draw(10, 0).repeat(6, axis=0), np.arange(10).repeat(6)
    by_people = judge.against(reals, subjects, draw(20, 1))["kid_noise_floor"].value
    by_image = judge.against(reals, np.arange(60), draw(20, 1))["kid_noise_floor"].value
    assert by_people > 3 * by_image


def test_few_people_leave_out_what_they_cannot_tell():
    results = judge.against(draw(3, 0), np.arange(3), draw(5, 1))
    assert results.keys() == {"kid_mobilenetv2", "fd_mobilenetv2"}
    assert judge.neighbours(draw(2, 0), draw(5, 1)) == {}


def test_copies_are_found():
    reals = draw(40, 0)
    fresh = judge.neighbours(reals, draw(4, 1))["neighbour_distance"].value
    found = judge.neighbours(reals, reals[[7, 3, 9, 1]])
    assert found["neighbour_distance"].value == 0 < 0.3 < fresh
    figure = found["neighbours"]
    assert figure.images.shape == (12, 4, 4, 1) and figure.columns == 12
    np.testing.assert_array_equal(figure.images[1::3], reals[[7, 3, 9, 1]])
    assert (figure.images[0::3, 0] == 255).all()  # the frame of what is generated


def test_fid_is_refused_without_the_weights_that_define_it(tmp_path):
    other = tmp_path / "pt_inception-2015-12-05-6726825d.pth"
    other.write_bytes(b"something else")
    for path, words in ((other, "is not FID"), (tmp_path / "nowhere", "nowhere")):
        with pytest.raises(UserError, match=words):
            judge.fid(draw(4, 0), np.arange(4), draw(4, 1), str(path))


def test_fid_on_the_real_names(tmp_path, monkeypatch):
    """With a stand-in for the network: names, protocol, and the published name at 50,000 only."""
    monkeypatch.setattr(judge, "check_inception", lambda path: None)
    monkeypatch.setattr(judge, "read_torch", lambda path: {})

    class Network:
        def features(self, images, protocol):
            assert protocol == "torch_fidelity"
            return images.reshape(len(images), 4, -1).mean(-1)

    monkeypatch.setattr(judge.inception, "from_state_dict", lambda kwargs, arrays: Network())
    found = judge.fid(draw(40, 0), np.arange(40), draw(50, 1), "weights")
    assert found.keys() == {"fid", "kid_inception", "fid_noise_floor"}
    assert found["fid"].value > 0 and "biased" in found["fid"].protocol
    # Of 50,000 only the name is asked; the kernel distance of so many takes two minutes.
    monkeypatch.setattr(judge, "kid_interval", lambda *sets: (0.0, 0.0, 0.0))
    tiled = np.tile(draw(50, 1), (1000, 1, 1, 1))
    assert "fid50k_full" in judge.fid(draw(40, 0), np.arange(40), tiled, "weights")
