"""UV-photo Net: a color photograph of a face in, the UV photograph with its pigment spots out.

python launch.py --experiment=uvphoto
"""

from dataclasses import replace

from jaxface.data import phantom_uvphoto, uvphoto  # noqa: F401  (config.data names one of them)
from jaxface.systems import uvphoto as system

build = system.build

paper = system.Config(
    data="uvphoto",
    patch=256,  # the paper's
    discriminator="alexnet",  # the paper's kind
    batch=16,
    kpatches=256.0,
    save_every=1000,
    sample_every=1000,
    eval_every=4000,
    log_every=50,
)

demo = replace(
    paper,
    data="phantom_uvphoto",
    patch=128,  # a quarter of the paper's area: four times the steps in the same time
    stride=64,
    coverage=0.85,
    levels=4,
    ngf=16,
    norm="instance",
    init_type="kaiming",
    dropout=False,
    ndf=16,
    lambda_detail=5000.0,
    learning_rate=2e-3,
    batch=8,
    kpatches=32.0,
    tile_stride=64,
    log_every=20,
    sample_every=1000,
    eval_every=1000,
    save_every=500,
)

tiny = replace(
    demo,
    num_subjects=12,
    side=256,
    patch=64,
    stride=32,
    tile_stride=32,
    margin=8,
    norm="batch",
    levels=3,
    ngf=4,
    ndf=2,
    kpatches=0.024,
    log_every=1,
    sample_every=2,
    eval_every=0,
    save_every=1,
)

# Printed when a run of this scale is complete.
NEXT = {
    "demo": "Next: the same on your own photographs: python launch.py --mode=sample --workdir={workdir} "
    "--input=FILE_OR_FOLDER, or a training on your own pairs (README, section UV-photo Net)."
}

SCALES = {"demo": demo, "paper": paper, "tiny": tiny}
