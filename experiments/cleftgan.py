"""CleftGAN: a generator of faces with cleft lip, transferred from normal faces.

    python launch.py --experiment=cleftgan

Demo (phantom, 32 px, 12 kimg), 2 cores of an EPYC, commit fa211fc: 8 min 34 s from the command to the
report, 3.2 steps/s. KID on MobileNetV2 features against the 425 training people:

    base generator (faces_base_32)   0.354 [0.331, 0.376]
    transferred                      0.300 [0.276, 0.324]
    from random weights, same budget 1.283 [1.226, 1.345]   (--init_from=none)
    two halves of the photographs    0.006

Clefts are plain in the samples, but the transfer lowers KID by a sixth only: what remains is the base's
own distance from its photographs (0.343 after 48 kimg), which 12 kimg do not make up. A longer trained
base is what the demo needs next. The published scale has not been run.
"""

from dataclasses import replace

from jaxface.data import (  # noqa: F401  (config.data and config.normals name some of them)
    cleft_folder,
    face_folder,
    phantom_cleft,
    phantom_faces,
)
from jaxface.systems import cleftgan

build = cleftgan.build

paper = cleftgan.Config(
    data="cleft_folder",
    split="train+heldout",  # the paper trains on all 514
    resolution=1024,
    batch=32,
    kimg=460.0,
    save_every=625,  # 20 kimg
    sample_every=625,
    eval_every=625,
    log_every=50,
)

demo = replace(
    paper,
    data="phantom_cleft",
    split="train",
    init_from="faces_base_32",
    resolution=32,
    z_dim=64,
    w_dim=64,
    channel_base=512,
    channel_max=64,
    num_layers=6,
    margin_size=4,
    discriminator_channel_base=2048,
    discriminator_channel_max=128,
    batch=8,
    kimg=8.0,
    generator_lr=0.003,
    discriminator_lr=0.003,
    gamma=0.2,
    eval_images=512,
    normals="phantom_faces",
    log_every=20,
    sample_every=200,
    eval_every=250,
    save_every=200,
)

tiny = replace(
    demo,
    init_from="",
    num_subjects=24,
    z_dim=8,
    w_dim=8,
    channel_base=128,
    channel_max=8,
    num_layers=4,
    discriminator_channel_base=256,
    discriminator_channel_max=16,
    kimg=0.048,
    eval_images=32,
    normals="",
    log_every=1,
    sample_every=3,
    eval_every=0,
    save_every=1,
)

# Printed when a run of this scale is complete.
NEXT = {
    "demo": "Next: the same on your own photographs (README, section With your own photographs), or more "
    "pictures of this run: python launch.py --mode=sample --workdir={workdir} --num=64"
}

SCALES = {"demo": demo, "paper": paper, "tiny": tiny}
