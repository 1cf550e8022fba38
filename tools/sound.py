"""From mel spectrograms to sound: where Tacotron2 meets WaveGlow."""

import argparse
import logging
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

import tacotron2.config
import waveglow.config
from common.checkpoints.interchange import AUDIO
from common.config import AMP_LEVELS
from common.hints import Hints, add_hint_options, read_hints
from common.program import Parser, UserError
from common.voices import DEFAULT, Settings, find_voice
from tacotron2.griffin_lim import GriffinLim
from tacotron2.synthesizer import Synthesizer
from waveglow.vocoder import Vocoder

log = logging.getLogger(__name__)


def add_sound_options(parser: Parser) -> None:
    add = parser.add_argument
    add("--voice", metavar="NAME", help=f"a folder of voices/, where no checkpoint is named (default: {DEFAULT})")
    add("--tacotron2", metavar="FILE", help="checkpoint of Tacotron2, of any form")
    add("--waveglow", metavar="FILE", help="that of WaveGlow; with --tacotron2 alone you hear a Griffin-Lim preview")
    add("--sigma", type=float, help="scale of WaveGlow's noise (default: the voice's, or 0.6)")
    add("--denoiser_strength", type=float, help="0 = off (default: the voice's, or off); try 0.1")
    add("--cleaners", metavar="NAME,...", help="how texts are read (default: the voice's, else those of the training)")
    add("--seed", type=int, default=1234, help="the same seed gives the same sound (default: %(default)s)")
    add("--amp", choices=AMP_LEVELS, help="precision (default: the device's)")
    add("--int8", action="store_true", help="WaveGlow's convolutions in 8-bit integers, the fastest on CPUs with VNNI")
    add_hint_options(parser, speech=True)


def check_sound_options(parser: Parser, args: argparse.Namespace) -> None:
    """Fill in what is not given, the checkpoints by those of the voice. Exit 2 for what is out of range."""
    if args.voice and args.tacotron2:
        parser.error("--voice and --tacotron2 exclude each other: a voice has its own")
    settings = Settings()
    if not args.tacotron2:
        voice = find_voice(args.voice or "")
        args.tacotron2, args.waveglow = voice.tacotron2, args.waveglow or voice.waveglow
        settings = voice.settings
    args.cleaners = settings.text_cleaners if args.cleaners is None else args.cleaners.split(",")
    for name in ("sigma", "denoiser_strength"):
        if getattr(args, name) is None:
            setattr(args, name, getattr(settings, name))
    for name in ("sigma", "denoiser_strength", "seed"):
        if not 0 <= getattr(args, name) < 2**63:
            parser.error(f"--{name} must be at least 0 and below 2**63")


def hints_for_both(args: argparse.Namespace) -> Hints:
    """What the options say of either checkpoint."""
    return read_hints(args, [tacotron2.config.Config, waveglow.config.Config])


def make_vocoder(
    args: argparse.Namespace, synthesizer: Synthesizer, hints: Hints | None = None
) -> Callable[[Tensor], Tensor]:
    """A function from mel [n_mel, T] to audio [T * hop_length] in -1..1, both on the CPU.

    That raises UserError for audio that is not finite; this one, where the two checkpoints do not fit together.
    """
    if not args.waveglow:
        log.info("no --waveglow: the sound is a preview by Griffin-Lim")
        griffin_lim = GriffinLim(synthesizer.mel)
        return lambda mel: _checked(griffin_lim.synthesize(mel, args.seed), synthesizer.path)
    vocoder = Vocoder(args.waveglow, synthesizer.device, args.amp or "", int8=args.int8, hints=hints)
    check_same_audio(synthesizer.config, synthesizer.path, vocoder.config, args.waveglow)
    settings = (args.sigma, args.denoiser_strength, args.seed)
    return lambda mel: _checked(vocoder.synthesize(mel, *settings), args.waveglow)


def check_same_audio(
    spoken: tacotron2.config.Config, spoken_by: str | Path, heard: waveglow.config.Config, heard_by: str | Path
) -> None:
    """UserError that names the setting, both values and both checkpoints, if the spectrograms are not of one kind."""
    ours, theirs = ({name: getattr(config.data_config, name) for name in AUDIO} for config in (spoken, heard))
    ours["n_mel_channels"] = spoken.tacotron2_config.n_mel_channels
    theirs["n_mel_channels"] = heard.waveglow_config.n_mel_channels
    for name in ours:
        if ours[name] != theirs[name]:
            raise UserError(
                f"the checkpoints do not fit together: {name} is {ours[name]:g} in {spoken_by}"
                f" and {theirs[name]:g} in {heard_by} (NVIDIA's value where a file gives none)"
            )


def _checked(audio: Tensor, path: str | Path) -> Tensor:
    if not torch.isfinite(audio).all():
        raise UserError(f"the audio is not finite: {path} is not usable at this precision")
    return audio
