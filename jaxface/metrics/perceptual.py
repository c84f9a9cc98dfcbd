"""Perceptual distances by name: those whose weights are on this machine, shipped or fetched."""

import functools

from jaxface.errors import UserError
from jaxface.models import alexnet, vgg
from jaxface.models.lpips import Loaded
from jaxface.weights import fetched

BUILDERS = {"lpips_vgg16": vgg.from_state_dict, "lpips_alexnet": alexnet.from_state_dict}


@functools.cache
def networks() -> dict[str, Loaded]:
    """{name: LPIPS network}; `python -m jaxface.weights fetch NAME` adds one that is not shipped."""
    found = {}
    for name, build in BUILDERS.items():
        try:
            arrays = fetched(name)
        except UserError:
            continue
        found[name] = build({}, arrays)
    return found
