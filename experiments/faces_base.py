"""The base of the transfer: a generator of normal faces, trained from random weights.

    python launch.py --experiment=faces_base

Demo (phantom, 32 px, 48 kimg), 2 cores of an EPYC shared with other work: 40 min. KID on MobileNetV2
features against its 3,470 training people 0.343 [0.326, 0.360], their noise floor 0.0006; precision 0.03,
recall 0.01. The first 1,062 steps ran on one device, the rest on two (commits 177ca01 to ae78bd7): a
rerun agrees in distribution, not bit for bit. Packed by

    python -m jaxface.start runs/faces_base-demo jaxface/assets/faces_base_32.npz

it is the 0.9 MB `faces_base_32` that the demo of cleftgan starts from.
"""

from dataclasses import replace

from experiments import cleftgan as transfer
from jaxface.data import face_folder, phantom_faces  # noqa: F401  (config.data names one of them)
from jaxface.systems import cleftgan

build = cleftgan.build

paper = replace(
    transfer.paper,
    data="face_folder",
    kimg=25000.0,
    gamma=32.8,
    save_every=3125,
    sample_every=3125,
    eval_every=6250,
)

demo = replace(
    transfer.demo,
    data="phantom_faces",
    init_from="",
    normals="",
    kimg=42.0,
    generator_lr=0.0025,
    discriminator_lr=0.002,
    gamma=0.1,
    log_every=50,
    sample_every=500,
    eval_every=1000,
    save_every=500,
)

tiny = replace(transfer.tiny, data="phantom_faces")

SCALES = {"demo": demo, "paper": paper, "tiny": tiny}
