"""The graphs that inference engines know the models by: their names, and what goes in and comes out."""

from dataclasses import dataclass

import tacotron2.config
import waveglow.config
from common.program import UserError

GRAPHS = ("encoder", "decoder_iter", "decoder", "postnet", "waveglow")

Axis = int | str


def kind_of(graph: str) -> str:
    """The model that a graph is of."""
    return "waveglow" if graph == "waveglow" else "tacotron2"


@dataclass(frozen=True)
class Port:
    """An input or an output of a graph."""

    axes: tuple[Axis, ...]
    "Sizes. What has a name (batch, text, mel, steps, decoded) is of any size; 32*mel is 32 times as long as mel."
    dtype: str = "float32"

    def shape(self, sizes: dict[str, int]) -> tuple[int, ...]:
        """With the sizes of the named axes put in."""
        return tuple(axis if isinstance(axis, int) else factor(axis) * sizes[name_of(axis)] for axis in self.axes)


def factor(axis: str) -> int:
    """32*mel -> 32."""
    return int(axis.rpartition("*")[0] or 1)


def name_of(axis: str) -> str:
    """32*mel -> mel."""
    return axis.rpartition("*")[2]


@dataclass(frozen=True)
class Signature:
    """Inputs and outputs of a graph, by name and in this order."""

    inputs: dict[str, Port]
    outputs: dict[str, Port]


def tacotron2_signatures(config: tacotron2.config.Config) -> dict[str, Signature]:
    """Signatures of Tacotron2's graphs; ``decoder`` is the whole loop of ``decoder_iter``."""
    sizes = config.tacotron2_config
    n_mel, channels = sizes.n_mel_channels, sizes.encoder_embedding_dim
    memory = {
        "memory": Port(("batch", "text", channels)),
        "processed_memory": Port(("batch", "text", sizes.attention_dim)),
    }
    mask = {"mask": Port(("batch", "text"), "bool")}
    state = {
        "attention_hidden": Port(("batch", sizes.attention_rnn_dim)),
        "attention_cell": Port(("batch", sizes.attention_rnn_dim)),
        "decoder_hidden": Port(("batch", sizes.decoder_rnn_dim)),
        "decoder_cell": Port(("batch", sizes.decoder_rnn_dim)),
        "attention_weights": Port(("batch", "text")),
        "attention_weights_cum": Port(("batch", "text")),
        "attention_context": Port(("batch", channels)),
    }
    frames = Port(("batch", sizes.n_frames_per_step * n_mel))
    spectrogram = Port(("batch", n_mel, "mel"))
    lengths = {"mel_lengths": Port(("batch",), "int32")}
    return {
        "encoder": Signature(
            {"sequences": Port(("batch", "text"), "int64"), "sequence_lengths": Port(("batch",), "int32")},
            memory | {"lens": Port(("batch",), "int32")},
        ),
        "decoder_iter": Signature(
            {"decoder_input": frames} | state | memory | mask | {"prenet_masks": Port(("batch", 2, sizes.prenet_dim))},
            {"decoder_output": frames, "gate_prediction": Port(("batch", 1))}
            | {f"out_{name}": port for name, port in state.items()},
        ),
        "decoder": Signature(
            memory
            | mask
            | {
                "prenet_masks": Port(("batch", "steps", 2, sizes.prenet_dim)),
                "max_decoder_steps": Port(("batch",), "int32"),
            },
            {
                "mel_outputs": spectrogram,
                "gate_outputs": Port(("batch", "decoded")),
                "alignments": Port(("batch", "decoded", "text")),
            }
            | lengths,
        ),
        "postnet": Signature({"mel_outputs": spectrogram} | lengths, {"mel_outputs_postnet": spectrogram}),
    }


def waveglow_signatures(config: waveglow.config.Config) -> dict[str, Signature]:
    """Signature of WaveGlow's one graph."""
    sizes, hop_length = config.waveglow_config, config.data_config.hop_length
    if hop_length % sizes.n_group:
        raise UserError(
            f"hop_length {hop_length} is no multiple of n_group {sizes.n_group}: graphs need a whole number of groups"
            " in a frame; tools/synthesize.py does not"
        )
    inputs = {
        "mel": Port(("batch", sizes.n_mel_channels, "mel", 1)),
        "z": Port(("batch", sizes.n_group, f"{hop_length // sizes.n_group}*mel", 1)),
        "sigma": Port(("batch",)),
    }
    return {"waveglow": Signature(inputs, {"audio": Port(("batch", f"{hop_length}*mel"))})}
