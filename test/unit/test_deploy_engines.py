"""All engines: one interface, the same numbers, a share of the cores, clear words for files that are not theirs."""

import shutil

import numpy as np
import onnxruntime
import pytest
import torch
from deploy_toys import ENGINES, SEEDS, TEXTS, make, models_dir, start, toy

from common.program import UserError
from runs import CPU
from tools.deploy.artifacts import read_contents
from tools.deploy.engines import engine as engine_module
from tools.deploy.engines import onnxruntime_engine, torch_engine
from tools.deploy.engines.engine import find_engine, share_of_cores
from tools.deploy.engines.onnxruntime_engine import OnnxRuntime
from tools.deploy.engines.torch_engine import Torch


def expected_audio(mel, sigma, seed):
    """By WaveGlow itself, of mel [n_mel, T] filled up with silence to what engines are built for."""
    model = toy("waveglow").model
    mel = torch.nn.functional.pad(torch.from_numpy(mel), (0, 32 - mel.shape[1]), value=float(np.log(1e-5)))
    noise = torch.randn((1, 8, 32 * 32, 1), generator=torch.Generator().manual_seed(seed))[..., 0]
    sizes = [shape[1] for shape in model.noise_shapes(1, 1)]
    return model.infer(mel[None], sigma, list(noise.split(sizes, dim=1)))[0]


@pytest.mark.parametrize("decoder", ["decoder", "decoder_iter"])
@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_speaks_as_the_models_do(tmp_path, engine, decoder):
    pipeline, engine = start(tmp_path, make(tmp_path, engine, decoder=decoder))
    mel, lengths = pipeline.spectrograms(TEXTS, SEEDS)
    texts = torch.nn.utils.rnn.pad_sequence(list(map(torch.tensor, TEXTS)), batch_first=True)
    utterances = toy("tacotron2").model.infer(texts, torch.tensor(list(map(len, TEXTS))), SEEDS)
    assert lengths.tolist() == [utterance.length for utterance in utterances]
    assert mel.shape[2] == max(lengths)
    for i, utterance in enumerate(utterances):
        assert np.abs(mel[i, :, : lengths[i]] - utterance.mel.numpy()).max() < 2e-5
    short, frames = mel[:, :, :20], np.minimum(lengths, 20)
    sigmas = [0.3, 0.6, 1.0]
    for i, audio in enumerate(pipeline.audio(short, frames, sigmas, SEEDS)):
        expected = expected_audio(short[i, :, : frames[i]], sigmas[i], SEEDS[i])[: len(audio)]
        assert len(audio) == 256 * frames[i]
        assert np.abs(audio - expected.numpy()).max() < 2e-5
    engine.close()


def test_an_engine_that_nobody_knows_is_said():
    """Of a folder that a later version has made, say."""
    with pytest.raises(UserError, match="--engine is 'tensorrt', must be one of onnxruntime, torch, magicmind"):
        find_engine("tensorrt")


@pytest.mark.parametrize("engine", ["onnxruntime", "magicmind"])
def test_only_frames_and_gates_leave_the_engine_in_the_loop(tmp_path, monkeypatch, engine):
    pipeline, _ = start(tmp_path, make(tmp_path, engine, decoder="decoder_iter"))
    graph = pipeline.graphs["decoder_iter"]
    arrays, fetched = [], []
    original = graph.run
    monkeypatch.setattr(graph, "run", lambda inputs: arrays.append(arrays_of(inputs)) or original(inputs))
    fetch = graph.fetch
    monkeypatch.setattr(graph, "fetch", lambda value: fetched.append(value) or fetch(value))
    pipeline.spectrograms(TEXTS, SEEDS)
    assert len(arrays) > 3
    assert all(names == {"prenet_masks"} for names in arrays[1:])
    assert len(fetched) == 2 * len(arrays)


def arrays_of(inputs):
    return {name for name, value in inputs.items() if isinstance(value, np.ndarray)}


@pytest.mark.parametrize("engine", ["onnxruntime", "torch", "magicmind"])
def test_a_file_that_is_not_what_was_built_is_refused(tmp_path, engine):
    contents = make(tmp_path, engine)
    path = contents.path(tmp_path, "postnet")
    whole = path.read_bytes()
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
    for data, says in (
        (whole[:-10], "postnet.* is truncated, .* bytes instead of"),
        (whole + b" ", "postnet.* is not what was made here"),
        (flipped, r"postnet.* is not what was made here \(by its size or SHA-256\), make it again: bash"),
        (None, "postnet.* is missing, make it again: bash"),
    ):
        path.unlink(missing_ok=True)
        if data is not None:
            path.write_bytes(data)
        with pytest.raises(UserError, match=says):
            start(tmp_path, contents)
    path.write_bytes(bytes(reversed(whole)))
    contents.add(tmp_path, "postnet", path.name)  # of this engine's files, it is still none
    with pytest.raises(UserError, match=r"postnet.* is no"):
        start(tmp_path, contents)


def test_a_graph_with_a_flipped_bit_is_not_given_out(tmp_path):
    shutil.copytree(models_dir() / "onnx", tmp_path / "onnx")
    with open(tmp_path / "onnx/waveglow.onnx", "r+b") as file:
        file.seek(2000)
        before = file.read(1)
        file.seek(2000)
        file.write(bytes([before[0] ^ 16]))
    contents = read_contents(tmp_path / "onnx", "onnx", "")
    with pytest.raises(UserError, match=r"waveglow.onnx is not what was made here"):
        contents.path(tmp_path / "onnx", "waveglow")


def test_a_share_of_the_cores_is_each_devices_own(monkeypatch):
    monkeypatch.setattr(engine_module.os, "sched_getaffinity", lambda process: set(range(6)))
    assert [share_of_cores(0, 1), share_of_cores(5, 2), share_of_cores(0, 4), share_of_cores(0, 9)] == [6, 3, 1, 1]
    with pytest.raises(UserError, match="device 6 does not exist: this process has devices 0 to 5"):
        share_of_cores(6, 2)


def test_engines_are_built_with_all_that_is_known_of_their_graphs(tmp_path, monkeypatch):
    requests, build = [], OnnxRuntime.build
    monkeypatch.setattr(OnnxRuntime, "build", lambda request, path: requests.append(request) or build(request, path))
    make(tmp_path)
    assert {request.hop_length for request in requests} == {256}
    assert all("export_model/run.sh" in request.how for request in requests)


@pytest.mark.parametrize(("module", "engine"), [(onnxruntime_engine, OnnxRuntime), (torch_engine, Torch)])
def test_an_engine_takes_the_share_of_its_own_device(monkeypatch, module, engine):
    asked = []
    monkeypatch.setattr(module, "share_of_cores", lambda device, shares: asked.append((device, shares)) or 3)
    monkeypatch.setattr(torch, "set_num_threads", lambda threads: None)
    monkeypatch.setattr(torch_engine, "pick_device", lambda *_: CPU)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    assert engine(5, 8, {}).device_name.endswith("3 threads")
    assert asked == [(5, 8)]
