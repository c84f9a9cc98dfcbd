"""Eight pretend devices, cheap compilation, a cache and a place for keys, set before JAX starts.

The compiled programs are kept for both workers and for every process that a test starts, small ones too:
a process meets hundreds of them.
"""

import importlib.metadata
import os
import pathlib
import tempfile

ROOT = pathlib.Path(__file__).parents[1]
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".jax_cache"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
KEYS = tempfile.TemporaryDirectory()  # no test writes a key of a ledger into its owner's home
os.environ["JAXFACE_KEYS"] = KEYS.name
os.environ["XLA_FLAGS"] = " ".join(
    [
        os.environ.get("XLA_FLAGS", ""),
        "--xla_force_host_platform_device_count=8",
        "--xla_backend_optimization_level=0",
    ]
).strip()
if importlib.metadata.version("jaxlib").startswith("0.10."):
    # Loops emitted by XLA's older way: half the time to compile. Other versions may not know the flag.
    os.environ["XLA_FLAGS"] += " --xla_cpu_use_fusion_emitters=false"

import pytest  # noqa: E402

from jaxface import cache  # noqa: E402  (jaxface adds the CPU flag of its jaxlib before JAX starts)

# Begun first, the longest in front, so that no worker is left alone with one of them at the end.
LONGEST = (
    "test_survival.py",
    "test_parallel.py",
    "test_uvphoto_launched.py",
    "test_edema_launched.py",
    "test_cleftgan.py",
    "test_losses.py",
    "test_headshots_launched.py",
    "test_edema_models.py",
    "test_inversion.py",
    "test_uvphoto_v1.py",
    "test_uvphoto_v2.py",
    "test_classify.py",
)


def pytest_collection_modifyitems(items):
    rank = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.name, len(rank)))


def pytest_collection_finish():
    cache.collect_seldom()


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory):
    """A user's cache for all tests of a worker that launch runs: people are rendered once."""
    folder = tmp_path_factory.getbasetemp() / "phantoms"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAXFACE_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="module")
def few_resamples():
    """Bootstraps draw little in this process: for tests of what is reported, not of its interval."""
    from jaxface.metrics import intervals

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(intervals, "RESAMPLES", 99)
        yield
