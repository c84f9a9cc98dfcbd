"""Where the reference outputs lie, if this machine has them."""

import json
import os
import pathlib

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[1]


def path() -> pathlib.Path:
    """The folder of reference outputs: $JAXFACE_GOLDEN, else ../shared/golden beside the clone."""
    return pathlib.Path(os.environ.get("JAXFACE_GOLDEN", ROOT.parent / "shared" / "golden"))


def load(name: str) -> dict[str, np.ndarray]:
    """Arrays of one reference file, `meta` parsed from JSON; skips where the folder is absent."""
    file = path() / f"{name}.npz"
    if not file.exists():
        pytest.skip(f"reference outputs not on this machine: {file} (set JAXFACE_GOLDEN)")
    with np.load(file, allow_pickle=False) as data:
        arrays = {key: data[key] for key in data.files}
    if "meta" in arrays:
        arrays["meta"] = json.loads(str(arrays["meta"]))
    return arrays


def nhwc(x: np.ndarray) -> np.ndarray:
    return np.moveaxis(x, 1, -1)


def nchw(x: np.ndarray) -> np.ndarray:
    return np.moveaxis(np.asarray(x), -1, 1)


def assert_close(actual, expected, tolerance, what=""):
    """Largest difference, relative to the largest reference value, is within `tolerance`."""
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    assert actual.shape == expected.shape, f"{what}: {actual.shape} against {expected.shape}"
    scale = max(np.abs(expected).max(), 1e-30)
    error = np.abs(actual - expected).max() / scale
    assert error <= tolerance, f"{what}: relative error {error:.2e} over {tolerance:.0e}"
