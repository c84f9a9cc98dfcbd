"""Where a user's machine keeps what need not be made twice: phantom data, compiled programs; and how
those are traced and compiled."""

import gc
import importlib.metadata
import os
import pathlib

import jax

# For networks that judge: they run often in the shortest of runs. Not within another program.
OPTIMIZED = {"xla_backend_optimization_level": 3}  # XLA's default, which `compile_quickly` changes


def folder() -> pathlib.Path:
    """$JAXFACE_CACHE, else ~/.cache/jaxface. A user's own photographs are never put here."""
    default = pathlib.Path.home() / ".cache" / "jaxface"
    return pathlib.Path(os.environ.get("JAXFACE_CACHE", default))


def use_compilation_cache() -> None:
    """Keeps compiled programs between runs, small ones too, unless JAX was told where to and which."""
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        jax.config.update("jax_compilation_cache_dir", str(folder() / "xla"))
    if not os.environ.get("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"):
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)


def compile_quickly() -> None:
    """Programs are compiled without optimization from here on; call before JAX touches a device."""
    flags = ["--xla_backend_optimization_level=0"]
    if importlib.metadata.version("jaxlib").startswith("0.10."):  # others may not know it
        flags.append("--xla_cpu_use_fusion_emitters=false")
    given = os.environ.get("XLA_FLAGS", "")
    new = [flag for flag in flags if flag.split("=")[0] not in given]
    os.environ["XLA_FLAGS"] = " ".join([given, *new]).strip()


def collect_seldom() -> None:
    """Python's garbage collector leaves alone what is there, and comes by less often from here on.

    Tracing makes a million small objects, and nearly all of them stay: walking over them again and again is a
    quarter of the time it takes.
    """
    gc.freeze()
    gc.set_threshold(200_000, 20, 20)
    gc.enable()
