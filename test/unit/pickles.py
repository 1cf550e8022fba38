"""Pickles written by PyTorch or opcode by opcode."""

import struct
import zipfile
from pathlib import Path

import torch

FORMATS = {"zip": True, "legacy": False}
REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"


def save(path: Path, value, file_format: str = "zip") -> Path:
    torch.save(value, path, _use_new_zipfile_serialization=FORMATS[file_format])
    return path


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def zip_with(path: Path, pickled: bytes, compression=zipfile.ZIP_STORED, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", pickled)
        for name, data in members.items():
            archive.writestr(f"archive/{name}", data)
    return path
