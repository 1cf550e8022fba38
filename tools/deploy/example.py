"""A text to a wav with the exported graphs, numpy and onnxruntime alone: nothing of this repository is needed.

    python example.py models/onnx "printing differs from most crafts." out.wav

A text is read letter by letter: write numbers and abbreviations out, or give the ids of symbols. What is used here is
in the metadata of each graph; docs/deployment.md explains the inputs. pip install numpy onnxruntime
"""

import json
import sys
import wave

import numpy as np
import onnxruntime

STAGES = ("encoder", "decoder", "postnet", "waveglow")


def speak(folder: str, text: str, seed: int = 0) -> tuple[np.ndarray, int]:
    """The audio [samples] and its sampling rate."""
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.set_denormal_as_zero", "1")  # which are slow, and inaudible
    graphs = {name: onnxruntime.InferenceSession(f"{folder}/{name}.onnx", options) for name in STAGES}
    about = graphs["encoder"].get_modelmeta().custom_metadata_map
    random = np.random.default_rng(seed)

    def run(name: str, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        outputs = [port.name for port in graphs[name].get_outputs()]
        return dict(zip(outputs, graphs[name].run(outputs, inputs)))

    ids = {symbol: i for i, symbol in enumerate(json.loads(about["symbols"]))}
    letters, words = [ids[letter] for letter in text.lower() if letter in ids], text.split()
    sequences = np.array([list(map(int, words)) if all(map(str.isdecimal, words)) else letters], np.int64)
    assert sequences.size and sequences.max() < len(ids), f"give letters, or ids from 0 to {len(ids) - 1}"
    encoded = run("encoder", sequences=sequences, sequence_lengths=np.array([sequences.shape[1]], np.int32))
    steps, keep = int(about["max_decoder_steps"]), 1 - float(about["p_prenet_dropout"])
    axes = {port.name: port.shape for port in graphs["decoder"].get_inputs()}["prenet_masks"]
    decoded = run(
        "decoder", memory=encoded["memory"], processed_memory=encoded["processed_memory"],
        mask=np.zeros(sequences.shape, bool), max_decoder_steps=np.array([steps], np.int32),
        prenet_masks=((random.random((1, steps, *axes[2:])) < keep) / keep).astype(np.float32),
    )  # fmt: skip
    lengths = decoded["mel_lengths"]
    refined = run("postnet", mel_outputs=decoded["mel_outputs"], mel_lengths=lengths)
    mel = refined["mel_outputs_postnet"][:, :, : lengths[0], None]
    _, groups, columns, _ = {port.name: port.shape for port in graphs["waveglow"].get_inputs()}["z"]
    columns = int(columns.split("*")[0]) * mel.shape[2]
    z, sigma = random.standard_normal((1, groups, columns, 1), np.float32), np.array([about["sigma"]], np.float32)
    return run("waveglow", mel=mel, z=z, sigma=sigma)["audio"][0], int(about["sampling_rate"])


def main(folder: str, text: str, path: str) -> None:
    audio, rate = speak(folder, text)
    with wave.open(path, "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", ""))
        file.writeframes((np.clip(audio, -1, 1) * 32767).astype("<i2").tobytes())


if __name__ == "__main__":
    main(*sys.argv[1:]) if len(sys.argv) == 4 else sys.exit(__doc__)
