"""Weights that this machine may have: vendored, or in ../shared/assets beside the clone."""

import golden
import numpy as np
import pytest

from jaxface import assets


def load(name: str) -> dict[str, np.ndarray]:
    """Arrays of an asset as float32; skips where it is neither vendored nor shared."""
    if (assets.FOLDER / f"{name}.npz").exists():
        return assets.load(name)
    file = golden.path().parent / "assets" / f"{name}.npz"
    if not file.exists():
        pytest.skip(f"weights neither vendored nor on this machine: {file}")
    with np.load(file, allow_pickle=False) as data:
        arrays = {key: data[key] for key in data.files}
    return {k: v.astype(np.float32) if v.dtype == np.float16 else v for k, v in arrays.items()}
