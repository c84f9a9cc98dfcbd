"""Draws docs/demo.png from a finished demo: python docs/make_figure.py runs/cleftgan-demo"""

import pathlib
import sys

from PIL import Image

SIDE, SHOWN, GAP = (
    98,
    5,
    24,
)  # px of a cell of a grid with its gap; cells shown a side; px between grids

samples = pathlib.Path(sys.argv[1]) / "samples"
steps = sorted(samples.glob("[0-9]*.png"))
grids = [Image.open(f).convert("RGB") for f in (steps[0], steps[-1], samples / "reals.png")]
width = SIDE * SHOWN - 2
figure = Image.new("RGB", (3 * width + 2 * GAP, width), "white")
for place, grid in enumerate(grids):
    figure.paste(grid.crop((0, 0, width, width)), (place * (width + GAP), 0))
figure.save(pathlib.Path(__file__).parent / "demo.png", optimize=True)
