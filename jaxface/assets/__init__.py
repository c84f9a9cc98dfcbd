"""Vendored weights and the phantom's head: small `.npz` files whose licences are in NOTICE."""

import functools
import pathlib

import numpy as np

FOLDER = pathlib.Path(__file__).parent


@functools.cache
def load(name: str) -> dict[str, np.ndarray]:
    """Returns the arrays of `jaxface/assets/<name>.npz`; float16 storage is widened to float32."""
    with np.load(FOLDER / f"{name}.npz", allow_pickle=False) as file:
        arrays = {key: file[key] for key in file.files}
    return {k: v.astype(np.float32) if v.dtype == np.float16 else v for k, v in arrays.items()}
