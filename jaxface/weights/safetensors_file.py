"""safetensors: others' files, and our own export, which a JSON file describes.

The format is a JSON table of names, types, shapes and places, then the numbers: nothing in it runs.
"""

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import flax.traverse_util
import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy

from jaxface.errors import UserError
from jaxface.weights import kinds
from jaxface.weights.unpickle import Budget, UnsafeFileError, open_bytes, shown

FORMAT = "jaxface 1"  # of our export: what its metadata says under "format"
_MAX_TABLE = 16 << 20  # bytes; 100,000 arrays
_MAX_ABOUT = 16 << 20  # bytes of the JSON file beside


def export_safetensors(
    path: str | os.PathLike, variables: Mapping[str, Any], about: Mapping[str, Any]
) -> pathlib.Path:
    """Writes arrays to `path` and what they are to the JSON file of the same name beside it.

    Args:
      path: ends in ".safetensors".
      variables: {name: array}, nested or not; nested names are joined by "/".
      about: plain values (JSON). Kept in both files: the first can travel alone.

    Returns the path of the JSON file: {"format", "file", "sha256", "about", "arrays"}. Either file is
    the old one or the new one, never half of one.

    Raises:
      UserError: another suffix, or nothing to write.
      TypeError, ValueError: `about` is no JSON.
    """
    path = pathlib.Path(path)
    if path.suffix != ".safetensors":
        raise UserError(f"{path}: an export is named *.safetensors.")
    flat = flax.traverse_util.flatten_dict(dict(variables), sep="/")
    # The library writes buffers as they lie: anything but C order would come back scrambled.
    arrays = {name: np.array(value, order="C") for name, value in flat.items()}
    if not arrays:
        raise UserError(f"{path}: there is no array to export.")
    text = json.dumps(dict(about), sort_keys=True, allow_nan=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".tmp")
    try:
        safetensors.numpy.save_file(arrays, draft, {"format": FORMAT, "about": text})
        digest = kinds.sha256(draft)
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    content = {
        "format": FORMAT,
        "file": path.name,
        "sha256": digest,
        "about": json.loads(text),
        "arrays": {
            name: {"shape": list(array.shape), "dtype": array.dtype.name}
            for name, array in sorted(arrays.items())
        },
    }
    beside = path.with_suffix(".json")
    draft = beside.with_name(beside.name + ".tmp")
    draft.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")
    os.replace(draft, beside)
    return beside


def read_safetensors(path: str | os.PathLike) -> tuple[dict[str, np.ndarray], dict]:
    """({name: array}, about) of a safetensors file; `about` is {} where another program wrote it.

    bfloat16 is widened to float32, exactly. Where the JSON file of our export lies beside it, the
    file must be the one that it describes.

    Raises:
      UnsafeFileError: damaged, truncated, or not the file that the JSON beside it describes.
      UserError: no such file, or a type of number that NumPy does not have.
    """
    data = open_bytes(path)
    budget = Budget(path, len(data))
    table = int.from_bytes(data[:8], "little")
    if len(data) < 8 or table > min(_MAX_TABLE, len(data) - 8):
        raise budget.refuse("damaged: its table is longer than the file, or than 16 MiB")
    _check_beside(pathlib.Path(path), budget)
    arrays = {}
    try:
        with safetensors.safe_open(path, "numpy") as file:
            metadata = file.metadata() or {}
            for name in file.keys():  # noqa: SIM118 (no mapping)
                array = file.get_tensor(name)
                wide = array.dtype == ml_dtypes.bfloat16
                arrays[name] = np.array(array, np.float32 if wide else array.dtype)
    except safetensors.SafetensorError as error:
        raise budget.refuse(f"damaged ({shown(error, 200)})") from None
    except (TypeError, KeyError, AttributeError) as error:
        raise UserError(
            f"{shown(path, 300)} has numbers of a type that NumPy has not ({shown(error)})."
        ) from None
    return arrays, _about(metadata, budget)


def _about(metadata: Mapping[str, str], budget: Budget) -> dict:
    if metadata.get("format") != FORMAT:
        return {}
    try:
        about = json.loads(metadata.get("about", ""))
    except (ValueError, RecursionError):
        about = None
    if type(about) is not dict:
        raise budget.refuse("damaged: what it says of itself is no JSON")
    return about


def _check_beside(path: pathlib.Path, budget: Budget) -> None:
    beside = path.with_suffix(".json")
    if path.suffix != ".safetensors" or not beside.is_file():
        return
    try:
        if beside.stat().st_size > _MAX_ABOUT:
            return
        content = json.loads(beside.read_bytes())
    except (OSError, ValueError, RecursionError):
        return
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        return
    if content.get("file") == path.name and content.get("sha256") != kinds.sha256(path):
        raise UnsafeFileError(
            f"{shown(path, 300)}: refused: it is not the file that {beside.name} describes."
        )
