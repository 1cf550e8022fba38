"""The engines: one interface, the same numbers, and clear words for files and sizes that are not theirs."""

import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from deploy_toys import ENGINES, SEEDS, TEXTS, make, models_dir, raw, start, toy

from common.program import UserError
from tools.deploy.artifacts import read_contents
from tools.deploy.engines.engine import find_engine


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


def test_stages_are_timed():
    pipeline, _ = start(models_dir() / "onnx", raw())
    mel, lengths = pipeline.spectrograms(TEXTS, SEEDS)
    pipeline.audio(mel, lengths, 0.6, SEEDS)
    assert list(pipeline.seconds) == ["encoder", "decoder", "postnet", "waveglow"]
    assert all(seconds > 0 for seconds in pipeline.seconds.values())


def test_batches_and_texts_below_the_range_are_filled_up(tmp_path):
    contents = make(tmp_path, batch=(3, 4, 8))
    pipeline, _ = start(tmp_path, contents)
    mel, lengths = pipeline.spectrograms([[12, 3]], [8])
    (audio,) = pipeline.audio(mel, lengths, 0.6, [8])
    free, _ = start(models_dir() / "onnx", raw())
    mel_alone, lengths_alone = free.spectrograms([[12, 3]], [8])
    assert mel.shape == mel_alone.shape
    assert lengths.tolist() == lengths_alone.tolist()
    assert np.abs(mel - mel_alone).max() < 1e-4
    assert len(audio) == 256 * lengths[0]


@pytest.mark.parametrize(
    ("texts", "says"),
    [
        ([[5, 6, 7]] * 9, "the batch is 9, and these engines are built for 1 to 8"),
        ([[5] * 257], "the longest text is 257, and these engines are built for 4 to 256"),
    ],
)
def test_beyond_the_range_is_said_before_the_engine_fails(texts, says):
    pipeline, _ = start(models_dir() / "onnx", raw())
    with pytest.raises(UserError, match=says):
        pipeline.spectrograms(texts, [0] * len(texts))


def test_so_is_a_spectrogram_beyond_it():
    pipeline, _ = start(models_dir() / "onnx", raw())
    pipeline.contents.ranges["mel"] = [4, 8, 16]
    assert len(pipeline.audio(np.zeros((1, 6, 16), np.float32), np.array([16]), 0.6, [0])[0]) == 16 * 256
    with pytest.raises(UserError, match="the number of mel frames is 17, and these engines are built for 4 to 16"):
        pipeline.audio(np.zeros((1, 6, 17), np.float32), np.array([17]), 0.6, [0])


def test_time_in_a_stage_adds_up_until_it_is_cleared(monkeypatch):
    """By a clock that goes on by a second with each look, and a device that takes 5 s more."""
    seconds = [0]
    look = lambda more=1: seconds.__setitem__(0, seconds[0] + more) or seconds[0]  # noqa: E731
    monkeypatch.setattr("tools.deploy.infer_python.pipeline.time", SimpleNamespace(perf_counter=look))
    pipeline, engine = start(models_dir() / "onnx", raw())
    monkeypatch.setattr(engine, "wait", lambda: look(5))
    for _ in range(2):
        with pipeline.stage("one"):
            pass
    assert pipeline.seconds == {"one": 12}
    pipeline.seconds.clear()
    with pipeline.stage("one"):
        pass
    assert pipeline.seconds == {"one": 6}


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
def test_files_that_are_not_what_was_built(tmp_path, engine):
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


def test_a_folder_of_another_engine(tmp_path):
    make(tmp_path, "torch")
    with pytest.raises(UserError, match=r"is for torch, not for onnxruntime: do this"):
        read_contents(tmp_path, "onnxruntime", "do this")
    with pytest.raises(UserError, match=r"nothing for torch in .*nowhere: do this"):
        read_contents(tmp_path / "nowhere", "torch", "do this")
    for damaged in ('{"engine": "torch"', "[]", '{"engine": "torch"}'):
        (tmp_path / "contents.json").write_text(damaged)
        with pytest.raises(UserError, match=r"contents.json cannot be used .*: do this"):
            read_contents(tmp_path, "torch", "do this")
