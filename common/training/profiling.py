"""Where the time of a step goes: a Chrome trace, a table of operators, crossings to the host."""

import itertools
import logging
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import torch.profiler

from common.config import TrainConfig
from common.device import Device, profiler_module
from common.distributed import ranks
from common.layers.npu import Crossings

log = logging.getLogger(__name__)

ROWS = 20


def profiled(
    batches: Iterator[dict], config: TrainConfig, device: Device, crossings: Crossings
) -> Generator[dict, None, None]:
    """``batches``, with a profile of what is done with them: ``config.profile`` steps after a first one.

    Writes ``trace_<rank>.json`` and ``operators_<rank>.txt`` to ``<output_directory>/profile``; on an NPU the folder
    ``rank_<rank>_..._ascend_pt``, which holds trace and tables.
    """
    folder = Path(config.output_directory, "profile")
    folder.mkdir(parents=True, exist_ok=True)
    module = profiler_module(device)
    kinds = {"CPU", device.type.upper()}
    activities = [getattr(module.ProfilerActivity, kind) for kind in kinds if hasattr(module.ProfilerActivity, kind)]
    schedule = module.schedule(wait=0, warmup=1, active=config.profile, repeat=1)
    # Made before the profile: otherwise an NPU would begin its folder in the working directory.
    write_folder = module.tensorboard_trace_handler(str(folder), worker_name=f"rank_{ranks().rank}")

    def report(profile: Any) -> None:
        if module is torch.profiler:
            _report(profile, folder, device)
        else:
            write_folder(profile)
            log.info("profile: %s", folder)

    with module.profile(activities=activities, schedule=schedule, on_trace_ready=report) as profile:
        for steps in itertools.count(1):
            before = Crossings(**vars(crossings))
            # A step is done when the next one asks for its first batch.
            yield from itertools.islice(batches, config.grad_accumulation)
            profile.step()
            if steps <= config.profile + 1:
                _log_crossings(before, crossings)


def _log_crossings(before: Crossings, now: Crossings) -> None:
    log.info(
        "crossings between device and host: %d, %.1f MB, %.1f ms; computing on the host: %.1f ms",
        now.count - before.count, (now.bytes - before.bytes) / 1e6, (now.seconds - before.seconds) * 1e3,
        (now.host_seconds - before.host_seconds) * 1e3,
    )  # fmt: skip


def _report(profile: Any, folder: Path, device: Device) -> None:
    """The trace and the table of torch.profiler."""
    trace = folder / f"trace_{ranks().rank}.json"
    profile.export_chrome_trace(str(trace))
    log.info("profile: %s (open it in a Chromium browser at chrome://tracing, or in Perfetto)", trace)
    sort_by = f"self_{'cuda' if device.type == 'cuda' else 'cpu'}_time_total"
    table = profile.key_averages().table(sort_by=sort_by, row_limit=ROWS)
    (folder / f"operators_{ranks().rank}.txt").write_text(table)
    log.info("%s", table)
