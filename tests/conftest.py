"""Eight pretend devices, cheap compilation and a cache, set before JAX starts."""

import os
import pathlib

ROOT = pathlib.Path(__file__).parents[1]
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".jax_cache"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
os.environ["XLA_FLAGS"] = " ".join(
    [
        os.environ.get("XLA_FLAGS", ""),
        "--xla_force_host_platform_device_count=8",
        "--xla_backend_optimization_level=0",
    ]
).strip()

import jaxface  # noqa: E402, F401  (adds the CPU flag of its jaxlib before JAX starts)
