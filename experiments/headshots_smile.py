"""Headshots: a smile as voted, told for people never learned from, beside the published protocol.

    python launch.py --experiment=headshots_smile

The published scale has not been run: it needs the study's arrays (--config.data=foxglovetree --data_dir=
FOLDER) and Inception's weights (--config.weights=FILE).
"""

from dataclasses import replace

from experiments import headshots_sex

build = headshots_sex.build

paper = replace(
    headshots_sex.paper, task="smile", selection="clear", protocol="published", steps=380
)

demo = replace(headshots_sex.demo, task="smile", selection="clear")

tiny = replace(headshots_sex.tiny, task="smile", selection="clear")

SCALES = {"demo": demo, "paper": paper, "tiny": tiny}
