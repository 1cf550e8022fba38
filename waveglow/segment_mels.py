"""The mel spectrograms that segments are learned with: the recordings' own, or Tacotron2's predictions of them."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from common.audio import ClipError, Fault, MelSpectrogram
from common.corpus import name_key
from common.mel_files import is_mel_file, read_mel
from common.mel_forms import guess_form
from common.program import UserError
from waveglow.config import DataConfig

MEANS_APART = 1.0
"Predictions of speech are within 0.1 of the recordings' mean; decibels, common logarithms and so on are far from it."


class GivenMels:
    """A folder with a mel spectrogram for each clip, by its name: ``a.npy``, or ``a.wav.pt``, for ``a.wav``.

    UserError if the folder is not there or holds none.
    """

    def __init__(self, folder: str | Path, n_mel: int):
        self.folder, self.n_mel = Path(folder), n_mel
        if not self.folder.is_dir():
            raise UserError(f"mels_path {folder} is no folder")
        self.paths = {name_key(path.stem): path for path in sorted(self.folder.iterdir()) if is_mel_file(path)}
        if not self.paths:
            raise UserError(
                f"mels_path {folder} holds no mel spectrogram (.npy, .npz, .pt):"
                " python -m tacotron2.infer --teacher_forced writes those of a corpus"
            )

    def __call__(self, clip: Path) -> Tensor:
        """The mel [n_mel, T] of a clip. ClipError if there is none that can be read."""
        try:
            return read_mel(self._path(clip), self.n_mel)
        except ClipError:
            raise
        except UserError as error:
            raise ClipError(str(error), Fault.MEL) from error

    def _path(self, clip: Path) -> Path:
        path = self._find(clip)
        if not path:
            raise ClipError(f"{clip} has no mel spectrogram in {self.folder}", Fault.MEL)
        return path

    def _find(self, clip: Path) -> Path | None:
        return self.paths.get(name_key(clip.stem)) or self.paths.get(name_key(clip.name))

    def of(self, clips: Iterable[Path]) -> dict[str, Path]:
        """The files of these clips, as far as they are there, by the clips' names."""
        found = ((clip, self._find(clip)) for clip in clips)
        return {f"the mel spectrogram of {clip.name}": path for clip, path in found if path}

    def check(self, clip: Path, recorded: Tensor) -> None:
        """ClipError unless a clip has a mel that can belong to its recording, whose own is ``recorded`` [n_mel, T]."""
        mel, path = self(clip), self._path(clip)
        if mel.shape != recorded.shape:
            raise ClipError(f"{path} has {mel.shape[1]} frames, {clip} has {recorded.shape[1]}", Fault.MEL)
        ours, theirs = mel.mean().item(), recorded.mean().item()
        if abs(ours - theirs) > MEANS_APART:
            guess = guess_form(mel)
            what = f" (it looks like {guess[0]})" if guess else ""
            raise ClipError(
                f"{path} is no natural-log mel spectrogram of {clip}: its mean is {ours:.4g}, the recording's"
                f" {theirs:.4g}{what}",
                Fault.MEL,
            )


class SegmentMels:
    """The mel spectrograms of segments: those of their audio, or parts of the clips' given ones.

    Attribute ``step``: segments begin at multiples of this many samples; with given mels those of a hop, so that frames
    and samples are in step.
    """

    def __init__(self, config: DataConfig, mel: MelSpectrogram):
        self.mel = mel
        self.given = GivenMels(config.mels_path, len(mel.filters)) if config.mels_path else None
        self.step = config.hop_length if self.given else 1

    def __call__(self, clip: Path, start: int, audio: np.ndarray) -> dict:
        """An item of a batch: name, audio [N] and mel [n_mel, N // hop_length + 1] of a clip from ``start`` on."""
        samples = torch.from_numpy(audio)
        mel = self.mel(samples[None])[0]
        if self.given:
            # Behind the end of a short clip there is noise, whose mel stays.
            part = self.given(clip)[:, start // self.step :][:, : mel.shape[1]]
            mel[:, : part.shape[1]] = part
        return {"names": clip.name, "audio": samples, "mel": mel}

    def fault(self, clip: Path, audio: np.ndarray) -> ClipError | None:
        """What is wrong with the given mel of a clip with these samples [N]."""
        if not self.given:
            return None
        enough = np.pad(audio, (0, max(0, self.mel.filter_length - len(audio))))
        recorded = self.mel(torch.from_numpy(enough)[None])[0, :, : len(audio) // self.mel.hop_length + 1]
        try:
            self.given.check(clip, recorded)
        except ClipError as error:
            return error
        return None
