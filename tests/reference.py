"""Layers of PyTorch networks in slow NumPy, float64, [N, C, H, W], by the names of a state dict."""

import importlib.util

import golden
import numpy as np


def arrays_like(arrays, seed=0):
    """Random arrays of the same names and shapes; scales and variances near 1, the rest small."""
    rng = np.random.default_rng(seed)
    made = {}
    for name, array in arrays.items():
        if name.endswith("num_batches_tracked"):
            made[name] = np.asarray(7)
        elif name.endswith("running_var") or (name.endswith("weight") and np.ndim(array) == 1):
            made[name] = rng.uniform(0.5, 1.5, np.shape(array)).astype(np.float32)
        else:
            spread = 0.2 if np.ndim(array) < 2 else 1 / np.sqrt(np.prod(np.shape(array)[1:]))
            made[name] = rng.normal(0, spread, np.shape(array)).astype(np.float32)
    return made


def _shift(arrays, name):
    return arrays.get(f"{name}.bias", np.zeros(1)).astype(np.float64).reshape(1, -1, 1, 1)


def conv(x, arrays, name, stride=1, padding=0):
    """Tap by tap. Padding with zeros, on all sides."""
    weight = arrays[f"{name}.weight"].astype(np.float64)
    k = weight.shape[-1]
    x = np.pad(x, ((0, 0), (0, 0), (padding,) * 2, (padding,) * 2))
    rows, columns = ((side - k) // stride + 1 for side in x.shape[2:])
    y = 0
    for i in range(k):
        for j in range(k):
            part = x[:, :, i : i + rows * stride : stride, j : j + columns * stride : stride]
            part = part[:, :, :rows, :columns]
            y = y + np.einsum("nchw,oc->nohw", part, weight[:, :, i, j])
    return y + _shift(arrays, name)


def conv_transpose(x, arrays, name, stride, padding, output_padding=0):
    """Every input pixel adds its kernel to the output, from whose sides `padding` is then cut."""
    weight = arrays[f"{name}.weight"].astype(np.float64)
    k = weight.shape[-1]
    n, _, height, width = x.shape
    reach = lambda side: (side - 1) * stride + k + output_padding
    y = np.zeros((n, weight.shape[1], reach(height), reach(width)))
    for i in range(k):
        for j in range(k):
            rows, columns = (
                slice(i, i + height * stride, stride),
                slice(j, j + width * stride, stride),
            )
            part = np.einsum("nchw,co->nohw", x, weight[:, :, i, j])
            y[:, :, rows, columns][:, :, :height, :width] += part
    y = y[:, :, padding : y.shape[2] - padding, padding : y.shape[3] - padding]
    return y + _shift(arrays, name)


def normalize(x, arrays, name, train=False):
    """Batch normalisation where the state dict has one of this name, else that of each image."""
    if f"{name}.weight" not in arrays:
        mean, var = x.mean((2, 3), keepdims=True), x.var((2, 3), keepdims=True)
        return (x - mean) / np.sqrt(var + 1e-5)
    part = {k: arrays[f"{name}.{k}"].astype(np.float64).reshape(1, -1, 1, 1) for k in
            ("weight", "bias", "running_mean", "running_var")}  # fmt: skip
    mean, var = part["running_mean"], part["running_var"]
    if train:
        mean, var = x.mean((0, 2, 3), keepdims=True), x.var((0, 2, 3), keepdims=True)
    return (x - mean) / np.sqrt(var + 1e-5) * part["weight"] + part["bias"]


def leaky(x):
    return np.where(x > 0, x, 0.2 * x)


def relu(x):
    return np.maximum(x, 0)


def from_recipe(meta):
    """State dict of a reference network that is kept as a recipe of seeded random numbers."""
    spec = importlib.util.spec_from_file_location("recipe", golden.path() / "recipe.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.build(meta["recipe"], meta["seed"])
