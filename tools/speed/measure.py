"""Time one job of one implementation, in a process of its own: its memory is then its own as well."""

import json
import sys
import time
from pathlib import Path

import torch

from common import program
from common.device import Device, peak_memory, pick_device
from tools.speed import peers
from tools.speed.jobs import DATA, JOBS, Job

NVIDIA, ONNX_RUNTIME, OURS, LOADING = "NVIDIA", "ONNX Runtime", "this repository", "data loading"


def make_job(job: str, implementation: str, precision: str, device: Device, folder: Path) -> Job:
    """folder: of the peers' checkouts for NVIDIA's implementation, of models for ONNX Runtime."""
    if implementation == OURS:
        return JOBS[job](device, precision)
    if implementation == LOADING:
        return DATA[job](device, precision)
    network, _, what = job.partition("-")
    if implementation == NVIDIA:
        make = {"waveglow": peers.nvidia_waveglow, "tacotron2": peers.nvidia_tacotron2}[network]
        return make(folder, device, what == "train", precision)
    make = {"waveglow": peers.onnxruntime_waveglow, "tacotron2": peers.onnxruntime_tacotron2}[network]
    return make(folder, {"float32": "force_float32", "int8": "int8"}[precision])


def time_job(job: Job, device: Device, repeats: int) -> dict:
    """Units, the seconds of each repeat behind a warm-up of two calls, and the peak of memory in bytes."""
    for _ in range(2):
        job.work()
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        job.work()
        seconds.append(time.perf_counter() - began)
    return {"units": job.units, "seconds": seconds, "peak_memory": peak_memory(device)}


def main() -> None:
    """Arguments and result are JSON, for tools/benchmark.py alone."""
    asked = json.loads(sys.argv[1])
    device = pick_device(asked["device"])
    torch.manual_seed(0)
    job = make_job(asked["job"], asked["implementation"], asked["precision"], device, Path(asked["folder"]))
    print(json.dumps(time_job(job, device, asked["repeats"])))


if __name__ == "__main__":
    program.run(main)
