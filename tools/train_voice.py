"""Train a voice's two models at once on one CUDA card: python tools/train_voice.py --help"""

import argparse
import logging
import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import ModuleType

# As a script, Python looks for modules in tools/ only.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import common  # isort: skip  # noqa: F401 - before torch, see there
import torch
from torch import Tensor

import tacotron2.config
import waveglow.config
from common import program
from common.checkpoints.interchange import read
from common.config_reading import load_config
from common.cuda_graph import Stream
from common.device import Device, pick_device
from common.files import make_output_folder
from common.folder_lock import hold_folder
from common.log import open_log
from common.program import StopSignal, UserError
from common.training.finetuning import starting_weights
from common.training.main import make_run
from common.training.run import Run
from common.voices import checkpoint_of
from tacotron2.loss import Tacotron2Loss
from tools.voice.corpus_on_card import Batch, Corpus, Segments, Utterances, load_corpus
from tools.voice.graphed_step import graphed_step
from tools.voice.timed_training import Step, train
from waveglow.conditioning import interpolation
from waveglow.loss import WaveGlowLoss
from waveglow.train import LOWEST_STD

log = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parents[1]
DESCRIPTION = """\
Train WaveGlow and Tacotron2 on a corpus for some minutes, both at once on one CUDA card.

The corpus lies in the card's memory, and a training step is one CUDA graph. That is many times as fast as the
scripts of test/, and has none of their features: no resuming, no validation, one card. The learning rate falls to
zero over the second half of the time. OUT gets tacotron2_<steps> and waveglow_<steps>, checkpoints for
tools/make_voice.py and tools/synthesize.py, and to train on from with --checkpoint_path."""

EXAMPLES = """\
  python tools/make_corpus.py corpus --hours=22
  python tools/train_voice.py corpus checkpoints --minutes=8
  python tools/make_voice.py anna --tacotron2=checkpoints/tacotron2_3620 --waveglow=checkpoints/waveglow_18168
  python tools/train_voice.py recordings out --minutes=2 --tacotron2=heart/tacotron2 --waveglow=heart/waveglow"""

LENGTHS = 8
"Lengths of Tacotron2's batches: a graph for each."


def main() -> None:
    args = read_arguments()
    open_log(None, quiet=False)
    hold_folder(make_output_folder(args.output_directory))
    device = pick_device(args.device)
    if device.type == "npu":
        raise UserError("this program makes CUDA graphs: on an NPU train with bash test/train_full_8p.sh")
    # bfloat16 needs no loss scale, which a graph could not adapt.
    device = replace(device, half=torch.bfloat16)
    runs = [start(args, "tacotron2", tacotron2.config, device), start(args, "waveglow", waveglow.config, device)]
    if {run.precision.level for run in runs} == {"O0", "TF32"}:
        raise UserError(
            "amp O0 and TF32 do not go together, since a process rounds or does not: take one in both configs"
        )
    corpus = load_corpus(args.data_path, runs[0].config, device)
    streams = [Stream(device, first=run is runs[0]) for run in runs]
    steps = [tacotron2_step(runs[0], corpus, streams[0]), waveglow_step(runs[1], corpus, streams[1])]
    stop = StopSignal(signal.SIGINT, signal.SIGTERM)
    until = time.time() + 60 * args.minutes
    with ThreadPoolExecutor(len(runs)) as pool:
        trainings = [pool.submit(train, *each, until, stop) for each in zip(runs, steps, streams)]
    for training in trainings:
        training.result()


def read_arguments() -> argparse.Namespace:
    parser = program.Parser(DESCRIPTION, EXAMPLES)
    add = parser.add_argument
    add("data_path", metavar="CORPUS", help="folder with wavs/*.wav and metadata.csv")
    add("output_directory", metavar="OUT", help="folder for the checkpoints")
    add("--minutes", type=float, default=8.0, metavar="M", help="of training (default: %(default)g)")
    for name in ("tacotron2", "waveglow"):
        add(
            f"--{name}_config", default=str(ROOT / f"configs/{name}_card.json"), metavar="FILE",
            help=f"default: configs/{name}_card.json",
        )  # fmt: skip
        add(f"--{name}", metavar="FILE", help=f"begin with these weights, of any form, or of a voice: heart/{name}")
    add("--device", default="cuda", help="cuda, or cpu to try it out (default: %(default)s)")
    args = parser.parse_args()
    if not 0 < args.minutes < float("inf"):
        parser.error(f"--minutes is {args.minutes}, must be above 0")
    return args


def start(args: argparse.Namespace, name: str, package: ModuleType, device: Device) -> Run:
    """A run from fresh weights, or from those of a checkpoint."""
    config = load_config(getattr(args, f"{name}_config"), package.Config)
    config.train_config.output_directory = args.output_directory
    if not config.train_config.ema_decay or config.train_config.amp == "O2":
        raise UserError(f"--{name}_config: train_config needs an ema_decay above 0, and another amp than O2, here")
    run = make_run(name, config, package.build_model, device)
    if not run.optimizer.param_groups[0].get("fused"):
        raise UserError("this program needs PyTorch's fused Adam, which CPUs have from PyTorch 2.4 on")
    if origin := getattr(args, name):
        origin = checkpoint_of(origin)
        checkpoint = read(origin, name)
        begin = starting_weights(origin, checkpoint, config, run.model, run.precision.model_state(run.model))
        run.model.load_state_dict(begin.weights)
        run.progress.finetuned_from = str(origin)
        if run.average:
            run.average.restart()
    return run


def tacotron2_step(run: Run, corpus: Corpus, stream: Stream) -> Step:
    config, model = run.config, run.model
    criterion = Tacotron2Loss(config.train_config.guided_attention, config.tacotron2_config.n_frames_per_step)
    utterances = Utterances(corpus, config, run.device, LENGTHS)

    def loss(batch: Batch) -> Tensor:
        return criterion(model(**batch), batch["text_lengths"], batch["mel"], batch["mel_lengths"])

    steps: list[Callable] = []
    for batch in utterances.first_batches():
        steps.append(graphed_step(run, stream, loss, batch))
        log.info("tacotron2: %d symbols, %d frames", batch["text"].shape[1], batch["mel"].shape[2])
    batches = utterances.batches()

    def step() -> tuple[Tensor, Tensor]:
        number, batch = next(batches)
        return steps[number](batch)

    return step


def waveglow_step(run: Run, corpus: Corpus, stream: Stream) -> Step:
    segments, criterion, model = Segments(corpus, run.config, run.device), WaveGlowLoss(), run.model
    if not run.progress.finetuned_from:
        start_as_interpolation(run, segments)
    # This reads weights back from the card, which a graph cannot do; the weights are fixed.
    interpolates = model.upsample.interpolates()
    model.upsample.interpolates = lambda: interpolates
    graphed = graphed_step(run, stream, lambda batch: criterion(model(**batch)), segments.batch())
    return lambda: graphed(segments.batch())


@torch.no_grad()
def start_as_interpolation(run: Run, segments: Segments) -> None:
    """Give the upsampling its first weights, as ``waveglow.train`` does."""
    mel = torch.cat([segments.batch()["mel"] for _ in range(8)]).transpose(0, 1).flatten(1).cpu()
    upsample = run.model.upsample
    weight, bias = interpolation(
        mel.mean(1), mel.std(1).clamp_min(LOWEST_STD), upsample.kernel_size[0], upsample.stride[0]
    )
    upsample.weight.copy_(weight)
    upsample.bias.copy_(bias)
    if run.average:
        run.average.restart()


if __name__ == "__main__":
    program.run(main)
