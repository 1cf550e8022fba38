"""WaveGlow's configuration file: the sections of NVIDIA's config.json."""

from dataclasses import asdict, dataclass, field

from common.audio import MelSpectrogram
from common.config import LARGEST_SIZE, AudioConfig, BaseConfig, TrainConfig, require_positive
from common.config_fields import MayChange
from common.program import UserError
from waveglow.model import WaveGlow


@dataclass
class WaveGlowTrainConfig(TrainConfig):
    """Fields of WaveGlow's training alone."""

    interpolating_start: bool = False
    "Start with an upsampling that interpolates the standardized mel spectrogram, rather than at random."
    fixed_upsampling: bool = False
    "Keep the initial upsampling, which makes the conditions of small batches cheap (``waveglow.conditioning``)."
    recompute: MayChange[bool] = False
    "Compute a coupling's activations again in the backward pass: less memory, more time, equal to rounding."
    compile: MayChange[bool] = False
    "On a CUDA card: have torch.compile fuse what couplings compute. A minute at the start; equal to rounding."


@dataclass
class DataConfig(AudioConfig):
    """The audio to learn, and the length of its segments."""

    training_files: MayChange[str] = ""
    "A text file with the path of a wav on each line, used when no data_path is given."
    mels_path: str = ""
    "Folder with a mel of each clip (tacotron2.infer --teacher_forced), to learn from in place of the recordings' own."
    segment_length: int = 16000
    "Samples of a training segment."

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive("data_config", self, "segment_length", at_most=2**26)
        if self.segment_length < self.filter_length:
            raise UserError(
                f"data_config: segment_length {self.segment_length} is below filter_length {self.filter_length}"
            )


@dataclass
class WNConfig:
    """The network inside each coupling."""

    n_layers: int = 8
    "Layers, the dilation doubling from one to the next."
    n_channels: int = 256
    "Hidden channels."
    kernel_size: int = 3
    "Taps of a convolution, an odd number."

    def __post_init__(self) -> None:
        # The dilation doubles with each layer.
        for name, most in (("n_layers", 24), ("n_channels", LARGEST_SIZE), ("kernel_size", 1023)):
            require_positive("waveglow_config.WN_config", self, name, at_most=most)
        if self.kernel_size % 2 == 0:
            raise UserError(f"waveglow_config.WN_config: kernel_size is {self.kernel_size}, must be odd")


@dataclass
class WaveGlowConfig:
    """The model; see ``waveglow.model.WaveGlow``."""

    n_mel_channels: int = 80
    "Mel bands."
    n_flows: int = 12
    "Flow steps."
    n_group: int = 8
    "Neighbouring samples in a group."
    n_early_every: int = 4
    "Flows from one early exit to the next."
    n_early_size: int = 2
    "Channels of an early exit."
    upsample_kernel: int = 1024
    "Samples that a mel frame reaches over, at least hop_length."
    WN_config: WNConfig = field(default_factory=WNConfig)
    "The network of each coupling."

    def __post_init__(self) -> None:
        for name in ("n_mel_channels", "n_flows", "n_group", "n_early_every", "n_early_size", "upsample_kernel"):
            require_positive("waveglow_config", self, name, at_most=1024 if name == "n_flows" else 2**16)


@dataclass
class Config(BaseConfig):
    """The whole file."""

    train_config: WaveGlowTrainConfig = field(default_factory=WaveGlowTrainConfig)
    data_config: DataConfig = field(default_factory=DataConfig)
    waveglow_config: WaveGlowConfig = field(default_factory=WaveGlowConfig)


def build_model(config: Config) -> WaveGlow:
    """A WaveGlow with fresh weights. Raises UserError for sizes that do not fit together."""
    try:
        model = WaveGlow(**asdict(config.waveglow_config), hop_length=config.data_config.hop_length)
    except ValueError as error:
        raise UserError(f"waveglow_config: {error}") from error
    model.upsample.requires_grad_(not config.train_config.fixed_upsampling)
    return model


def build_mel(config: Config) -> MelSpectrogram:
    """The mel spectrogram that the model is conditioned on."""
    audio = {f: getattr(config.data_config, f) for f in AudioConfig.__dataclass_fields__}
    return MelSpectrogram(**audio, n_mel_channels=config.waveglow_config.n_mel_channels)
