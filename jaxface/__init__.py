"""jaxface: four published systems for medical face images, in functional JAX."""

import importlib.metadata
import os

# jaxlib 0.10 fuses some depthwise blocks on CPU into a kernel that returns wrong numbers under jit
# (depthwise 3x3 -> 1x1 -> channel-padded skip -> max-pool: error 30 on a scale of 400). Turning that
# fusion off cures it; later versions do not know the flag and abort on it, so it is set for 0.10 only.
if importlib.metadata.version("jaxlib").startswith("0.10."):
    _FLAG = "--xla_cpu_experimental_ynn_fusion_type="
    if _FLAG not in os.environ.get("XLA_FLAGS", ""):
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_FLAG}".strip()
