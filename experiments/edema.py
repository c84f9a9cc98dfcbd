"""Edema, second stage: a small model for each patient, judged on days that it has not seen.

    python launch.py --experiment=edema_pretrain
    python launch.py --experiment=edema --init_from=runs/edema_pretrain-demo

The published scale has not been run.
"""

from dataclasses import replace

from jaxface.data import edema_folder, phantom_edema  # noqa: F401  (config.data names one of them)
from jaxface.systems import edema as system

build = system.build

paper = system.Config(
    data="edema_folder",
    log_every=100,
    save_every=2000,
    sample_every=1_000_000,
)

demo = replace(
    paper,
    data="phantom_edema",
    side=64,
    frames=12,
    folds=3,
    depth=10,
    width=16,
    budgets="all",
    head_steps=40,
    head_rate=2e-3,  # heads begin as a rule that is nearly right
    steps=30,
    batch=16,
    learning_rate=5e-4,
    save_every=1000,
)

tiny = replace(
    demo,
    num_subjects=9,
    side=32,
    frames=2,
    width=4,
    budgets="all",
    head_steps=1,
    steps=1,
    batch=8,
    log_every=1,
    save_every=1,
)

SCALES = {"demo": demo, "paper": paper, "tiny": tiny}
