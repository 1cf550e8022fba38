"""Weights as 8-bit integers, which every engine on a CPU has."""

import numpy as np


def quantize_weight(values: np.ndarray, axes: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Integers from -127 to 127 and their scale, one for all along the axes."""
    scale = np.abs(values).max(axes, keepdims=True) / np.float32(127)
    scale[scale == 0] = 1
    return np.round(values / scale).astype(np.int8), scale.squeeze(axes)
