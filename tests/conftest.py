"""Eight pretend devices, cheap compilation, a cache and a place for keys, set before JAX starts."""

import os
import pathlib
import tempfile

ROOT = pathlib.Path(__file__).parents[1]
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".jax_cache"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
KEYS = tempfile.TemporaryDirectory()  # no test writes a key of a ledger into its owner's home
os.environ["JAXFACE_KEYS"] = KEYS.name
os.environ["XLA_FLAGS"] = " ".join(
    [
        os.environ.get("XLA_FLAGS", ""),
        "--xla_force_host_platform_device_count=8",
        "--xla_backend_optimization_level=0",
    ]
).strip()

import jaxface  # noqa: E402, F401  (adds the CPU flag of its jaxlib before JAX starts)
