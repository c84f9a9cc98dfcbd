"""Learning rates by hand and against the authors' program."""

import golden
import jax
import jax.numpy as jnp
import numpy as np

from jaxface import schedules


def _rates(schedule, steps):
    return np.asarray(jax.jit(jax.vmap(schedule))(jnp.arange(steps)))


def test_rates_by_hand():
    ones = _rates(schedules.constant_then_linear(0.4, 3, 3), 9)
    np.testing.assert_allclose(ones, [0.4, 0.4, 0.4, 0.3, 0.2, 0.1, 0, 0, 0], atol=1e-7)
    np.testing.assert_allclose(_rates(schedules.stairs(2.0, 1), 3), [2, 0.2, 0.02], rtol=1e-6)
    np.testing.assert_allclose(_rates(schedules.cosine(2.0, 2), 5), [2, 1, 0, 1, 2], atol=1e-6)


def test_by_epoch_holds_the_rate_for_an_epoch():
    whole = schedules.cosine(1.0, 4)
    each = _rates(schedules.by_epoch(whole, 3), 12)
    np.testing.assert_allclose(each, np.repeat(_rates(whole, 4), 3))


def test_golden_schedules():
    """All epochs of cosine and stairs; of the linear one those of its training, which ends at 0."""
    data = golden.load("i2i_lr_schedules")
    meta = data["meta"]
    rate, constant, decay = meta["lr"], meta["n_epochs"], meta["n_epochs_decay"]
    for name, schedule in (
        ("step", schedules.stairs(rate, meta["lr_decay_iters"])),
        ("cosine", schedules.cosine(rate, constant)),
    ):
        golden.assert_close(_rates(schedule, len(data[name])), data[name], 1e-6, name)
    linear = _rates(schedules.constant_then_linear(rate, constant, decay), len(data["linear"]))
    end = constant + decay
    golden.assert_close(linear[: end + 1], data["linear"][: end + 1], 1e-6, "linear")
    np.testing.assert_array_equal(linear[end:], 0)
