"""Headshots: a smile as voted, told for people never learned from, beside the published protocol.

    python launch.py --experiment=headshots_smile

Measured on 2 CPU cores (commit 07316fe): 3 min 23 s; `accuracy` 0.957 [0.946, 0.965] on people never seen
(clear votes), all decided photographs 0.944 [0.933, 0.953], published protocol, which leaks, 0.976 [0.967,
0.981], labels dealt out anew 0.509 [0.487, 0.530], pixels 0.661 [0.640, 0.680].
How the settings were chosen, headshots_sex says.

The published scale has not been run: it needs the study's arrays (--config.data=foxglovetree --data_dir=
FOLDER) and Inception's weights (--config.weights=FILE).
"""

from dataclasses import replace

from experiments import headshots_sex

build = headshots_sex.build

paper = replace(
    headshots_sex.paper, task="smile", selection="clear", protocol="published", steps=3760
)

demo = replace(headshots_sex.demo, task="smile", selection="clear")

tiny = replace(headshots_sex.tiny, task="smile", selection="clear")

SCALES = {"demo": demo, "paper": paper, "tiny": tiny}
