"""Configuration: the sections of NVIDIA's names as dataclasses, which check their values."""

from dataclasses import dataclass, field
from typing import Literal, TypeVar, get_args

from common.config_fields import MayChange
from common.program import UserError, shown

LARGEST_SIZE = 2**14
"Of channels, kernels, bands and the like: ten times what anybody has trained."
LARGEST_COUNT = 2**40
"Of steps, clips and bytes."
MOST_NAMES = 100
"Entries of a list in a configuration."

Amp = Literal["", "O0", "TF32", "O1", "O2"]
AMP_LEVELS: tuple[str, ...] = get_args(Amp)[1:]


@dataclass
class AudioConfig:
    """What a mel spectrogram is computed from; the two models must agree on it."""

    sampling_rate: int = 22050
    "Hz; clips of another rate are refused."
    filter_length: int = 1024
    "Length of the Fourier transform in samples."
    hop_length: int = 256
    "Samples from one frame to the next."
    win_length: int = 1024
    "Length of the Hann window in samples."
    mel_fmin: float = 0.0
    "Lower edge of the mel filters in Hz."
    mel_fmax: float = 8000.0
    "Upper edge of the mel filters in Hz."

    def __post_init__(self) -> None:
        for name in ("filter_length", "hop_length", "win_length"):
            require_positive("data_config", self, name, at_most=2**16)
        require_positive("data_config", self, "sampling_rate", at_most=2**20)
        if self.win_length > self.filter_length:
            raise UserError(f"data_config: win_length {self.win_length} is above filter_length {self.filter_length}")
        if not 0 <= self.mel_fmin < self.mel_fmax <= self.sampling_rate / 2:
            raise UserError(
                f"data_config: mel_fmin {self.mel_fmin:g} and mel_fmax {self.mel_fmax:g} must lie in this order"
                f" between 0 and half the sampling_rate, {self.sampling_rate / 2:g}"
            )


@dataclass
class TrainConfig:
    """How a model is trained. Fields that exist in NVIDIA's train_config mean the same here."""

    output_directory: MayChange[str] = "checkpoints"
    "Where checkpoints and TensorBoard's logs go."
    epochs: MayChange[int] = 313
    "Passes over the training clips."
    max_steps: MayChange[int] = 0
    "End after this many steps in all, if that is earlier; 0 = no such limit."
    learning_rate: MayChange[float] = 2e-4
    "Adam's learning rate."
    anneal_epochs: MayChange[list] = field(default_factory=list)
    "Epochs at whose start the learning rate falls to a tenth."
    warmup_steps: MayChange[int] = 0
    "Steps over which the learning rate rises from 0."
    decay_steps: MayChange[int] = 0
    "Steps at the end of the run over which the learning rate falls to 0 along a cosine; more than it has = all."
    weight_decay: float = 0.0
    "Adam's; added to the gradients (L2)."
    ema_decay: float = 0.0
    "Decay of a moving average of the weights, which validation and synthesis use in their place; 0 = no average."
    sigma: float = 1.0
    "Standard deviation of z that WaveGlow's loss assumes."
    batch_size: MayChange[int] = 24
    "Clips in a batch of one process."
    grad_accumulation: MayChange[int] = 1
    "Batches that make up one step of the optimizer."
    grad_clip: float = 0.0
    "Gradients with a larger norm are scaled down to it; 0 = never."
    iters_per_checkpoint: MayChange[int] = 1000
    "Steps from one checkpoint to the next; there is one at the end in any case."
    iters_per_validation: MayChange[int] = 1000
    "Steps from one validation to the next; there is one at the end in any case."
    seed: int = 1234
    "Seed of the initial weights, the order of clips and the choice of segments."
    fp16_run: bool = False
    "Half precision where it pays: amp O2 on an NPU, O1 on CUDA, O0 on a CPU."
    amp: Amp = ""
    """O0 float32, TF32 the same with rounded factors on CUDA cards, O1 autocast, O2 half-precision model with float32
    master weights; overrides fp16_run."""
    loss_scale: str | float = "dynamic"
    "Factor of the loss in float16: a number or 'dynamic'."
    workers: MayChange[int] = 2
    "Processes that load data, for each training process; 0 = the training process loads them between steps."
    profile: MayChange[int] = 0
    "Steps to profile, after the first one, into <output_directory>/profile; 0 = none."
    checkpoint_path: MayChange[str] = ""
    "Weights to start from (finetuning)."
    keep_optimizer: MayChange[bool] = False
    "Whether finetuning takes Adam's state over as well."
    ignore_layers: MayChange[list] = field(default_factory=list)
    "Layers that finetuning leaves fresh: names of modules or weights, such as embedding.weight or postnet."
    keep_checkpoints: MayChange[int] = 5
    "How many checkpoints of a run stay, beside the best one; 0 = all."
    on_save_error: MayChange[Literal["stop", "continue"]] = "stop"
    "What to do when a checkpoint cannot be written: stop, or continue training."
    on_bad_clip: MayChange[Literal["stop", "skip"]] = "stop"
    "What to do with clips that cannot be used, at the start or later: stop, or skip them."
    hang_limit: MayChange[int] = 1800
    "Seconds after which a process that makes no progress ends the run; the first step may have to compile."
    with_tensorboard: MayChange[bool] = True
    "Write TensorBoard logs to <output_directory>/logs."

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "grad_accumulation", "iters_per_checkpoint", "iters_per_validation"):
            require_positive("train_config", self, name)
        for name, most in (("learning_rate", 1e18), ("sigma", 1e3), ("hang_limit", 10**7)):
            require_positive("train_config", self, name, at_most=most)
        if len(self.anneal_epochs) > MOST_NAMES or not all(
            type(epoch) is int and 0 < epoch <= LARGEST_COUNT for epoch in self.anneal_epochs
        ):
            raise UserError(
                f"train_config: anneal_epochs is {shown(self.anneal_epochs)}, must be a list of numbers above 0"
            )
        if len(self.ignore_layers) > MOST_NAMES or not all(isinstance(name, str) for name in self.ignore_layers):
            raise UserError(f"train_config: ignore_layers is {shown(self.ignore_layers)}, must be a list of names")
        for name in (
            "max_steps", "grad_clip", "profile", "keep_checkpoints", "weight_decay", "warmup_steps", "decay_steps",
        ):  # fmt: skip
            require_not_negative("train_config", self, name)
        require_not_negative("train_config", self, "workers", at_most=1024)
        require_not_negative("train_config", self, "seed", at_most=2**62)
        if not 0 <= self.ema_decay < 1:
            raise UserError(f"train_config: ema_decay is {self.ema_decay}, must be 0 or above and below 1")
        self.loss_scale = parse_loss_scale(self.loss_scale)


@dataclass
class NpuConfig:
    """What is done differently on an NPU (layers/npu.py): 'on', 'off', or 'auto': as the CANN and the card that are
    found need it."""

    conv1d_as_conv2d: str = "auto"
    "Run 1-D convolutions as 2-D ones."
    conv_transpose_on_cpu: str = "auto"
    "Run transposed 1-D convolutions on the host; off: on the card, as the next key says."
    conv_transpose_as_product: str = "auto"
    "Run them on the card as one matrix product; off: by its own operator, in float32."
    logdet_on_cpu: str = "auto"
    "Run log-determinants on the host."
    jit_compile: str = "off"
    "Compile operators for each new shape while the program runs; auto: as the card does by itself."

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value not in ("auto", "on", "off"):
                raise UserError(f"npu_config: {name} is {shown(value)}, must be auto, on or off")
        if self.conv_transpose_on_cpu == self.conv_transpose_as_product == "on":
            raise UserError(
                "npu_config: conv_transpose_on_cpu and conv_transpose_as_product are both on, and only one of them can"
                " be: set the other one to auto or off"
            )


@dataclass
class DistConfig:
    """Accepted so that NVIDIA's files load, and without effect: the device decides the backend,
    torchrun the address."""

    dist_backend: str = ""
    "Not used."
    dist_url: str = ""
    "Not used."


@dataclass
class BaseConfig:
    """The sections that both models' files have."""

    train_config: TrainConfig = field(default_factory=TrainConfig)
    data_config: AudioConfig = field(default_factory=AudioConfig)
    dist_config: DistConfig = field(default_factory=DistConfig)
    npu_config: NpuConfig = field(default_factory=NpuConfig)


AnyConfig = TypeVar("AnyConfig", bound=BaseConfig)


def parse_loss_scale(value: str | float) -> str | float:
    """'dynamic' or a positive number, also written as text. Raises UserError for anything else."""
    if value == "dynamic":
        return value
    try:
        scale = float(value)
    except (ValueError, OverflowError):
        scale = 0.0
    if not 0 < scale < float("inf"):
        raise UserError(f"loss_scale is {shown(value)}, must be 'dynamic' or a positive number")
    return scale


def require_positive(section: str, config: object, name: str, at_most: float = LARGEST_COUNT) -> None:
    """Raise UserError unless the field is above zero and no larger than anything sensible."""
    value = getattr(config, name)
    if not value > 0:
        raise UserError(f"{section}: {name} is {shown(value)}, must be above 0")
    if not value <= at_most:
        raise UserError(f"{section}: {name} is {shown(value)}, must be at most {at_most:.15g}")


def require_not_negative(section: str, config: object, name: str, at_most: float = LARGEST_COUNT) -> None:
    """Raise UserError unless the field is zero or above and no larger than anything sensible."""
    value = getattr(config, name)
    if not value >= 0:
        raise UserError(f"{section}: {name} is {shown(value)}, must be 0 or above")
    if not value <= at_most:
        raise UserError(f"{section}: {name} is {shown(value)}, must be at most {at_most:.15g}")
