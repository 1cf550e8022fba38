"""The hyperparameters of a model, read off the shapes of its weights in NVIDIA's names.

KeyError where a weight is missing, IndexError or ZeroDivisionError where it has too few dimensions or none.
"""

from torch import Tensor

NVIDIA_UPSAMPLE_KERNEL = 1024


def waveglow_sizes(weights: dict[str, Tensor]) -> dict[str, int]:
    """Read the fields of waveglow_config and WN_config off a WaveGlow's weights."""
    channels = [weights[f"convinv.{k}.conv.weight"].shape[0] for k in range(_count(weights, "convinv."))]
    exits = [k for k in range(1, len(channels)) if channels[k] < channels[k - 1]]
    in_layer = "WN.0.in_layers.0.weight"
    kernel = weights["upsample.weight"].shape[2]
    # NVIDIA's configurations do not name it: their code knows only this one.
    upsampling = {} if kernel == NVIDIA_UPSAMPLE_KERNEL else {"upsample_kernel": kernel}
    return upsampling | {
        "n_mel_channels": weights["upsample.weight"].shape[0],
        "n_flows": len(channels),
        "n_group": weights["convinv.0.conv.weight"].shape[0],
        # Where no channels leave early, any values will do with which none leave.
        "n_early_every": exits[0] if exits else max(4, len(channels)),
        "n_early_size": channels[exits[0] - 1] - channels[exits[0]] if exits else 2,
        "n_layers": _count(weights, "WN.0.in_layers."),
        "n_channels": weights["WN.0.end.weight"].shape[1],
        "kernel_size": weights[f"{in_layer}_v" if f"{in_layer}_v" in weights else in_layer].shape[2],
    }


def tacotron2_sizes(weights: dict[str, Tensor]) -> dict[str, int]:
    """Read tacotron2_config off a Tacotron2's weights, except for fields that no shape shows."""
    encoder, postnet = "encoder.convolutions.0.0.conv.weight", "postnet.convolutions.0.0.conv.weight"
    attention = "decoder.attention_layer."
    location = f"{attention}location_layer.location_conv.conv.weight"
    prenet = "decoder.prenet.layers.0.linear_layer.weight"
    dimensions = {
        "n_mel_channels": (postnet, 1),
        "n_symbols": ("embedding.weight", 0),
        "symbols_embedding_dim": ("embedding.weight", 1),
        "encoder_embedding_dim": (encoder, 0),
        "encoder_kernel_size": (encoder, 2),
        "decoder_rnn_dim": ("decoder.decoder_rnn.weight_hh", 1),
        "prenet_dim": (prenet, 0),
        "attention_rnn_dim": ("decoder.attention_rnn.weight_hh", 1),
        "attention_dim": (f"{attention}query_layer.linear_layer.weight", 0),
        "attention_location_n_filters": (location, 0),
        "attention_location_kernel_size": (location, 2),
        "postnet_embedding_dim": (postnet, 0),
        "postnet_kernel_size": (postnet, 2),
    }
    sizes = {name: weights[weight].shape[axis] for name, (weight, axis) in dimensions.items()}
    return sizes | {
        "n_frames_per_step": weights[prenet].shape[1] // sizes["n_mel_channels"],
        "encoder_n_convolutions": _count(weights, "encoder.convolutions."),
        "postnet_n_convolutions": _count(weights, "postnet.convolutions."),
    }


def _count(weights: dict[str, Tensor], prefix: str) -> int:
    """How many items a list of modules has."""
    return len({name.removeprefix(prefix).split(".")[0] for name in weights if name.startswith(prefix)})
