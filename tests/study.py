"""A study of 20 people with a consent ledger and a network of one matrix: whole runs take seconds."""

import csv
import dataclasses
import functools
import hashlib
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from calm import Calm
from PIL import Image

from jaxface import lineage, start, train
from jaxface.data import face_folder, pipeline  # noqa: F401  (the builder is found once imported)
from jaxface.data.base import split_of
from jaxface.data.consent import Ledger
from jaxface.system import Figure, Result, RunConfig, System, TrainState
from jaxface.workdir import Workdir

PEOPLE = [f"vol-{number:02d}" for number in range(20)]
EACH = 3  # photographs
SIDE = 16


@dataclasses.dataclass
class Config(RunConfig):
    """Of a run on the folder that `photograph` writes."""

    data: str = "face_folder"
    split: str = "train"
    resolution: int = SIDE
    channels: int = 3
    manifest: str = ""
    purpose: str = "research"
    max_bad_fraction: float = 0.0
    align: bool = False
    ledger: str = ""
    steps: int = 4
    batch: int = 8
    log_every: int = 2
    sample_every: int = 100
    save_every: int = 1
    keep: int = 10

    @property
    def num_steps(self):
        return self.steps


def photograph(folder: pathlib.Path) -> None:
    """Writes photographs of all people, three each, and their manifest."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    rows = []
    for person in PEOPLE:
        for number in range(EACH):
            name = f"{hashlib.sha256(f'{person} {number}'.encode()).hexdigest()[:8]}.png"
            Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8)).save(
                folder / name
            )
            rows.append((name, person, "yes"))
    with open(folder / "manifest.csv", "w", newline="") as file:
        csv.writer(file).writerows([("file", "subject", "consent"), *rows])


def consent(folder: pathlib.Path, keys: pathlib.Path) -> Ledger:
    """A ledger on which all people agree to research."""
    ledger = Ledger.open(folder, create=True, keys=keys)
    ledger.give_all(PEOPLE, "research")
    return ledger


def build(config: Config, start=None) -> System:
    """A matrix that learns to map photographs to nothing."""
    faces = functools.cache(lambda: pipeline.open_faces(config))

    def init(key):
        matrix = jax.random.normal(key, [SIDE * SIDE * 3, 4]) / 100
        return TrainState(
            step=jnp.zeros([], jnp.int32),
            params={"generator": {"matrix": matrix}},
            opt_state={},
            model_state={},
            ema={},
            control={},
        )

    def train_step(state, batch, key, *, axis=None):
        x = batch["image"].reshape(len(batch["image"]), -1) / 255.0
        loss_fn = lambda params: jnp.square(x @ params["generator"]["matrix"]).mean()
        loss, grads = jax.value_and_grad(loss_fn)(state.params)
        params = jax.tree.map(lambda p, g: p - 0.01 * g, state.params, grads)
        return state.replace(step=state.step + 1, params=params), {"loss/square": loss}

    def shown(number):
        images = faces().images[:number]
        return Figure(images, 8, "Photographs.", photographs=True)

    def consumed(step):
        return drawn()(step)

    @functools.cache
    def drawn():
        order = pipeline.Batches(faces(), config.batch, config.seed).drawn
        return pipeline.Drawn(order, faces().who, len(faces()))

    return System(
        init=init,
        train_step=train_step,
        batches=lambda *place: pipeline.Batches(faces(), config.batch, config.seed, *place),
        evals={
            "size": lambda state, key: {
                "size": Result(float(np.abs(state.params["generator"]["matrix"]).sum()))
            }
        },
        sample=lambda state, key, number, label="": shown(number),
        resident=lambda: {"image": faces().images},
        preview=lambda: shown(60),
        start_from=(lambda state: state.replace(params=start["params"])) if start else None,
        consumed=consumed,
    )


def run(workdir: pathlib.Path, config: Config, gate: lineage.Gate | None = None) -> None:
    """Trains, or goes on, as the launcher does."""
    gate = gate or lineage.Gate(config.ledger)
    config = dataclasses.replace(config, build_dir=config.build_dir or str(workdir / "data"))
    networks, parent = start.read(config.init_from, lambda line: None, gate)
    command = f"python launch.py --experiment=study --workdir={workdir}"
    command += f" --init_from={config.init_from}" if config.init_from else ""
    about = {"experiment": "study", "scale": "tiny", "command": command, "start": parent}
    status = train.train(
        build(config, networks), config, Workdir(workdir, gate=gate), Calm(), about
    )
    assert status == 0


def drawn(config: Config, build_dir: pathlib.Path, steps: int) -> dict[str, set[str]]:
    """{person: sha256 of the images} that the first steps draw, from the batches that training gets."""
    faces = pipeline.open_faces(dataclasses.replace(config, build_dir=str(build_dir)))
    batches, found = pipeline.Batches(faces, config.batch, config.seed), {}
    for _ in range(steps):
        for index in next(batches)["index"]:
            record = faces.source[int(index)]
            image = hashlib.sha256(record["image"]).hexdigest()
            found.setdefault(record["subject"].decode(), set()).add(image)
    return found


def learners() -> list[str]:
    return [person for person in PEOPLE if split_of(person) == "train"]
