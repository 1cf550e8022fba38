"""What a graph tells those who use it without this repository: its ports, the symbols of texts, the form of its mels.

ONNX Runtime gives it out: ``session.get_modelmeta().custom_metadata_map`` in Python,
``ModelMetadata::LookupCustomMetadataMap`` in C++. Every value is text; those of more than one part are JSON.
"""

import json

from onnx import ModelProto, helper

from common.mel_forms import FLOOR
from tools.deploy.artifacts import Contents
from tools.deploy.signatures import Port, Signature

MEL_FORM = "natural logarithm of amplitudes, at least 1e-5, through Slaney's mel filters; frames are centred"


def describe(model: ModelProto, signature: Signature, contents: Contents) -> None:
    """Write into the graph what its ports are and what all graphs of the two models share."""
    helper.set_model_props(model, {"ports": ports(signature)} | settings(contents))


def ports(signature: Signature) -> str:
    """{"inputs": {name: {"axes", "dtype", "meaning"}}, "outputs": ...} as JSON."""

    def told(named: dict[str, Port]) -> dict:
        return {name: {"axes": port.axes, "dtype": port.dtype, "meaning": port.meaning} for name, port in named.items()}

    return json.dumps({"inputs": told(signature.inputs), "outputs": told(signature.outputs)})


def settings(contents: Contents) -> dict[str, str]:
    """Sizes of both models, and ``symbols``, whose places are the ids, and ``silence``, the value of a silent mel."""
    audio, text = contents.waveglow.data_config, contents.tacotron2.data_config
    sizes = contents.tacotron2.tacotron2_config
    of_audio = ("sampling_rate", "hop_length", "filter_length", "win_length", "mel_fmin", "mel_fmax")
    of_decoder = ("n_mel_channels", "n_frames_per_step", "max_decoder_steps", "gate_threshold", "p_prenet_dropout")
    values = {name: getattr(audio, name) for name in of_audio} | {name: getattr(sizes, name) for name in of_decoder}
    return {name: str(value) for name, value in values.items()} | {
        "mel_form": MEL_FORM,
        "silence": str(FLOOR),
        "sigma": str(contents.sigma),
        "symbols": json.dumps(text.symbols),
        "text_cleaners": json.dumps(text.text_cleaners),
        "dictionary": text.dictionary,
    }
