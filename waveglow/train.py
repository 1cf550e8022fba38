"""Train WaveGlow: python -m waveglow.train --help"""

import logging
from collections.abc import Iterator
from pathlib import Path

import torch
from torch.utils.data import DataLoader
from torch.utils.tensorboard import SummaryWriter

from common import distributed, program, report
from common.device import make_adam, pick_device
from common.files import make_output_folder
from common.npu import patch_for_npu
from common.options import add_run_options, add_training_options, configure, start_log
from common.precision import Precision
from common.program import UserError
from common.progress import Progress, Run
from common.results import Results
from common.training import Task, train
from waveglow.config import Config, build_mel, build_model
from waveglow.data import HeldBackSegments, ShuffledClips, TrainingSegments, find_clips, split_clips, take_census
from waveglow.loss import WaveGlowLoss

log = logging.getLogger("train")

EXAMPLES = """\
  python -m waveglow.train --data_path=LJSpeech-1.1 --output_directory=checkpoints
  python -m waveglow.train --config=configs/waveglow_demo.json --data_path=test/data/corpus --device=cpu
  python -m waveglow.train --data_path=DIR --checkpoint_path=checkpoints/waveglow_1000    (finetune)
"""

SHOWN_FRAMES = 160
"Length of the clip that TensorBoard plays: short, since training waits for it."
LOADER_TIMEOUT = 600
"Seconds after which a loader that delivers nothing is an error."


def main() -> None:
    parser = program.Parser("Train WaveGlow on a folder of wavs, or finetune it.", EXAMPLES)
    add_run_options(parser)
    add_training_options(parser, default_config="configs/waveglow.json")
    args = parser.parse_args()
    start_log(args)
    stop = program.StopSignal()
    config = configure(args, Config)
    make_output_folder(config.train_config.output_directory)
    ranks = distributed.ranks()
    device = pick_device(args.device, args.device_id or ranks.local_rank)
    log.info("device: %s (%s), %d process(es)", device.device, device.why, ranks.world_size)
    distributed.start(device)

    torch.manual_seed(config.train_config.seed)
    model = build_model(config).to(device.device)
    crossings = patch_for_npu(model, config.npu_config, device)
    level = config.train_config.amp or (device.amp if config.train_config.fp16_run else "O0")
    precision = Precision(level, config.train_config.loss_scale, device, model)
    log.info("precision: %s, loss scale %g%s", level, precision.scale, " (dynamic)" if precision.dynamic else "")
    optimizer = make_adam(precision.master_params, config.train_config.learning_rate, device)
    run = Run("waveglow", config, device, model, precision, optimizer, crossings, Progress(case=args.case))
    task = make_task(run, args.data_path)
    run.start(args.resume)

    summary = train(run, task, stop)
    if summary.stopped:
        log.warning("stopped at iteration %d; the same command goes on from there", summary.iteration)
    log.info("final validation loss:%.6f", summary.validation_loss)
    distributed.stop()
    if ranks.rank == 0:
        results = Results(
            network="WaveGlow_for_PyTorch",
            rank_size=ranks.world_size,
            batch_size=config.train_config.batch_size,
            case=args.case,
            fps=summary.clips_per_second,
            samples_per_second=summary.samples_per_second,
            iteration_seconds=summary.step_seconds,
            losses=run.progress.losses[-run.progress.steps :],
        )
        results.write(args)


def make_task(run: Run, data_path: str) -> Task:
    """Datasets, loss, validation: what the training loop asks for."""
    config, device, ranks = run.config, run.device, distributed.ranks()
    clips, held_back = split_clips(find_clips(data_path, config.data_config.training_files))
    report_census(clips + held_back, config)
    seed, batch_size = config.train_config.seed, config.train_config.batch_size
    accumulation = config.train_config.grad_accumulation
    sampler = ShuffledClips(len(clips), batch_size, accumulation, ranks.rank, ranks.world_size, seed)
    if len(clips) < sampler.clips_per_step:
        raise UserError(
            f"{len(clips)} training clips do not make one step of {sampler.clips_per_step} clips"
            f" ({batch_size} x {accumulation} x {ranks.world_size} processes): lower --batch_size"
        )
    mel = build_mel(config)
    training_set = TrainingSegments(clips, config.data_config, mel, seed)
    held_back_set = HeldBackSegments(held_back, config.data_config, mel)
    criterion = WaveGlowLoss(config.train_config.sigma)
    workers = config.train_config.workers

    def batches(epoch: int, first: int) -> Iterator[dict]:
        sampler.start_at(epoch, first)
        timeout = LOADER_TIMEOUT if workers else 0
        yield from DataLoader(training_set, batch_sampler=sampler, num_workers=workers, timeout=timeout)

    def loss(model: torch.nn.Module, batch: dict) -> torch.Tensor:
        mel, audio = (batch[name].to(device.device, run.precision.input_dtype) for name in ("mel", "audio"))
        return criterion(model(mel, audio))

    def validate() -> float:
        """Each process takes every world_size-th segment, one batch at a time."""
        own = torch.utils.data.Subset(held_back_set, range(ranks.rank, len(held_back_set), ranks.world_size))
        total = torch.zeros((), device=device.device)
        for batch in DataLoader(own, batch_size):
            with run.precision.autocast():
                total += loss(run.model, batch) * len(batch["names"])
        return distributed.sum_over_ranks(total).item() / len(held_back_set)

    def show(writer: SummaryWriter, iteration: int) -> None:
        show_sample(writer, iteration, run, held_back_set[0], mel)

    return Task(
        batches=batches,
        loss=loss,
        validate=validate,
        show=show,
        clips_per_epoch=len(clips),
        samples_per_clip=config.data_config.segment_length,
    )


def report_census(clips: list[Path], config: Config) -> None:
    """Look at all clips, each process at a share, and say what was found."""
    ranks = distributed.ranks()
    own = take_census(clips[ranks.rank :: ranks.world_size], config.data_config)
    censuses = distributed.gather_objects(own)
    total = {name: sum(getattr(census, name) for census in censuses) for name in vars(own)}
    log.info(
        "data: %(clips)d clips, %(seconds).0f s; %(short)d shorter than a segment (padded with faint noise);"
        " %(silent)d of %(segments)d segments near-silent (others are drawn instead)",
        total,
    )


def show_sample(writer: SummaryWriter, iteration: int, run: Run, item: dict, mel: torch.nn.Module) -> None:
    """Let TensorBoard play a held-back clip as synthesized now, beside the recording."""
    device, rate = run.device, run.config.data_config.sampling_rate
    target = item["mel"][:, :SHOWN_FRAMES]
    generator = torch.Generator().manual_seed(run.config.train_config.seed)
    noise = [torch.randn(shape, generator=generator) for shape in run.model.noise_shapes(1, target.shape[1])]
    to_device = lambda x: x.to(device.device, run.precision.input_dtype)  # noqa: E731
    with run.precision.autocast():
        audio = run.model.infer(to_device(target[None]), 0.6, [to_device(n) for n in noise]).float().cpu()
    writer.add_audio("clip/synthesized", audio.clamp(-1, 1), iteration, rate)
    writer.add_audio("clip/recorded", item["audio"][None, : audio.shape[1]], iteration, rate)
    figure = report.plot_spectrograms({"recorded": target, "synthesized": mel(audio)[0]})
    writer.add_figure("clip/mel spectrograms", figure, iteration)


if __name__ == "__main__":
    program.run(main)
