"""The base of the transfer: a generator of normal faces, trained from random weights.

    python launch.py --experiment=faces_base

learns from the phantom alone. The base that is shipped, `faces_base_32`, learned from the phantom and from
1,288 photo-like faces of people who do not exist (tiles of the public SFHQ sets; any folder of faces will
do), a third and two thirds of what it saw, in two parts, the second gentler:

    python launch.py --experiment=faces_base --config.data=phantom_faces+face_folder \
        --config.num_subjects=750 --data_dir=FACES --workdir=runs/first
    python launch.py --experiment=faces_base --config.data=phantom_faces+face_folder \
        --config.num_subjects=750 --data_dir=FACES --workdir=runs/second --init_from=runs/first \
        --config.gamma=0.3 --config.generator_lr=0.0012 --config.discriminator_lr=0.0012
    python -m jaxface.start runs/second jaxface/assets/faces_base_32.npz

42 and 41 kimg, 87 min on one core of an EPYC, 2.0 steps/s (commits 4eacae2 to ce71890; steps 705 to 1,368
on two cores, so a rerun agrees in distribution, not bit for bit). KID on MobileNetV2
features against its 1,921 training people 0.209 [0.189, 0.234] (after the first part 0.301), their noise
floor 0.002; precision 0.56, recall 0.07.
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
