"""The order of examples is a function of seed and position, whoever reads it."""

import dataclasses
import itertools
import threading

import numpy as np
import pytest

from jaxface.data import cleft_folder, phantom_cleft, phantom_faces, pipeline  # noqa: F401  (found by name)
from jaxface.data.base import split_of
from jaxface.data.phantom import PhantomBuilder
from jaxface.errors import UserError
from jaxface.system import RunConfig


class Eleven:
    """Stands for a data set of eleven pictures, each filled with its own number."""

    def __len__(self):
        return 11

    def image(self, index):
        return np.full([4, 4, 3], index, np.uint8)


def take(number, **settings):
    return list(itertools.islice(pipeline.Batches(Eleven(), 8, seed=3, **settings), number))


def test_resumed_equals_straight():
    straight, resumed = take(6), take(4, start=2)
    for a, b in zip(straight[2:], resumed):
        assert all(np.array_equal(a[name], b[name]) for name in a)


def test_hosts_hold_consecutive_rows_of_the_same_batches():
    whole = take(5)
    parts = [take(5, process_index=p, process_count=4) for p in range(4)]
    for step, batch in enumerate(whole):
        for name, rows in batch.items():
            together = np.concatenate([part[step][name] for part in parts])
            assert np.array_equal(rows, together), name


def test_every_epoch_shows_everyone_once_in_a_new_order():
    order = np.concatenate([batch["index"] for batch in take(11)])
    epochs = order.reshape(8, 11)
    assert all(sorted(epoch) == list(range(11)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_streamed_pictures_are_those_of_their_index():
    for kept, streamed in zip(take(3), take(3, stream=True)):
        assert np.array_equal(kept["index"], streamed["index"])
        assert np.array_equal(streamed["image"][:, 0, 0, 0], kept["index"])
        assert streamed["image"].dtype == np.uint8


def test_a_batch_that_does_not_split_over_hosts():
    with pytest.raises(UserError, match="3 processes"):
        take(1, process_count=3)


def test_position_is_the_number_of_batches_given_out():
    batches = pipeline.Batches(Eleven(), 8, seed=3, start=5)
    next(batches)
    assert batches.get_state() == {"step": 6}


def test_unknown_name_suggests_the_nearest():
    assert pipeline.builder_for("phantom_cleft") is phantom_cleft.PhantomCleft
    with pytest.raises(UserError, match="phantom_cleft"):
        pipeline.builder_for("phantom_clef")


@dataclasses.dataclass
class Run(RunConfig):
    resolution: int = 16
    channels: int = 3
    num_subjects: int = 12
    split: str = "train"


def test_data_sets_joined_by_plus_keep_their_splits(tmp_path):
    both = Run(data="phantom_faces+phantom_cleft", build_dir=str(tmp_path))
    apart = [dataclasses.replace(both, data=name) for name in both.data.split("+")]
    joined = pipeline.open_faces(both)
    parts = [pipeline.open_faces(run) for run in apart]
    assert len(joined) == sum(map(len, parts))
    assert np.array_equal(joined.images, np.concatenate([part.images for part in parts]))
    people = joined.labels["subject"]
    assert {name[0] for name in people} == {"N", "P"}
    assert {split_of(name) for name in people} == {"train"}
    with pytest.raises(UserError, match="phantom_faces"):
        pipeline.open_faces(dataclasses.replace(both, data="phantom_cleft+phantom_face"))


def test_of_two_runs_that_want_the_same_records_one_makes_them(tmp_path, monkeypatch):
    run = Run(data="phantom_faces", num_subjects=3, split="train+heldout", build_dir=str(tmp_path))
    rendered, said, second = [], threading.Event(), []
    waiting = threading.Thread(target=lambda: second.append(pipeline.open_faces(run)))
    record = PhantomBuilder._record

    def slowly(builder, number, name):
        if not rendered:
            waiting.start()
            assert said.wait(60), "the second run did not say that it waits"
        rendered.append(name)
        return record(builder, number, name)

    monkeypatch.setattr(PhantomBuilder, "_record", slowly)
    monkeypatch.setattr(pipeline.terminal, "say", lambda message: said.set())
    first = pipeline.open_faces(run)
    waiting.join(60)
    assert len(rendered) == len(first) == len(second[0]) == 3
    assert np.array_equal(first.images, second[0].images)


def test_phantoms_are_rendered_and_folders_are_not():
    assert pipeline.is_rendered("phantom_faces") and pipeline.is_rendered(
        "phantom_faces+phantom_cleft"
    )
    assert not pipeline.is_rendered("cleft_folder")
    assert not pipeline.is_rendered("phantom_faces+cleft_folder")
