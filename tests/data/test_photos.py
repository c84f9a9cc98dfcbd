"""Photographs as they are read, and the windows that training gets of them."""

import dataclasses
import itertools

import numpy as np
import pytest

from jaxface.data import base, photos
from jaxface.data.photos import PatchBatches, Photos, open_photos
from jaxface.data.pipeline import NobodyError
from jaxface.errors import UserError
from jaxface.system import RunConfig

HEIGHT, WIDTH = 40, 56
CUT = {"batch": 8, "patch": 16, "stride": 4, "coverage": 0.5, "window": 24, "seed": 3, "threads": 0}


def drawn(number):
    """A photograph whose px tell where they are and of which it is one."""
    row, column = np.mgrid[:HEIGHT, :WIDTH].astype(np.uint8)
    mask = np.zeros([HEIGHT, WIDTH], bool)
    if number != 4:  # has no patch with enough skin
        mask[number : number + 22, 8:40] = True
    phone = number >= 5
    return base.photo_record(
        id=f"{number}.png",
        subject=f"S{number}",
        view="front" if number % 2 else "left",
        device="phone" if phone else "device",
        color=np.stack([row, column, np.full_like(row, number)], -1),
        uv=None if phone else 3 * row + column,
        truth_uv=row if phone else None,
        pigment=None if phone else mask & (row % 2 == 0),
        mask=mask,
        landmarks=np.full([468, 3], number),
        face_width=10 + number,
        covered=0.5,
        ita=-number,
    )


class CountedPhotos(base.PhotoBuilder):
    """Seven photographs, five of them with UV."""

    @classmethod
    def settle(cls, run):
        return base.PhotoConfig(name="only")

    def _split_generators(self, dl_manager):
        del dl_manager
        return {"train": ((f"{n}", drawn(n)) for n in range(7))}


@dataclasses.dataclass
class Run(RunConfig):
    data: str = "counted_photos"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return Run(build_dir=str(tmp_path_factory.mktemp("build")))


@pytest.fixture
def all_seven(run):
    return open_photos(run)


def take(number, chosen, **settings):
    return list(itertools.islice(PatchBatches(chosen, **(CUT | settings)), number))


def number_of(opened, index):
    return int(opened.labels["id"][index][0])


def test_what_was_built_is_read(all_seven):
    assert len(all_seven) == 7
    for i in range(7):
        n = number_of(all_seven, i)
        record, labels = drawn(n), {k: v[i] for k, v in all_seven.labels.items()}
        assert all(labels[k] == record[k] for k in ("subject", "view", "device"))
        assert (labels["face_width"], labels["covered"], labels["ita"]) == (10 + n, 0.5, -n)
        assert (labels["height"], labels["width"]) == (HEIGHT, WIDTH)
        row, column = np.mgrid[:HEIGHT, :WIDTH]
        np.testing.assert_array_equal(all_seven.color(i)[..., 1], column)
        assert all_seven.mask(i).sum() == (0 if n == 4 else 22 * 32)
        assert (all_seven.landmarks(i) == n).all()
        if n < 5:
            np.testing.assert_array_equal(all_seven.uv(i), 3 * row + column)
            np.testing.assert_array_equal(all_seven.truth_uv(i), 3 * row + column)
            np.testing.assert_array_equal(all_seven.pigment(i), all_seven.mask(i) & (row % 2 == 0))
        else:
            assert all_seven.uv(i) is None and all_seven.pigment(i) is None
            np.testing.assert_array_equal(all_seven.truth_uv(i), row)
        assert labels["has_uv"] == (n < 5)


def test_choices(run, all_seven):
    chosen = lambda **how: sorted(all_seven.where(**how).labels["id"])
    assert chosen(paired=False) == chosen(device="phone") == ["5.png", "6.png"]
    assert chosen(paired=True, view="front") == ["1.png", "3.png"]
    (left,) = all_seven.where(device="phone").where(view="left").labels["id"]
    assert left == "6.png"
    assert len(all_seven.where(paired=False).where(paired=True)) == 0
    assert sorted(open_photos(run, device="phone").labels["id"]) == ["5.png", "6.png"]
    with pytest.raises(NobodyError, match="device 'tablet' and a UV.*devices: device, phone"):
        open_photos(run, device="tablet", paired=True)
    with pytest.raises(NobodyError, match="'heldout' of counted_photos holds nobody"):
        open_photos(run, "heldout")
    with pytest.raises(UserError, match="use 'train', 'heldout'"):
        open_photos(run, "test")


def test_only_what_fits_is_kept(all_seven, monkeypatch):
    decoded = []
    plain = photos._decode
    monkeypatch.setattr(photos, "_decode", lambda content: decoded.append(1) or plain(content))
    monkeypatch.setattr(photos, "KEPT_BYTES", 2 * HEIGHT * WIDTH * 3)
    for i, times in ((0, 1), (1, 2), (0, 2), (2, 3), (0, 3), (1, 4)):  # 2 pushes 1 out
        all_seven.color(i)
        assert len(decoded) == times, i


def patches(batch, patch, window):
    start = window // 2 - patch // 2
    return batch[:, start : start + patch, start : start + patch]


def test_windows_hold_a_patch_of_skin_and_its_surroundings(all_seven):
    paired = all_seven.where(paired=True)
    of = {number_of(paired, i): i for i in range(len(paired))}
    places = set()
    for batch in take(40, paired):
        assert batch["color"].shape == (8, 24, 24, 3) and batch["uv"].shape == (8, 24, 24, 1)
        assert batch["color"].dtype == batch["uv"].dtype == np.uint8
        for color, uv, width in zip(batch["color"], batch["uv"], batch["face_width"]):
            row, column, number = (
                color[..., 0].astype(int),
                color[..., 1].astype(int),
                color[0, 0, 2],
            )
            assert number != 4 and width == 10 + number
            np.testing.assert_array_equal(uv[..., 0], (3 * row + column) % 256)
            row, column = patches(row[None], 16, 24)[0], patches(column[None], 16, 24)[0]
            assert (np.diff(row, axis=0) == 1).all() and (np.diff(column, axis=1) == 1).all()
            assert paired.mask(of[number])[row, column].mean() >= 0.5
            top, left = row[0, 0], column[0, 0]
            padded = np.pad(paired.color(of[number]), ((16, 16), (16, 16), (0, 0)), "reflect")
            expected = padded[top + 16 - 4 : top + 16 + 20, left + 16 - 4 : left + 16 + 20]
            np.testing.assert_array_equal(color, expected)
            places.add((number, top, left))
    assert {number for number, _, _ in places} == {0, 1, 2, 3}
    assert len(places) > 60  # of each photograph many patches


def test_windows_larger_than_the_photograph(all_seven):
    batch = take(1, all_seven, window=140)[0]
    for color in batch["color"]:
        row, column = color[..., 0].astype(int), color[..., 1].astype(int)
        assert (np.abs(np.diff(row, axis=0)) == 1).all() and (np.diff(row, axis=1) == 0).all()
        assert (np.abs(np.diff(column, axis=1)) == 1).all()
        assert (row.min(), row.max(), column.max()) == (0, HEIGHT - 1, WIDTH - 1)


def test_unpaired_and_mixed_photographs_give_no_uv(all_seven):
    assert "uv" not in take(1, all_seven)[0]
    batch = take(1, all_seven.where(paired=False))[0]
    assert sorted(batch) == ["color", "example", "face_width"]
    assert set(batch["color"][:, 0, 0, 2]) == {5, 6}


def same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name])


def test_resumed_equals_straight_with_threads_or_without(all_seven):
    straight = take(6, all_seven)
    for a, b in zip(straight[2:], take(4, all_seven, start=2, threads=3), strict=True):
        same(a, b)
    batches = PatchBatches(all_seven, **CUT, start=2)
    next(batches)
    assert batches.get_state() == {"step": 3}
    same(next(batches), straight[3])
    assert not np.array_equal(take(1, all_seven, seed=4)[0]["color"], straight[0]["color"])


def test_hosts_hold_consecutive_rows_of_the_same_batches(all_seven):
    whole = take(4, all_seven)
    parts = [take(4, all_seven, process_index=p, process_count=4) for p in range(4)]
    for step, batch in enumerate(whole):
        same(batch, {n: np.concatenate([part[step][n] for part in parts]) for n in batch})
    with pytest.raises(UserError, match="3 processes"):
        take(1, all_seven, process_count=3)


def test_consecutive_examples_of_one_photograph(all_seven):
    batches = take(9, all_seven, per_photo=4)
    numbers = np.concatenate([batch["color"][:, 0, 0, 2] for batch in batches]).reshape(-1, 4)
    assert (numbers == numbers[:, :1]).all()
    epochs = numbers[:, 0].reshape(3, 6)
    assert all(sorted(epoch) == [0, 1, 2, 3, 5, 6] for epoch in epochs)


def test_photographs_without_a_patch_are_named(all_seven, capsys):
    assert PatchBatches(all_seven, **CUT).left_out == ("4.png",)
    told = capsys.readouterr().out
    assert "1 of 7 photographs" in told and "4.png" in told and "16 px with 50% skin" in told
    PatchBatches(all_seven, **CUT, process_index=1, process_count=2)
    assert not capsys.readouterr().out
    with pytest.raises(UserError, match="config.patch=32, config.coverage=0.9.*measures 16 px"):
        take(1, all_seven, patch=32, window=40, coverage=0.9)
    with pytest.raises(UserError, match="config.window=8 is smaller than config.patch=16"):
        take(1, all_seven, window=8)
    with pytest.raises(UserError, match="none of the 0 photographs"):
        take(1, Photos(all_seven.records, np.arange(0)))
