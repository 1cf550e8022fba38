"""The graphs that inference engines know the models by: their names, and what goes in and comes out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from common.program import UserError

if TYPE_CHECKING:  # they load PyTorch, which takes seconds
    import tacotron2.config
    import waveglow.config

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
    meaning: str = ""
    "For those who use the graph without this repository; written into it."

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
    n_mel, channels, r = sizes.n_mel_channels, sizes.encoder_embedding_dim, sizes.n_frames_per_step
    keep = 1 - sizes.p_prenet_dropout
    dropout = f"dropout of the prenet's two layers: {1 / keep:g} with probability {keep:g}, else 0; drawn for each step"
    memory = {
        "memory": Port(("batch", "text", channels), meaning="what the decoder attends to; 0 behind a text's end"),
        "processed_memory": Port(("batch", "text", sizes.attention_dim), meaning="the keys of memory"),
    }
    mask = {"mask": Port(("batch", "text"), "bool", "True is padding: behind a text's end")}
    first, attention, decoder = "0 at first", sizes.attention_rnn_dim, sizes.decoder_rnn_dim
    state = {
        "attention_hidden": Port(("batch", attention), meaning=f"of the attention's LSTM; {first}"),
        "attention_cell": Port(("batch", attention), meaning=f"of the attention's LSTM; {first}"),
        "decoder_hidden": Port(("batch", decoder), meaning=f"of the decoder's LSTM; {first}"),
        "decoder_cell": Port(("batch", decoder), meaning=f"of the decoder's LSTM; {first}"),
        "attention_weights": Port(("batch", "text"), meaning=f"of the step before; {first}"),
        "attention_weights_cum": Port(("batch", "text"), meaning=f"sum over the steps before; {first}"),
        "attention_context": Port(("batch", channels), meaning=f"of the step before; {first}"),
    }
    frames = ("batch", r * n_mel)
    spectrogram = ("batch", n_mel, "mel")
    rough_frames = "n_frames_per_step frames, one behind the other, in front of the postnet"
    rough = "in front of the postnet; behind a clip's length anything"
    lengths = {"mel_lengths": Port(("batch",), "int32", "frames of each clip")}
    return {
        "encoder": Signature(
            {
                "sequences": Port(("batch", "text"), "int64", "ids of symbols; behind a shorter text's end 0"),
                "sequence_lengths": Port(("batch",), "int32", "symbols of each text"),
            },
            memory | {"lens": Port(("batch",), "int32", "sequence_lengths again")},
        ),
        "decoder_iter": Signature(
            {"decoder_input": Port(frames, meaning=f"decoder_output of the step before; {first}")}
            | state
            | memory
            | mask
            | {"prenet_masks": Port(("batch", 2, sizes.prenet_dim), meaning=dropout)},
            {
                "decoder_output": Port(frames, meaning=rough_frames),
                "gate_prediction": Port(
                    ("batch", 1), meaning="logit; a clip ends where its sigmoid is above gate_threshold"
                ),
            }
            | {f"out_{name}": Port(port.axes, port.dtype, f"{name} of the next step") for name, port in state.items()},
        ),
        "decoder": Signature(
            memory
            | mask
            | {
                "prenet_masks": Port(("batch", "steps", 2, sizes.prenet_dim), meaning=dropout),
                "max_decoder_steps": Port(("batch",), "int32", "the most steps of each clip; at most steps"),
            },
            {
                "mel_outputs": Port(spectrogram, meaning=rough),
                "gate_outputs": Port(("batch", "decoded"), meaning="logits of all steps"),
                "alignments": Port(("batch", "decoded", "text"), meaning="where each step attends to"),
            }
            | lengths,
        ),
        "postnet": Signature(
            {"mel_outputs": Port(spectrogram, meaning=rough)} | lengths,
            {"mel_outputs_postnet": Port(spectrogram, meaning="mel_form; behind a clip's length anything")},
        ),
    }


def waveglow_signatures(config: waveglow.config.Config) -> dict[str, Signature]:
    """Signature of WaveGlow's one graph."""
    sizes, hop_length = config.waveglow_config, config.data_config.hop_length
    if hop_length % sizes.n_group:
        raise UserError(
            f"hop_length {hop_length} is no multiple of n_group {sizes.n_group}: graphs need a whole number of groups"
            " in a frame; tools/synthesize.py does not"
        )
    groups = f"{hop_length // sizes.n_group}*mel"
    inputs = {
        "mel": Port(("batch", sizes.n_mel_channels, "mel", 1), meaning="mel_form; silence behind a shorter clip's end"),
        "z": Port(("batch", sizes.n_group, groups, 1), meaning="normal noise of unit variance"),
        "sigma": Port(("batch",), meaning="the scale of each clip's noise; sigma of the metadata sounds best"),
    }
    audio = Port(("batch", f"{hop_length}*mel"), meaning="samples; full scale is -1..1, beyond it they are clipped")
    return {"waveglow": Signature(inputs, {"audio": audio})}
