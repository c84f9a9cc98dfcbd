"""Where a user's machine keeps what need not be made twice: phantom data, compiled programs."""

import os
import pathlib

import jax


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
