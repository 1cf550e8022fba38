"""The build configuration, configs/deploy.json."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from common.config import load_config
from common.program import UserError
from tools.deploy.engines.engine import Ranges

DEFAULT = Path(__file__).resolve().parents[3] / "configs/deploy.json"


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
    """How one engine builds and runs the graphs."""

    decoder: str = "decoder"
    "Which graph decodes: decoder, the whole loop, or decoder_iter, a frame at a time driven from here."
    spinning: bool = False
    "onnxruntime: whether threads that wait for work keep their cores busy. Faster, if nobody else wants them."
    builder_config: dict = field(default_factory=dict)
    "magicmind: for its builder, beyond precision and sizes."

    def __post_init__(self) -> None:
        if self.decoder not in ("decoder", "decoder_iter"):
            raise UserError(f"decoder is {self.decoder!r}, must be decoder or decoder_iter")

    def graphs(self) -> list[str]:
        """Graphs that are needed to speak."""
        return ["encoder", self.decoder, "postnet", "waveglow"]

    def options(self) -> dict[str, Any]:
        return {"spinning": self.spinning, "builder_config": self.builder_config}


@dataclass
class Settings:
    """The whole file."""

    ranges: Sizes = field(default_factory=Sizes)
    onnxruntime: EngineSettings = field(default_factory=EngineSettings)
    torch: EngineSettings = field(default_factory=lambda: EngineSettings("decoder_iter"))
    magicmind: EngineSettings = field(default_factory=lambda: EngineSettings("decoder_iter"))

    def engine(self, name: str) -> EngineSettings:
        return getattr(self, name)

    def sizes(self) -> Ranges:
        """Sizes of all named axes of the graphs."""
        return asdict(self.ranges) | {"steps": [1, *self.ranges.mel[1:]]}


def load_settings(path: Path | None, batch: list[int] | None) -> Settings:
    """From the file; ``batch``: the sizes that take the place of the file's. UserError as ``load_config``."""
    settings = load_config(path or DEFAULT, Settings)
    if batch:
        settings.ranges = Sizes(batch, settings.ranges.text, settings.ranges.mel)
    return settings
