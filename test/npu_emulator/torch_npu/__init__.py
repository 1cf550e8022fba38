"""An emulated Ascend NPU in the place of Huawei's torch_npu.

With this folder's parent on PYTHONPATH, ``import torch_npu`` makes host memory look like NPUs: the device ``npu``,
``torch.npu``, the communication backend ``hccl`` and ``torch_npu.optim.NpuFusedAdam``. Every operator runs PyTorch's
CPU kernel over the device's memory, so results are those of the CPU bit for bit; random numbers are not. What a real
card could not run is refused, see ``limits``. It holds for the whole process and cannot be undone: tests use it in
processes of their own.

NPU_EMULATOR_DEVICES: how many devices there are, by default 8.
NPU_EMULATOR_CARD, NPU_EMULATOR_CANN: which card and CANN refuse, by default Ascend910A and 7.0, the strictest.
NPU_EMULATOR_SATURATES: 1 for saturating arithmetic, see ``emulator.saturating``.
NPU_EMULATOR_RANDOM: cpu for random numbers that after a seed are the CPU's.
NPU_EMULATOR_TAKEN: indices, with commas, of devices that another process has.
NPU_EMULATOR_BUILD: folder of the built C++ extension, see ``build_extension.cache_folder``.
NPU_EMULATOR_WHEEL: folder of Huawei's unpacked wheel, whose own NpuFusedAdam then takes the place of the emulated one.
NPU_EMULATOR_COUNTS: file that is given the operator and copy counts at the process's end, see ``emulator``.
"""

import importlib.util
import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
import torch.optim.optimizer as torch_optimizer
from build_extension import extension

__version__ = torch.__version__.split("+")[0] + "+emulated"


def _load():
    spec = importlib.util.spec_from_file_location("torch_npu._C", extension())
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules["torch_npu._C"] = module
    return module


# The order matters: the name before the kernels, the devices before anything asks for them.
torch.utils.rename_privateuse1_backend("npu")
_C = _load()
_C.start(int(os.environ.get("NPU_EMULATOR_DEVICES", "8")))

from torch_npu import npu  # noqa: E402

torch._register_device_module("npu", npu)
sys.modules["torch.npu"], sys.modules["torch.npu.amp"] = npu, npu.amp
torch.utils.generate_methods_for_privateuse1_backend(for_storage=True)

if dist.is_available():
    dist.Backend.register_backend(
        "hccl",
        lambda store, rank, size, timeout: _C.Hccl(dist.ProcessGroupGloo(store, rank, size, timeout)),
        devices=["npu"],
    )

from torch_npu import composites, emulator, optim  # noqa: E402

composites.register()
torch_optimizer._get_foreach_kernels_supported_devices = optim.foreach_kernels_supported_devices
emulator.refuse_as_the_card()
_C.set_saturating(os.environ.get("NPU_EMULATOR_SATURATES") == "1")
_C.draw_like_the_cpu(os.environ.get("NPU_EMULATOR_RANDOM") == "cpu")
if os.environ.get("NPU_EMULATOR_WHEEL"):
    from torch_npu import wheel

    optim.NpuFusedAdam = wheel.optimizer(Path(os.environ["NPU_EMULATOR_WHEEL"]))
emulator.write_counts_at_exit(os.environ.get("NPU_EMULATOR_COUNTS"))

__all__ = ["emulator", "npu", "optim"]
