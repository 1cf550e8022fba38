"""From mel spectrograms to sound: where Tacotron2 meets WaveGlow."""

import argparse
import logging
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from common.interchange import AUDIO
from common.program import Parser, UserError
from tacotron2.griffin_lim import GriffinLim
from tacotron2.synthesizer import Synthesizer
from waveglow.vocoder import Vocoder

log = logging.getLogger("infer")


def add_sound_options(parser: Parser) -> None:
    add = parser.add_argument
    add("--waveglow", metavar="FILE", help="checkpoint of WaveGlow, of any form; without it a preview by Griffin-Lim")
    add("--sigma", type=float, default=0.6, help="scale of WaveGlow's noise (default: %(default)s)")
    add("--denoiser_strength", type=float, default=0.0, help="of WaveGlow's sound; 0 = off (default); try 0.1")
    add("--seed", type=int, default=1234, help="the same seed gives the same sound (default: %(default)s)")
    add("--amp", choices=["O0", "O1", "O2"], help="precision (default: the device's)")
    add("--int8", action="store_true", help="WaveGlow's convolutions in 8-bit integers, the fastest on CPUs with VNNI")


def check_sound_options(parser: Parser, args: argparse.Namespace) -> None:
    """Exit 2 for what is out of range."""
    for name in ("sigma", "denoiser_strength", "seed"):
        if not 0 <= getattr(args, name) < 2**63:
            parser.error(f"--{name} must be at least 0 and below 2**63")


def make_vocoder(args: argparse.Namespace, synthesizer: Synthesizer) -> Callable[[Tensor], Tensor]:
    """What makes audio [T * hop_length] in -1..1 of mel [n_mel, T], both on the CPU.

    It raises UserError for audio that is not finite; this, where the two checkpoints do not fit together.
    """
    if not args.waveglow:
        log.info("no --waveglow: the sound is a preview by Griffin-Lim")
        griffin_lim = GriffinLim(synthesizer.mel)
        return lambda mel: _checked(griffin_lim.synthesize(mel, args.seed), synthesizer.path)
    vocoder = Vocoder(args.waveglow, synthesizer.device, args.amp or "", int8=args.int8)
    check_same_audio(synthesizer, args.waveglow, vocoder)
    settings = (args.sigma, args.denoiser_strength, args.seed)
    return lambda mel: _checked(vocoder.synthesize(mel, *settings), args.waveglow)


def check_same_audio(synthesizer: Synthesizer, path: str, vocoder: Vocoder) -> None:
    """UserError that names the setting and both values, if the spectrograms are not of one kind."""
    ours, theirs = (
        {name: getattr(config.data_config, name) for name in AUDIO} for config in (synthesizer.config, vocoder.config)
    )
    ours["n_mel_channels"] = synthesizer.config.tacotron2_config.n_mel_channels
    theirs["n_mel_channels"] = vocoder.config.waveglow_config.n_mel_channels
    for name in ours:
        if ours[name] != theirs[name]:
            raise UserError(
                f"the checkpoints do not fit together: {name} is {ours[name]:g} in {synthesizer.path}"
                f" and {theirs[name]:g} in {path} (NVIDIA's value where a file tells none)"
            )


def _checked(audio: Tensor, path: str | Path) -> Tensor:
    if not torch.isfinite(audio).all():
        raise UserError(f"the audio is not finite: {path} is not usable at this precision")
    return audio
