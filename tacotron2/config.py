"""Tacotron2's configuration file: NVIDIA's hyperparameters, in sections as WaveGlow's."""

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from common.audio import MelSpectrogram
from common.config import (
    LARGEST_SIZE,
    MOST_NAMES,
    AudioConfig,
    BaseConfig,
    TrainConfig,
    require_not_negative,
    require_positive,
)
from common.config_fields import MayChange
from common.program import UserError, shown
from tacotron2.model import Tacotron2
from tacotron2.text.alphabet import Alphabet, read_symbols
from tacotron2.text.cleaners import clean
from tacotron2.text.symbols import SYMBOLS

LIMITS = {
    "max_decoder_steps": 10**6,
    "gate_threshold": 1,
    "n_symbols": 2**20,
    "encoder_n_convolutions": 64,
    "postnet_n_convolutions": 64,
}
"Largest values of those fields that are not widths."
UNSAID = [""]
"Stands for the cleaners where the configuration names none."


@dataclass
class Tacotron2TrainConfig(TrainConfig):
    """Fields that differ from the training of WaveGlow. ``sigma`` has no effect here."""

    epochs: MayChange[int] = 500
    "Passes over the training clips."
    learning_rate: MayChange[float] = 1e-3
    "Adam's learning rate."
    anneal_epochs: MayChange[list] = field(default_factory=lambda: [500, 1000, 1500])
    "Epochs with which the learning rate falls to a tenth, as in DeepLearningExamples."
    batch_size: MayChange[int] = 64
    "Clips in a batch of one process."
    grad_clip: float = 1.0
    "Gradients with a larger norm are scaled down to it; 0 = never. NVIDIA's grad_clip_thresh."
    weight_decay: float = 1e-6
    "Adam's; added to the gradients (L2)."
    align_by: MayChange[int] = 20000
    "Steps after which a validation without a diagonal alignment causes a warning; 0 = from the first on."
    guided_attention: float = 0.0
    "Weight in the loss of attention off the diagonal, which makes the alignment appear sooner; 0 = none."

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("weight_decay", "guided_attention", "align_by"):
            require_not_negative("train_config", self, name)


@dataclass
class DataConfig(AudioConfig):
    """The speech to learn, and how its text is read."""

    training_files: MayChange[str] = ""
    "A text file with `path of a wav|text` on each line, used when no data_path is given."
    validation_files: MayChange[str] = ""
    "The same for the clips held back; without it some of the training clips are."
    text_cleaners: list = field(default_factory=lambda: list(UNSAID))
    """Names from tacotron2/text/cleaners.py, applied in this order. If there is no such key: english_cleaners for
    NVIDIA's symbols, basic_cleaners for others."""
    dictionary: str = ""
    "A pronunciation dictionary: 'cmudict', or a file in the same format. Its words are read as ARPAbet. Empty: none."
    symbols: list | str = field(default_factory=lambda: list(SYMBOLS))
    "What texts are made of, by id: a list, or a file with one symbol per line, read here. NVIDIA's by default."

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            self.symbols = read_symbols(self.symbols, LIMITS["n_symbols"])
        except UserError as error:
            raise UserError(f"data_config: symbols: {error}") from error
        if self.text_cleaners == UNSAID:
            self.text_cleaners = ["english_cleaners" if self.symbols == SYMBOLS else "basic_cleaners"]
        if len(self.text_cleaners) > MOST_NAMES or not all(isinstance(name, str) for name in self.text_cleaners):
            raise UserError(f"data_config: text_cleaners is {shown(self.text_cleaners)}, must be a list of names")
        clean("", self.text_cleaners)

    @property
    def alphabet(self) -> Alphabet:
        return Alphabet(self.symbols)


@dataclass
class Tacotron2Config:
    """The model, by NVIDIA's hyperparameters; see ``tacotron2.model.Tacotron2``."""

    n_mel_channels: int = 80
    "Mel bands."
    n_symbols: int = len(SYMBOLS)
    "How many data_config.symbols there are. 148, which every copy of NVIDIA's file has, is replaced by their number."
    symbols_embedding_dim: int = 512
    "Channels of a symbol, as many as encoder_embedding_dim."
    encoder_kernel_size: int = 5
    "Symbols that an encoder convolution reaches over, an odd number."
    encoder_n_convolutions: int = 3
    "Convolutions in front of the encoder's LSTM."
    encoder_embedding_dim: int = 512
    "Channels of the encoded text, an even number: half from each direction of the LSTM."
    n_frames_per_step: int = 1
    "Mel frames that one step of the decoder makes, the reduction factor r of the first Tacotron; more are faster."
    decoder_rnn_dim: int = 1024
    "Channels of the decoder LSTM."
    prenet_dim: int = 256
    "Channels of both layers of the prenet."
    max_decoder_steps: int = 1000
    "Steps of the decoder, each of n_frames_per_step frames, after which inference gives up waiting for the gate."
    gate_threshold: float = 0.5
    "Inference ends at the first step whose gate probability is above this."
    p_prenet_dropout: float = 0.5
    "Share of the prenet's channels that are zeroed, in inference too."
    p_attention_dropout: float = 0.1
    "Share of the attention LSTM's outputs that are zeroed in training."
    p_decoder_dropout: float = 0.1
    "Share of the decoder LSTM's outputs that are zeroed in training."
    p_frame_dropout: float = 0.0
    """Share of the decoder's steps that do not see the frames before them in training, and must go by the text (Liu et
    al. 2019, arXiv:1909.01145)."""
    attention_rnn_dim: int = 1024
    "Channels of the attention LSTM."
    attention_dim: int = 128
    "Channels in which the attention compares."
    attention_location_n_filters: int = 32
    "Filters over the attention of earlier frames."
    attention_location_kernel_size: int = 31
    "Symbols that such a filter reaches over, an odd number."
    postnet_embedding_dim: int = 512
    "Channels of the postnet."
    postnet_kernel_size: int = 5
    "Frames that a postnet convolution reaches over, an odd number."
    postnet_n_convolutions: int = 5
    "Convolutions of the postnet, at least 2."
    mask_padding: bool = True
    "Whether training ignores predictions behind the end of a clip."

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name.startswith("p_"):
                if not 0 <= value < 1:
                    raise UserError(f"tacotron2_config: {name} is {value}, must be 0 or above and below 1")
            elif name != "mask_padding":
                require_positive("tacotron2_config", self, name, at_most=LIMITS.get(name, LARGEST_SIZE))
            if name.endswith("kernel_size") and value % 2 == 0:
                raise UserError(f"tacotron2_config: {name} is {value}, must be odd")


@dataclass
class Config(BaseConfig):
    """The whole file."""

    train_config: Tacotron2TrainConfig = field(default_factory=Tacotron2TrainConfig)
    data_config: DataConfig = field(default_factory=DataConfig)
    tacotron2_config: Tacotron2Config = field(default_factory=Tacotron2Config)

    def __post_init__(self) -> None:
        if self.tacotron2_config.n_symbols == len(SYMBOLS):
            self.tacotron2_config = replace(self.tacotron2_config, n_symbols=len(self.data_config.symbols))


def check_symbols(path: str | Path, config: Config, how: str) -> None:
    """UserError, with ``how`` to tell, where it is not known which symbols a model's ids mean."""
    rows, symbols = config.tacotron2_config.n_symbols, config.data_config.symbols
    if rows == len(symbols):
        return
    which = "and does not list them" if symbols == SYMBOLS else f"and the list of symbols has {len(symbols)}"
    raise UserError(f"{path} has {rows} symbols, {which}: {how}")


def build_model(config: Config) -> Tacotron2:
    """A Tacotron2 with fresh weights. Raises UserError for sizes that do not fit together."""
    try:
        return Tacotron2(**asdict(config.tacotron2_config))
    except ValueError as error:
        raise UserError(f"tacotron2_config: {error}") from error


def build_mel(config: Config) -> MelSpectrogram:
    """The mel spectrogram that the model predicts."""
    audio = {f: getattr(config.data_config, f) for f in AudioConfig.__dataclass_fields__}
    return MelSpectrogram(**audio, n_mel_channels=config.tacotron2_config.n_mel_channels)
