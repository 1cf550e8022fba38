"""Mel spectrograms in files, as this and other programs write them."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common.checkpoints import restricted_pickle
from common.checkpoints.budget import Budget, RefusedError
from common.files import open_input
from common.program import UserError

ENDINGS = (".npy", ".npz", ".pt")


def is_mel_file(path: Path) -> bool:
    return path.suffix.lower() in ENDINGS


def read_mel(path: Path, n_mel: int) -> Tensor:
    """The mel spectrogram [n_mel, T] of a file, float32, whatever its values mean (``mel_forms``).

    The file may be ``.npy``, ``.npz`` with one array or one that is called mel, or ``.pt`` with a tensor, of any
    number format, [n_mel, T] or [1, n_mel, T]. UserError, with the file's name, for anything else and for values that
    are not finite.
    """
    mel = _as_tensor(path, _load(path))
    if mel.ndim == 3 and len(mel) == 1:
        mel = mel[0]
    if mel.ndim != 2 or mel.shape[0] != n_mel or mel.shape[1] == 0:
        is_turned = mel.ndim == 2 and mel.shape[1] == n_mel
        turn = "; the other way round, it seems: save it transposed" * is_turned
        raise UserError(f"{path} must hold a mel spectrogram [{n_mel}, T], not {list(mel.shape)}{turn}")
    finite = torch.isfinite(mel)
    if not finite.all():
        wrong, first = int((~finite).sum()), int((~finite).any(dim=0).int().argmax())
        zeros = ", as the logarithm of 0 is" * bool(mel.isneginf().any())
        raise UserError(
            f"the mel spectrogram in {path} is not finite: {wrong} of its {mel.numel()} values, the first in frame"
            f" {first}{zeros}"
        )
    return mel


def _load(path: Path) -> Any:
    try:
        with open_input(path) as file:
            if path.suffix.lower() == ".pt":
                return restricted_pickle.load(file)
            loaded = np.load(file)
            return _only_array(path, loaded) if isinstance(loaded, np.lib.npyio.NpzFile) else loaded
    except UserError:
        raise
    except RefusedError as refused:
        raise UserError(f"{path} is refused: {refused}") from refused
    except FileNotFoundError as error:
        raise UserError(f"no file {path}") from error
    except zipfile.BadZipFile as error:
        raise UserError(f"{path} is not readable as a mel spectrogram: it is cut off") from error
    except Exception as error:  # a damaged file raises nearly anything while it is unpickled
        raise UserError(f"{path} is not readable as a mel spectrogram") from error


def _only_array(path: Path, arrays: Any) -> np.ndarray:
    names = arrays.files
    if len(names) != 1 and "mel" not in names:
        raise UserError(f"{path} holds {len(names)} arrays ({', '.join(names)[:100]}): one must be called mel")
    name = "mel" if "mel" in names else names[0]
    Budget(path.stat().st_size).spend(arrays.zip.getinfo(f"{name}.npy").file_size)  # zeros are packed a thousandfold
    return arrays[name]


def _as_tensor(path: Path, loaded: Any) -> Tensor:
    """float32, whatever the bytes' order and the kind of numbers."""
    if isinstance(loaded, np.ndarray) and loaded.dtype.kind in "fiu":
        return torch.from_numpy(loaded.astype(np.float32))
    if isinstance(loaded, Tensor):  # dense and of real numbers: nothing else gets through restricted_pickle
        return loaded.float()
    kind = getattr(loaded, "dtype", type(loaded).__name__)
    raise UserError(f"{path} holds no mel spectrogram but {kind}")
