"""docs/scaling.md says of every system what its program says; nothing is computed."""

import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import pytest

from benchmarks import scaling
from experiments import cleftgan

PAGE = pathlib.Path(__file__).parents[1] / "docs/scaling.md"
TRACED = "edema_pretrain"  # the others take longer to trace than a test may


def rows(width: int) -> dict[str, list[str]]:
    """{first cell: the others} of the page's rows of so many cells."""
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    cells = [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in lines]
    return {row[0]: row[1:] for row in cells if len(row) == width}


def number(text: str) -> int:
    return int(text.replace(",", ""))


@pytest.fixture(scope="module")
def runs():
    return scaling.runs()


def test_counts_of_every_system_are_those_of_its_program(runs):
    table = rows(6)
    assert set(runs) < set(table)
    for name, (run, batch) in runs.items():
        size, parameters, state_bytes, reduced, gathered = map(number, table[name])
        state = jax.eval_shape(run.init, jax.random.key(0))
        assert size == run.config.batch
        assert parameters == sum(scaling.parameters(state).values())
        assert state_bytes == scaling.size(state)
        assert reduced >= 4 * parameters
        if name == TRACED:
            found = scaling.cost(run, batch, 8)
            assert (reduced, gathered) == (found.reduced_bytes, found.gathered_bytes)


def test_exchanges_inside_of_other_programs_are_found():
    def step(x):
        many = jax.lax.scan(lambda c, y: (c + jax.lax.psum(y, "data"), None), x[0], x)[0]
        either = jax.lax.cond(
            x.sum() > 0, lambda x: jax.lax.pmean(x, "data"), lambda x: 2 * x, x[:2]
        )
        return many, either, jax.jit(lambda x: jax.lax.all_gather(x, "data"))(x)

    program = jax.make_jaxpr(step, axis_env=[("data", 4)])(jnp.zeros([5, 3]))
    found = scaling.exchanged(program.jaxpr)
    assert found == {"psum": 4 * (5 * 3 + 2 * 3), "all_gather": 4 * 5 * 3}


def test_operations_of_convolutions_are_those_of_the_layers():
    stated = {name: row for name, row in rows(4).items() if name.isdigit()}
    assert set(stated) == {"64", "128", "256", "512", "1024"}
    for resolution, row in stated.items():
        found = []
        for variant in "tr":
            config = dataclasses.replace(
                cleftgan.paper, variant=variant, resolution=int(resolution)
            )
            both = scaling.convolutions(config)
            found.append(f"{both['generator'] / 1e9:.1f}")
        assert row == [*found, f"{both['discriminator'] / 1e9:.1f}"]
