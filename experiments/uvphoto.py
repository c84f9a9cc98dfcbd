"""UV-photo Net: a color photograph of a face in, the UV photograph with its pigment spots out.

    python launch.py --experiment=uvphoto

Demo (phantom_uvphoto: 160 people to learn from, 24 held out), 2 quiet cores of an EPYC, fresh clone and
empty cache, commit b4faf68: 16 min 49 s, of which 4 min render the people, 10 min train and 2 min
judge. One spot ratio each, against the real UV photograph:

    spot_ratio_r               0.950 [0.906, 0.977]   (published: 0.92 on 24 people)
    straight on the color one  0.359 [-0.042, 0.652]; difference, paired: 0.590 [0.294, 0.985]
    Lin's concordance          0.798 [0.698, 0.863]: the translated ratio is 0.0012 too low on average
    80 people before phones    0.599 [0.443, 0.723]; straight on the color one 0.164 [0.023, 0.305]

Invented spots cover 0.21 % of spot-free skin; tilings shifted by half a stride differ by 7.8 gray levels,
which instance normalisation costs. 2,000 steps of 8 patches, from every 64th px alone, gave 0.83 (commit
76c0c15, 14 min): what counts is the number of updates. Without `lambda_detail` the network passes spots
over (1 px in 100 is spot, and the L1 of the rest hides it). The published scale has not been run.
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
    stride=16,
    coverage=0.85,
    levels=4,
    ngf=16,
    norm="instance",
    init_type="kaiming",
    dropout=False,
    ndf=16,
    lambda_detail=10000.0,
    learning_rate=3e-3,
    batch=4,
    kpatches=32.0,
    tile_stride=64,
    log_every=50,
    sample_every=2000,
    eval_every=4000,
    save_every=1000,
)

tiny = replace(
    demo,
    quick=True,
    num_subjects=12,
    side=256,
    batch=8,
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
