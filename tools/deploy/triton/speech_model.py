"""Triton's model.py of ``speech``: ids of a text to its audio, by the models of the graphs. Needs numpy alone."""

import json

import numpy as np
import triton_python_backend_utils as pb_utils

STEP = {"text": 32, "mel": 64}
"Texts and spectrograms are padded to multiples of so many symbols or frames: only what is as long shares a batch."


class TritonPythonModel:
    """The parameters are those of config.pbtxt."""

    def initialize(self, args: dict[str, str]) -> None:
        told = json.loads(args["model_config"])["parameters"]
        self.about = {name: value.get("string_value", "") for name, value in told.items()}
        self.symbols = len(json.loads(self.about["symbols"]))
        whole = ("max_decoder_steps", "prenet_dim", "n_group", "hop_length")
        self.steps, self.prenet_dim, self.n_group, self.hop_length = (int(self.about[name]) for name in whole)

    def execute(self, requests: list) -> list:
        return [self.answer(request) for request in requests]

    def answer(self, request: object) -> object:
        try:
            ids = pb_utils.get_input_tensor_by_name(request, "sequences").as_numpy()
            if not ids.size or ids.min() < 0 or ids.max() >= self.symbols:
                raise ValueError(f"sequences must be one id or more, from 0 to {self.symbols - 1}")
            seed, sigma = self.given(request, "seed", 0), self.given(request, "sigma", float(self.about["sigma"]))
            audio = self.speak(ids, int(seed), float(sigma))
        except (ValueError, pb_utils.TritonModelException) as error:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error)))
        return pb_utils.InferenceResponse([pb_utils.Tensor("audio", audio)])

    def given(self, request: object, name: str, default: float) -> float:
        """An optional input."""
        tensor = pb_utils.get_input_tensor_by_name(request, name)
        return default if tensor is None else tensor.as_numpy()[0]

    def speak(self, ids: np.ndarray, seed: int, sigma: float) -> np.ndarray:
        """ids [N] -> audio [samples]; the same ids and seed give the same in every batch."""
        random, keep = np.random.default_rng(seed), 1 - float(self.about["p_prenet_dropout"])
        sequences = padded(ids[None].astype(np.int64), STEP["text"], 0)
        length = np.array([[ids.size]], np.int32)
        encoded = run("encoder", ["memory", "processed_memory"], sequences=sequences, sequence_lengths=length)
        masks = random.random((1, self.steps, 2, self.prenet_dim)) < keep
        decoded = run(
            "decoder", ["mel_outputs", "mel_lengths"], **encoded, mask=np.arange(sequences.shape[1])[None] >= length,
            prenet_masks=(masks / keep).astype(np.float32), max_decoder_steps=np.array([[self.steps]], np.int32),
        )  # fmt: skip
        frames = int(decoded["mel_lengths"][0, 0])
        mel = padded(decoded["mel_outputs"][:, :, :frames], STEP["mel"], 0)
        refined = run("postnet", ["mel_outputs_postnet"], mel_outputs=mel, mel_lengths=decoded["mel_lengths"])
        spoken = padded(refined["mel_outputs_postnet"][:, :, :frames], STEP["mel"], float(self.about["silence"]))[
            ..., None
        ]
        z = random.standard_normal((1, self.n_group, spoken.shape[2] * self.hop_length // self.n_group, 1), np.float32)
        audio = run("waveglow", ["audio"], mel=spoken, z=z, sigma=np.array([[sigma]], np.float32))["audio"]
        return audio[0, : frames * self.hop_length]


def padded(array: np.ndarray, step: int, value: float) -> np.ndarray:
    """With its last axis filled up to a multiple of step."""
    missing = -array.shape[-1] % step
    return np.pad(array, [(0, 0)] * (array.ndim - 1) + [(0, missing)], constant_values=value)


def run(model: str, outputs: list[str], **inputs: np.ndarray) -> dict[str, np.ndarray]:
    """One of the other models. TritonModelException, if it fails."""
    tensors = [pb_utils.Tensor(name, np.ascontiguousarray(array)) for name, array in inputs.items()]
    request = pb_utils.InferenceRequest(
        model_name=model, requested_output_names=outputs, inputs=tensors,
        preferred_memory=pb_utils.PreferredMemory(pb_utils.TRITONSERVER_MEMORY_CPU, 0),
    )  # fmt: skip
    response = request.exec()
    if response.has_error():
        raise pb_utils.TritonModelException(response.error().message())
    return {tensor.name(): tensor.as_numpy() for tensor in response.output_tensors()}
