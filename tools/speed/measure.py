"""Time one job of one implementation; as a program, in a process of its own: its memory is then its own as well."""

import json
import sys
import time
from dataclasses import replace
from math import prod
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from common import program
from common.device import Device, peak_memory, pick_device, reset_peak_memory
from common.layers.matmul import constant_linear
from tools.speed import examples, peers
from tools.speed.jobs import DATA, JOBS, Job, set_rounding

NVIDIA, ONNX_RUNTIME, OURS, LOADING = "NVIDIA", "ONNX Runtime", "this repository", "data loading"
NVIDIA_EXAMPLES = "DeepLearningExamples"
PEAK, PYTORCH = "matrix product", "PyTorch"


def make_job(job: str, implementation: str, precision: str, batch: int, device: Device, folder: Path) -> Job:
    """folder: of the peers' checkouts for NVIDIA's implementations, of models for ONNX Runtime."""
    if implementation == OURS:
        return JOBS[job](device, precision, batch)
    if implementation == LOADING:
        return DATA[job]()
    if implementation == PYTORCH:
        return matrix_product(device, precision)
    network, _, what = job.partition("-")
    if implementation == NVIDIA:
        make = {"waveglow": peers.nvidia_waveglow, "tacotron2": peers.nvidia_tacotron2}[network]
        return make(folder, device, what == "train", precision, batch)
    if implementation == NVIDIA_EXAMPLES:
        make = {"waveglow": examples.examples_waveglow, "tacotron2": examples.examples_tacotron2}[network]
        return make(folder, device, what == "train", precision, batch)
    make_from_graphs = {"waveglow": peers.onnxruntime_waveglow, "tacotron2": peers.onnxruntime_tacotron2}[network]
    return make_from_graphs(folder, {"float32": "force_float32", "int8": "int8"}[precision])


def matrix_product(device: Device, precision: str) -> Job:
    """Peak of the device: the product of two large matrices. Units: floating-point operations."""
    size = 2048 if device.type == "cpu" else 8192
    x = torch.randn(size, size, device=device.torch_device)
    x = x if precision in ("float32", "tf32") else x.to(device.half)
    product = constant_linear(x)
    return Job(lambda: product(x)[0, 0].item(), 2 * size**3)


def time_job(job: Job, device: Device, repeats: int) -> dict:
    """Units, the seconds of each repeat after a warm-up of two calls, and the peak of memory in bytes."""
    for _ in range(2):
        job.work()
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        job.work()
        seconds.append(time.perf_counter() - began)
    return {"units": job.units, "seconds": seconds, "peak_memory": peak_memory(device)}


def count_operations(job: Job) -> int:
    """Floating-point operations of a call, in its convolutions and matrix products."""
    packed = getattr(torch.ops.mkldnn, "_linear_pointwise", None)  # where PyTorch has oneDNN
    unknown = {packed: lambda x, *_, out_shape, **__: 2 * prod(x) * out_shape[-1]} if packed else {}
    with FlopCounterMode(display=False, custom_mapping=unknown) as counter:
        job.work()
    return counter.get_total_flops()


def is_counted(implementation: str, precision: str) -> bool:
    """Whether its operations are what the job needs: those on integers go uncounted, and some are done twice."""
    return implementation == OURS and precision in ("float32", "tf32", "bf16", "half")


def measured(
    job: str, implementation: str, precision: str, batch: int, device: Device, folder: Path, repeats: int
) -> dict:
    """What ``time_job`` finds, and the operations of a call, 0 where they are not counted."""
    torch.manual_seed(0)
    reset_peak_memory(device)
    if precision == "bf16":
        device = replace(device, half=torch.bfloat16)
    made = make_job(job, implementation, precision, batch, device, folder)
    # After the model is made, which may ask for exact products.
    set_rounding(precision, device)
    found = time_job(made, device, repeats)
    found["operations"] = 0
    if is_counted(implementation, precision):
        # On a CPU a single row is multiplied twice in bfloat16 (``constant_linear``).
        again = device.type == "cpu" and precision != "float32"
        counted = make_job(job, implementation, "float32", batch, device, folder) if again else made
        found["operations"] = count_operations(counted)
    return found


def main() -> None:
    """Arguments and result are JSON, for tools/benchmark.py alone."""
    asked = json.loads(sys.argv[1])
    asked["device"], asked["folder"] = pick_device(asked["device"]), Path(asked["folder"])
    print(json.dumps(measured(**asked)))


if __name__ == "__main__":
    program.run(main)
