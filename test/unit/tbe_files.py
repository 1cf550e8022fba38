"""CANN's three operator files as the tests write them, in the forms that CANN's have: a plugin of these tests, for its
fixtures."""

import json
import os
import sys
from pathlib import Path

import pytest

from conftest import ROOT
from tools import patch_tbe
from tools.tbe import find_cann
from tools.tbe.lists import PLACES

TRANSPOSE, FOUR_2_FIVE, FIVE_2_FOUR = PLACES
TRANS_DATA = (FOUR_2_FIVE, FIVE_2_FOUR)
SHAPES = json.loads((ROOT / "configs/tbe_whitelist.json").read_text())
OLD, NEW = "op_impl/built-in/ai_core/tbe/impl", "built-in/op_impl/ai_core/tbe/impl"

# (what stands before the list, the list, what stands behind it) of each file
FORMS = {
    TRANSPOSE: (
        '''"""
transpose
"""
from functools import reduce


def _fuzzy_match(shape_t):
    white_list_shape_fuzzy =  [
                               #A NET
                               [-1, 12, 197, 64], [-1, 1, 1, 256]
                              ]
    white_list_shape = [[77, 77]]
    return shape_t in white_list_shape or shape_t in white_list_shape_fuzzy


class Other:
    def _by_dynamic_static_union_version(self, shape, core_num):
        white_list_shape = [[55, 55]]
        return shape in white_list_shape


def _by_dynamic_static_union_version(shape, core_num):
    """
    temporary function, for dynamic & static union version not fully verified
    white_list_shape = [[66, 66]]
    """
    if core_num == 1:
        white_list_shape_lhisi = [[1, 24, 3, 20]]
        shape_t_lhisi = list(shape)
        if shape_t_lhisi in white_list_shape_lhisi:
            return True
        return False

    white_list_shape = ''',
        """[
                         [2, 512, 1024], [1024, 91], [2, 512, 1024],  [256, 784, 91],
                         [160, 160, 3, 3,], [1100], \x20
                         [3, 256, 16, 64], [8, 3, 20, 20, 85]
                       ]""",
        """
    shape_t = list(shape)
    if shape_t in white_list_shape:
        return True
    black_list_shape = [[4, 8732]]
    return _fuzzy_match(shape_t)


def use(shape):
    return _by_dynamic_static_union_version(shape, 32)
""",
    ),
    FOUR_2_FIVE: (
        '''"""
four_2_five
"""


def four_2_five(src, dst, src_format, dst_format, kernel_name="four_2_five"):
    """if src_format.upper() == "NCHW" and shape_input in [[1]] and dtype_input == "float16":"""
    shape_input = list(src.get("shape"))
    dtype_input = src.get("dtype").lower()
    if src_format.upper() == "NHWC" and shape_input in [[8, 640, 640, 3]] and dtype_input == "float16":
        return "tc"
    if src_format.upper() == "NCHW" and shape_input in [[9, 9]]:
        return "tc"
    if src_format.upper() == "NCHW" and shape_input in ''',
        """[[16, 240, 7, 7], [16, 120, 14, 14],
                                                        [1, 1, 480, 720]]""",
        """ and dtype_input == "float16":
        return "fast"
    if src_format.upper() == "NCHW" and shape_input in [[5, 5]] and dtype_input == "float32":
        return "tc"
    return "slow"


def use(shape):
    return four_2_five({"shape": shape, "dtype": "float16"}, {}, "NCHW", "NC1HWC0") == "fast"
""",
    ),
    FIVE_2_FOUR: (
        '''"""
five_2_four
"""


def five_2_four(src, dst, src_format, dst_format, kernel_name='five_2_four'):
    src_shape = list(src.get("shape"))
    dst_shape = list(dst.get("shape"))
    dtype = src.get("dtype")
    if dst_format.lower() == "nchw" and \\
            dtype == "int8":
        return "v200"
    elif dst_format.lower() == "nhwc" and dst_shape in [[10000, 63, 63, 1], [10000, 127, 127, 1],
                                                        [16, 3, 3, 324]]:
        return "tc"
    # Notes: vbi only supported by 1951
    elif dst_format.lower() == "nchw" and dst_shape in ''',
        """[[2560, 512, 4, 26], [2560, 512, 1, 26], [2560, 256, 8, 25]]""",
        """:
        return "fast"
    elif dst_format.lower() == "nchw" and dtype == "float32" and dst_shape in [[200, 1, 10, 26]] and \\
            len(dst_shape) == 4:
        return "ntc"
    elif dst_format.lower() == "nchw" and \\
            src_shape in [[1, 4, 65, 65, 16], [1, 8, 33, 33, 16]] and \\
            dst_shape in [[1, 58, 65, 65], [1, 116, 33, 33]]:
        return "chw"
    else:
        return "slow"


def use(shape):
    return five_2_four({"shape": [1], "dtype": "float16"}, {"shape": shape}, "NC1HWC0", "NCHW") == "fast"
""",
    ),
}


def content(name: str, text: str | None = None) -> bytes:
    head, own, tail = FORMS[name]
    return (head + (own if text is None else text) + tail).encode()


def accepts(data: bytes, shape: list[int]) -> bool:
    """Whether the operator takes its fast way for the shape."""
    scope = {}
    exec(compile(data, "operator", "exec"), scope)
    return scope["use"](shape)


def make_cann(opp: Path, layout: str = OLD, names=PLACES) -> Path:
    """A folder opp with the operators; returns its folder impl."""
    impl = opp / layout
    (impl / "dynamic").mkdir(parents=True)
    for name in names:
        (impl / name).write_bytes(content(name))
    return impl


def state(folder: Path) -> dict[str, tuple]:
    """All that a user could see of the files."""
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mode, path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def contents(folder: Path) -> dict[str, bytes]:
    return {name: seen[0] for name, seen in state(folder).items()}


@pytest.fixture
def nowhere(monkeypatch, tmp_path):
    """A machine without CANN."""
    monkeypatch.delenv("ASCEND_OPP_PATH", raising=False)
    monkeypatch.setattr(find_cann, "INSTALL_INFO", tmp_path / "etc/ascend_cann_install.info")
    monkeypatch.setattr(find_cann, "DEFAULT_ROOT", tmp_path / "usr local/Ascend")
    monkeypatch.setattr(os, "fsync", lambda file: None)  # slow, and nothing here cuts the power
    return tmp_path


@pytest.fixture
def cann(nowhere):
    """A CANN 5.0.3: its folder impl."""
    return make_cann(find_cann.DEFAULT_ROOT / "ascend-toolkit/5.0.3/arm64-linux/opp")


@pytest.fixture
def patch(monkeypatch, capsys):
    """Run tools/patch_tbe.py; returns its exit code and what it says."""

    def run(*options):
        monkeypatch.setattr(sys, "argv", ["patch_tbe.py", *map(str, options)])
        try:
            patch_tbe.main()
            code = 0
        except SystemExit as end:
            code = end.code
        return code, capsys.readouterr().out

    return run
