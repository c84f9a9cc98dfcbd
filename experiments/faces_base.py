"""The base of the transfer: a generator of normal faces, trained from random weights.

python launch.py --experiment=faces_base
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
    kimg=48.0,
    batch=16,
    generator_lr=0.0025,
    discriminator_lr=0.002,
    augment_pipe="",  # the phantom has no end of people: nothing to protect D from
    log_every=50,
    sample_every=500,
    eval_every=1000,
    save_every=500,
)

tiny = replace(transfer.tiny, data="phantom_faces")

SCALES = {"demo": demo, "paper": paper, "tiny": tiny}
