"""CleftGAN: a generator of faces with cleft lip, transferred from normal faces to cleft-lip faces.

    python launch.py --experiment=cleftgan

Demo (phantom, 32 px, 8 kimg), 2 cores of an EPYC, commit 28d6406: 8 min 51 s from a fresh clone to the
report, installation included; 2.6 to 3 steps/s (2 cores of a Xeon with AVX-512, commit 8f0e475: 5 min
25 s, 4.4 steps/s, KID 0.291 [0.271, 0.312]). KID on MobileNetV2 features against the 425 training people:

    base generator (faces_base_32)   0.790 [0.726, 0.861]
    transferred                      0.297 [0.273, 0.319]   (12 kimg: 0.261 [0.240, 0.282])
    from random weights, same budget 0.647 [0.604, 0.688]   (--init_from=none)
    two halves of the photographs    0.006

The base knows photo-like and rendered faces, so a part of this fall is the move from one kind of picture
to the other: the base's own training pictures are 0.446 from the cleft ones. DISH is 0.19 [0.14, 0.22] (from
scratch 0.10), its noise floor 0.05: the mix of severities is not yet that of the photographs. The score
behind it agrees with the truth at r = 0.85 [0.83, 0.87] (507 people at 32 px, 82 without a cleft).
No copy among 512 samples. The published scale has not been run.
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
    quick=True,
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
