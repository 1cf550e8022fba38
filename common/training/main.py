"""The frame of a training program: read the options, set up, run the loop, report."""

import argparse
import logging
import signal
from collections.abc import Callable

import torch

from common import distributed, program
from common.checkpoints import TITLES
from common.config import AnyConfig, BaseConfig
from common.device import Device, keep_freed_memory, pick_device
from common.files import make_output_folder
from common.folder_lock import hold_folder
from common.layers.channels_last import use_channels_last
from common.layers.matmul import is_slow_in_half
from common.layers.npu import patch_for_npu
from common.options import add_run_options, add_training_options, configure, start_log
from common.precision import HALF, amp_level, make_precision
from common.result_files import Results
from common.training.agreement import agree_on_start, facts_of_start
from common.training.averaging import WeightAverage
from common.training.loop import Summary, Task, train
from common.training.run import AnyModel, Progress, Run

log = logging.getLogger(__name__)


def training_parser(name: str, config_type: type[BaseConfig], examples: str) -> program.Parser:
    """The options of a training program; ``name`` is waveglow or tacotron2."""
    parser = program.Parser(f"Train {TITLES[name]} on a folder of wavs, or finetune it.", examples)
    add_run_options(parser)
    add_training_options(parser, f"configs/{name}.json", config_type)
    return parser


def train_program(
    name: str,
    config_type: type[AnyConfig],
    build_model: Callable[[AnyConfig], AnyModel],
    make_task: Callable[[Run[AnyConfig, AnyModel], str], Task],
    args: argparse.Namespace,
) -> None:
    """Train as the options of ``training_parser`` say.

    ``build_model(config)`` has fresh weights; ``make_task(run, data_path)`` gives datasets, loss and validation.
    """
    start_log(args)
    stop = program.StopSignal(signal.SIGTERM)
    config = configure(args, config_type)
    settings = config.train_config
    make_output_folder(settings.output_directory)
    ranks = distributed.ranks()
    device = pick_device(args.device, args.device_id or ranks.local_rank)
    log.info("device: %s (%s), %d process(es)", device.torch_device, device.why, ranks.world_size)
    facts = facts_of_start(name, config, args.resume, args.case) if ranks.world_size > 1 else {}
    distributed.start(device, settings.hang_limit, facts)
    distributed.first_ranks(lambda: hold_folder(settings.output_directory, "--output_directory"))

    with distributed.naming_the_absent():
        run = make_run(name, config, build_model, device, args.case)
        task = make_task(run, args.data_path)
        run.start(args.resume)
        agree_on_start(run.model, run.precision, run.progress.iteration)
        summary = train(run, task, stop)
    if summary.stopped:
        log.warning("stopped at iteration %d; the same command goes on from there", summary.iteration)
    log.info("final validation loss:%.6f", summary.validation_loss)
    distributed.stop()
    if ranks.rank == 0:
        results_of(run, summary, f"{TITLES[name]}_for_PyTorch", args.case).write(args)


def make_run(
    name: str, config: AnyConfig, build_model: Callable[[AnyConfig], AnyModel], device: Device, case: str = "acc"
) -> Run[AnyConfig, AnyModel]:
    """A run with fresh weights, the same on every process and device."""
    settings = config.train_config
    keep_freed_memory(device)
    torch.manual_seed(settings.seed)
    model = build_model(config).to(device.torch_device)
    # Each process draws its own dropout masks.
    torch.manual_seed(settings.seed + 1 + distributed.ranks().rank)
    crossings = patch_for_npu(model, config.npu_config, device)
    use_channels_last(model, device)
    level = amp_level(settings.amp, settings.fp16_run, device)
    if level in HALF and is_slow_in_half(device):
        log.warning("this processor has no bfloat16, which %s computes in: --amp=O0 is several times as fast", level)
    precision = make_precision(level, settings.loss_scale, device, model)
    optimizer = precision.make_optimizer(settings.learning_rate, settings.weight_decay)
    average = WeightAverage(settings.ema_decay, model, precision) if settings.ema_decay else None
    return Run(name, config, device, model, precision, optimizer, average, crossings, Progress(case=case))


def results_of(run: Run, summary: Summary, network: str, case: str) -> Results:
    return Results(
        network=network,
        rank_size=distributed.ranks().world_size,
        batch_size=run.config.train_config.batch_size,
        case=case,
        fps=summary.clips_per_second,
        samples_per_second=summary.samples_per_second,
        iteration_seconds=summary.step_seconds,
        losses=run.progress.losses[len(run.progress.losses) - run.progress.steps :],
    )
