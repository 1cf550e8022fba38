"""What is plain Python in Huawei's own torch_npu, taken from its published wheel and run over the emulated card.

Only what its C++ extension would do is done here. ``test/unit/huawei.py`` gets the wheel.
"""

import importlib
import sys
from pathlib import Path
from types import ModuleType

from torch import Tensor

import torch_npu
from torch_npu import _C

ND = 2
"The memory format of a tensor as PyTorch knows it; the private ones are not emulated."


def optimizer(folder: Path) -> type:
    """Its NpuFusedAdam; ``folder`` is the unpacked wheel."""
    torch_npu.get_npu_format = lambda tensor: ND
    torch_npu.npu_format_cast = lambda tensor, format_: tensor
    torch_npu.get_storage_size = storage_size
    torch_npu.npu_change_data_ptr = _C.change_data_ptr
    utils = package("utils", folder)
    package("_init", folder)
    combine = importlib.import_module("torch_npu.utils.combine_tensors")
    for name in combine.__all__:
        setattr(utils, name, getattr(combine, name))
    # The emulator has a module of the name optim.
    package("optim", folder, as_name="wheels_optim")
    return importlib.import_module("torch_npu.wheels_optim.npu_fused_adam").NpuFusedAdam


def storage_size(tensor: Tensor) -> int:
    """Elements of the whole storage."""
    return tensor.untyped_storage().nbytes() // tensor.element_size()


def package(name: str, folder: Path, as_name: str = "") -> ModuleType:
    """A package of the wheel without what its ``__init__.py`` does, which needs the extension."""
    module = ModuleType(f"torch_npu.{as_name or name}")
    module.__path__ = [str(folder / "torch_npu" / name)]
    sys.modules[module.__name__] = module
    setattr(torch_npu, as_name or name, module)
    return module
