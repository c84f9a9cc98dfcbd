"""Edema, first stage: weight-aware contrastive pre-training on the videos of many dialysis patients.

    python launch.py --experiment=edema_pretrain
    python launch.py --experiment=edema --init_from=runs/edema_pretrain-demo

Measured on 2 CPU cores beside other work (commit c6309e7), from nothing: 8 min 58 s, of which 110 s render
39 patients. A linear rule on frozen features, on days left out of 14 patients not seen:
`video_accuracy_frozen` 0.939 [0.851, 0.980], `mae_kg_frozen` 0.510 [0.433, 0.603].

The published scale has not been run.
"""

from dataclasses import replace

from jaxface.data import edema_folder, phantom_edema  # noqa: F401  (config.data names one of them)
from jaxface.systems import contrastive as system

build = system.build

paper = system.Config(
    data="edema_folder",
    log_every=50,
    save_every=1000,
    sample_every=2000,
    eval_every=4000,
)

demo = replace(
    paper,
    data="phantom_edema",
    side=64,
    frames=12,
    folds=3,
    depth=10,
    width=16,
    features=64,
    hidden=128,
    queue=1024,
    momentum=0.99,  # of few steps: at 0.999 the keys would be those of a network that knows nothing
    temperature=0.2,  # MoCo v2's: at 0.07 nothing is learned in the first 500 steps
    learning_rate=0.06,
    batch=64,
    kframes=112.0,  # more does not help with 25 patients
    sample_every=1500,
    eval_every=1000,
    save_every=500,
)

tiny = replace(
    demo,
    quick=True,
    num_subjects=9,
    side=32,
    frames=2,
    width=4,
    features=8,
    hidden=8,
    queue=32,
    batch=8,
    kframes=0.032,
    log_every=1,
    sample_every=2,
    eval_every=0,
    save_every=1,
)

# Printed when a run of this scale is complete.
NEXT = {
    "demo": "Next: a model for each of the patients it has not seen: "
    "python launch.py --experiment=edema --init_from={workdir}"
}

SCALES = {"demo": demo, "paper": paper, "tiny": tiny}
