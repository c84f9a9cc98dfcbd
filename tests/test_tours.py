"""Tours: which styles and transforms a generator is asked to paint, and that they mean what they say."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from PIL import Image

from experiments import cleftgan as experiment
from jaxface import tours, train
from jaxface.checkpoint import Checkpoints
from jaxface.errors import UserError
from jaxface.metrics import copies
from jaxface.system import Asked
from jaxface.systems import cleftgan
from jaxface.workdir import Workdir, as_dict

LAYERS = 4
TINY = dataclasses.replace(
    experiment.tiny, resolution=16, num_layers=3, condition_on="side", augment_pipe=""
)


def toy():
    """A painter whose pixel says what it was asked: first and last style, and the x shift."""
    painted = []

    def styles(number):
        return np.broadcast_to(np.arange(number)[:, None, None], (number, LAYERS, 2)).astype("f4")

    def paint(ws, transforms):
        painted.append(np.array(transforms))
        pixel = np.stack([ws[:, 0, 0], ws[:, -1, 0], ws[:, LAYERS // 2, 0]], 1)
        return np.rint(pixel).astype(np.uint8)[:, None, None]

    return tours.Painter(styles, paint), painted


def test_mixing_takes_coarse_from_the_row_and_fine_from_the_column():
    figure = tours.mixing(toy()[0], 3)
    assert figure.columns == 4 and figure.images.shape == (16, 1, 1, 3)
    cells = figure.images.reshape(4, 4, 3)
    assert (cells[0, 0] == 255).all()
    for i in range(3):
        assert (cells[i + 1, 0] == i).all() and (cells[0, i + 1] == 3 + i).all()
        for j in range(3):
            assert cells[i + 1, j + 1].tolist() == [i, 3 + j, 3 + j]


def test_walk_is_closed_and_visits_every_face():
    film = tours.interpolation(toy()[0], 5)
    walk = film.frames[:, 0, 0, 0, 0].astype(int)
    assert walk[:: tours.STEPS].tolist() == [0, 1, 2, 3, 4]
    assert (np.abs(np.diff(walk[: 4 * tours.STEPS])) <= 1).all()
    assert walk[-1] <= 1  # almost back


def test_moves_begin_at_rest_and_stay_within_their_range():
    for tour in (tours.translation, tours.rotation):
        painter, painted = toy()
        film = tour(painter, 2)
        assert film.frames.shape[:2] == (tours.TURN, 2)
        forward = np.linalg.inv(painted[0].reshape(tours.TURN, 2, 3, 3)[:, 0])
        np.testing.assert_allclose(forward[0], np.eye(3), atol=1e-6)
        reach = np.abs(forward[:, :2, 2]).max()
        angle = np.degrees(np.arctan2(forward[:, 1, 0], forward[:, 0, 0]))
        assert np.isclose(reach, 2 * tours.SHIFT if tour is tours.translation else 0, atol=1e-5)
        assert np.isclose(angle.max(), 0 if tour is tours.translation else tours.ANGLE, atol=1e-3)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A workdir with a checkpoint of random weights, and the system it is of."""
    path = tmp_path_factory.mktemp("tours")
    system = cleftgan.build(TINY)
    workdir = Workdir(path)
    workdir.prepare(as_dict(TINY), {"experiment": "cleftgan", "scale": "tiny"})
    state = jax.jit(system.init)(jax.random.key(0))
    checkpoints = Checkpoints(path / "checkpoints", keep=1, log=print)
    checkpoints.save(0, state, {}, wait=True)
    copies.write_unaudited(path, checkpoints.digest(0))
    return system, workdir, state, checkpoints.digest(0)


def test_a_moved_picture_is_the_picture_moved(run):
    """A shift by whole pixels moves content right and down (the sign of "inverse matrix")."""
    system, _, state, _ = run
    film = system.shows["translation"](state, jax.random.key(3), 2, "left")
    rest = film.frames[0].astype(float)
    step = tours.TURN // 4  # SHIFT to the right and SHIFT down
    moved, pixels = film.frames[step].astype(float), round(tours.SHIFT * 16)
    inside = slice(4, -4)

    def error(dy, dx):
        there = np.roll(rest, (dy, dx), (1, 2))
        return np.abs(there - moved)[:, inside, inside].mean()

    others = [error(-pixels, -pixels), error(pixels, -pixels), error(-pixels, pixels), error(0, 0)]
    assert error(pixels, pixels) < 0.5 * min(others)


def test_files_say_what_they_are(run):
    system, workdir, _, digest = run
    assert train.sample(system, TINY, workdir, Asked(seed=7, number=3, label="left")) == 0
    with Image.open(workdir.path / "generated" / "seed7-left" / "00002.png") as file:
        assert file.text["checkpoint_sha256"] == digest and "synthetic" in file.text
        assert (file.text["seed"], file.text["index"], file.text["label"]) == ("7", "2", "left")
    assert train.sample(system, TINY, workdir, Asked("interpolation", 7, 2)) == 0
    with Image.open(workdir.path / "generated" / "interpolation-seed7.gif") as file:
        about = json.loads(file.info["comment"])
        assert file.n_frames == 2 * tours.STEPS
        assert about["checkpoint_sha256"] == digest and "synthetic" in about
    assert train.sample(system, TINY, workdir, Asked("mixing", 7, 2)) == 0
    assert (workdir.path / "samples" / "mixing-seed7.png").exists()


def test_labels_change_the_picture_and_wrong_ones_are_refused(run):
    system, workdir, state, _ = run
    one, other = (system.sample(state, jax.random.key(1), 2, side) for side in ("left", "right"))
    assert not np.array_equal(one, other)
    mixed = system.sample(state, jax.random.key(1), 2)
    assert np.array_equal(mixed[0], one[0]) and np.array_equal(mixed[1], other[1])
    with pytest.raises(UserError, match="left, right, none"):
        train.sample(system, TINY, workdir, Asked(label="lft", number=1))
    with pytest.raises(UserError, match="mixing"):
        train.sample(system, TINY, workdir, Asked(show="mixin"))


def test_truncation_acts_up_to_its_cutoff(run):
    _, _, state, _ = run
    pictures = {}
    for psi, cutoff in ((1.0, 0), (0.3, 0), (0.3, 2), (0.3, 99)):
        config = dataclasses.replace(TINY, truncation=psi, truncation_cutoff=cutoff)
        pictures[psi, cutoff] = cleftgan.build(config).sample(state, jax.random.key(1), 2)
    assert np.array_equal(pictures[0.3, 0], pictures[0.3, 99])
    assert not np.array_equal(pictures[0.3, 0], pictures[0.3, 2])
    assert not np.array_equal(pictures[1.0, 0], pictures[0.3, 2])


def test_nothing_is_sampled_while_a_likely_copy_waits_for_a_judgement(run):
    system, workdir, _, digest = run
    file = workdir.path / copies.REVIEW
    quiet = file.read_text()
    flag = {"sample": 5, "verdict": None, "sample_sha256": "a", "photograph_sha256": "b"}
    before = set(workdir.path.rglob("*"))
    file.write_text(json.dumps({"of": digest, "samples": 8, "flags": [flag]}))
    for show in ("", "mixing", "rotation"):
        with pytest.raises(UserError, match="copies of training photographs"):
            train.sample(system, TINY, workdir, Asked(show=show, seed=99, number=1))
    file.write_text(json.dumps({"of": "another checkpoint", "samples": 8, "flags": []}))
    with pytest.raises(UserError, match="--mode=evaluate"):
        train.sample(system, TINY, workdir, Asked(seed=99, number=1))
    assert set(workdir.path.rglob("*")) == before
    file.write_text(json.dumps({"of": digest, "samples": 8, "flags": [flag]}))
    copies.mark(workdir.path, 5, "no copy", "a reviewer")
    assert train.sample(system, TINY, workdir, Asked(seed=99, number=1)) == 0
    file.write_text(quiet)
