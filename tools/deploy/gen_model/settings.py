"""The build configuration, configs/deploy.json."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from common.config_reading import load_config
from common.program import UserError
from tools.deploy.artifacts import Ranges

DEFAULT = Path(__file__).resolve().parents[3] / "configs/deploy.json"
DECODERS = ("decoder", "decoder_iter")


@dataclass
class Sizes:
    """The smallest, usual and largest size that engines are built for."""

    batch: list = field(default_factory=lambda: [1, 4, 16])
    "Clips at once."
    text: list = field(default_factory=lambda: [4, 128, 256])
    "Symbols."
    mel: list = field(default_factory=lambda: [32, 768, 1664])
    "Frames of a spectrogram; the noise of WaveGlow goes with them."

    def __post_init__(self) -> None:
        for name, sizes in vars(self).items():
            if len(sizes) != 3 or not all(type(size) is int and size > 0 for size in sizes) or sizes != sorted(sizes):
                raise UserError(f"{name} is {sizes}: must be the smallest, usual and largest size, in this order")


@dataclass
class EngineSettings:
    """Settings of every engine."""

    decoder: str = "decoder"
    "Which graph decodes: decoder, the whole loop, or decoder_iter, a frame at a time driven from here."

    def __post_init__(self) -> None:
        if self.decoder not in DECODERS:
            raise UserError(f"decoder is {self.decoder!r}, must be {' or '.join(DECODERS)}")

    def graphs(self) -> list[str]:
        """Graphs that are needed to speak."""
        return ["encoder", self.decoder, "postnet", "waveglow"]

    def options(self) -> dict[str, Any]:
        """The engine's own settings."""
        return {name: value for name, value in asdict(self).items() if name != "decoder"}


@dataclass
class OnnxRuntimeSettings(EngineSettings):
    """ONNX Runtime's."""

    spinning: bool = True
    "Whether threads that wait for work in a graph keep their cores busy. Faster unless something else needs the cores."


@dataclass
class MagicMindSettings(EngineSettings):
    """MagicMind's."""

    builder_config: dict = field(default_factory=dict)
    "For its builder, beyond precision and sizes."


@dataclass
class Settings:
    """The whole file."""

    ranges: Sizes = field(default_factory=Sizes)
    onnxruntime: OnnxRuntimeSettings = field(default_factory=OnnxRuntimeSettings)
    torch: EngineSettings = field(default_factory=lambda: EngineSettings("decoder_iter"))
    magicmind: MagicMindSettings = field(default_factory=MagicMindSettings)
    builder_config: dict = field(default_factory=dict)
    "The only key in the file of Cambricon's sample, merged into magicmind's."

    def __post_init__(self) -> None:
        self.magicmind.builder_config |= self.builder_config

    def engine(self, name: str) -> EngineSettings:
        return getattr(self, name)

    def sizes(self) -> Ranges:
        """Sizes of all named axes of the graphs."""
        return asdict(self.ranges) | {"steps": [1, *self.ranges.mel[1:]]}

    def for_batches(self, batch: list[int]) -> "Settings":
        """The same for these batch sizes."""
        return replace(self, ranges=replace(self.ranges, batch=batch))


def batches_for(wanted: Iterable[int]) -> list[int]:
    """Smallest, usual and largest batch of engines that are to take these."""
    return [1, 4, max(8, *wanted)]


def load_settings(path: Path | None) -> Settings:
    """From a file of this form or of Cambricon's sample; default configs/deploy.json. UserError as ``load_config``."""
    return load_config(path or DEFAULT, Settings)
