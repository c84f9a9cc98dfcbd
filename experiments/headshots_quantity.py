"""Headshots: how many people are enough? Error over people, photographs of each, and ways to learn.

    python launch.py --experiment=headshots_quantity

Measured on 2 CPU cores (commit 07316fe): 10 min 15 s; err(n) = 0 + 1.94 n^-1.01 with 9 photographs a
person and augmented copies, `people_needed` for 5 % 38 [29, 49]; with 3 photographs 44 [34, 58], with one 72
[54, 100]; without copies 52 [41, 68]. A small network from random weights errs in 23 % [17, 31] after
222 people (one fold): how many it would need is a guess, for the 23 % fall as n^-0.22 only.

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
