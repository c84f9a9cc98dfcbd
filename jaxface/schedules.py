"""Learning rates over training as pix2pix and CycleGAN have them; step -> rate, as optax's schedules.

A step here is whatever counts: the authors change the rate between epochs only, which `by_epoch`
does with any schedule.
"""

import jax.numpy as jnp
import optax


def constant_then_linear(rate: float, constant: int, decay: int) -> optax.Schedule:
    """`rate` for `constant` steps, then linearly down; 0 from step `constant + decay` on.

    CycleGAN has 100 and 100 epochs of it (arXiv 1703.10593, appendix 7.1).

    >>> schedule = constant_then_linear(1.0, constant=2, decay=3)
    >>> [round(float(schedule(step)), 2) for step in range(6)]
    [1.0, 1.0, 0.75, 0.5, 0.25, 0.0]
    """
    down = optax.linear_schedule(rate, 0.0, decay + 1)
    return optax.join_schedules([optax.constant_schedule(rate), down], [constant - 1])


def stairs(rate: float, every: int) -> optax.Schedule:
    """A tenth of the rate after each `every` steps.

    >>> schedule = stairs(1.0, every=2)
    >>> [round(float(schedule(step)), 2) for step in range(5)]
    [1.0, 1.0, 0.1, 0.1, 0.01]
    """
    return optax.exponential_decay(rate, every, 0.1, staircase=True)


def cosine(rate: float, half_period: int) -> optax.Schedule:
    """From `rate` to 0 in `half_period` steps and, unlike optax's, back up in as many.

    Loshchilov and Hutter 2017 (arXiv 1608.03983), equation 5, whose restarts PyTorch's
    CosineAnnealingLR replaces by the way back. To stop at 0, `half_period` is the whole training.
    """
    return lambda step: rate * 0.5 * (1 + jnp.cos(jnp.pi * step / half_period))


def by_epoch(schedule: optax.Schedule, steps_per_epoch: int) -> optax.Schedule:
    """A schedule of epochs as one of steps: the rate stays for an epoch.

    >>> schedule = by_epoch(constant_then_linear(1.0, constant=1, decay=1), steps_per_epoch=2)
    >>> [float(schedule(step)) for step in range(5)]
    [1.0, 1.0, 0.5, 0.5, 0.0]
    """
    return lambda step: schedule(step // steps_per_epoch)
