"""Headshots: how many people are enough? Error over people, photographs of each, and ways to learn.

    python launch.py --experiment=headshots_quantity

Measured on 2 CPU cores, busy, with version 1.1.0 of the phantom, 3 copies and one method
(--config.methods=transfer_augmented --config.copies=3): 1 min 50 s; err(n) = 0 + 2.13 n^-1.08 with 9
photographs a person, `people_needed` for 5 % 32 [25, 43], with 3 photographs 40 [30, 53], with one 69
[50, 98].

In the demo whole networks (scratch) are trained for one fold, one seed and 9 photographs a person alone.
The published scale has not been run.
"""

from dataclasses import replace

from experiments import headshots_sex

build = headshots_sex.build

paper = replace(
    headshots_sex.paper,
    protocol="person_folds",
    methods="finetune,scratch",
    beside="",
    budgets="8,16,32,64,128,all",
    photographs="1,3,9",
    seeds=5,
)

demo = replace(
    headshots_sex.demo,
    methods="transfer_augmented,transfer,scratch",
    beside="",
    budgets="8,16,32,64,128,all",
    photographs="1,3,9",
    seeds=2,
    network_folds=1,
    together=45,
    save_every=151 * 2,
    steps=100,
    head_steps=150,
)

tiny = replace(
    headshots_sex.tiny,
    methods="transfer_augmented,scratch",
    beside="",
    budgets="2,3,4,all",
    photographs="1,9",
    network_folds=1,
    steps=1,
    scratch_width=2,
)

SCALES = {"demo": demo, "paper": paper, "tiny": tiny}
