"""Speak on all devices, and keep what each has measured."""

import argparse
import logging
from pathlib import Path

from tools.deploy.artifacts import Contents
from tools.deploy.checkpoints import RANDOM
from tools.deploy.infer_python.devices import run_on_devices
from tools.deploy.infer_python.latency import DeviceResult, Run
from tools.deploy.infer_python.requests import of_sentence, of_text
from tools.deploy.infer_python.worker import Work

log = logging.getLogger(__name__)


def measure(
    args: argparse.Namespace, folder: Path, contents: Contents, batch: int, text: list[str] | None = None
) -> Run:
    """Speak the text, or the sentence, on all devices; sizes as the engines were built for."""
    if text is not None:
        shares = of_text(text, contents, batch, args.devices, args.seed, args.output)
    else:
        alphabet = contents.tacotron2.data_config.alphabet
        shares = of_sentence(args.il, batch, args.num_iters, args.devices, args.seed, args.output, alphabet)
    works = [
        Work(
            folder, contents, device, len(shares), warmup=batches[:1] * args.warmup_iters, batches=batches,
            sigma=contents.sigma if args.sigma is None else args.sigma, with_waveglow=not args.no_waveglow,
        )
        for device, batches in shares.items()
    ]  # fmt: skip
    log.info("%s engines of %s, batch %d", contents.quant_mode, folder, batch)
    results = run_on_devices(works)
    warn_of_endless(results, contents)
    return Run(
        engine=contents.engine,
        quant_mode=contents.quant_mode,
        batch=batch,
        input_length=None if text is not None else args.il,
        weights={kind: source.path for kind, source in contents.sources.items()},
        cost=contents.cost,
        devices=results,
    )


def warn_of_endless(results: dict[int, DeviceResult], contents: Contents) -> None:
    """Warn of clips that did not end by themselves. With random weights none does."""
    iterations = [iteration for measured in results.values() for iteration in measured.iterations]
    endless = sum(iteration.endless for iteration in iterations)
    if endless and contents.sources["tacotron2"].path != RANDOM:
        clips = sum(iteration.batch for iteration in iterations)
        log.warning("%d of %d clips find no end and are cut off at the limit of frames", endless, clips)
