"""The engines: one interface, the same numbers, and clear words for files and sizes that are not theirs."""

import shutil
from dataclasses import replace

import numpy as np
import onnx
import pytest
import safetensors.torch
import torch
from deploy_toys import ENGINES, SEEDS, TEXTS, make, make_lively, models_dir, raw, start, toy

import waveglow.config
from common.program import UserError
from runs import CPU
from tools.deploy.artifacts import Source, read_contents
from tools.deploy.engines import torch_engine
from tools.deploy.engines.engine import Build
from tools.deploy.engines.onnxruntime_engine import OnnxRuntime, put_in_order_of
from tools.deploy.engines.torch_engine import Torch, packed, unpacked
from tools.deploy.models import rebuild
from waveglow.conditioning import interpolation


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


def test_graphs_stay_in_the_order_of_the_model(tmp_path):
    """In another one ONNX Runtime computes WaveGlow's conditions all at once, which takes twice the memory."""
    contents = make(tmp_path)
    order = {}
    for folder, each in ((models_dir() / "onnx", raw()), (tmp_path, contents)):
        order[folder] = [node.output[0] for node in onnx.load(each.path(folder, "waveglow")).graph.node]
    exported, built = order.values()
    assert len(built) > 50
    assert built == [name for name in exported if name in set(built)]


def test_new_nodes_come_behind_what_they_need():
    node = lambda output, *inputs: onnx.helper.make_node("Sum", inputs, [output])  # noqa: E731
    graph = lambda *nodes: onnx.helper.make_model(onnx.helper.make_graph(nodes, "g", [], []))  # noqa: E731
    original = graph(node("a", "x"), node("b", "x"), node("c", "b"), node("y", "a", "c"))
    optimized = graph(node("b", "x"), node("a", "x"), node("new", "b", "x"), node("c", "new"), node("y", "a", "c"))
    put_in_order_of(original, optimized)
    assert [each.output[0] for each in optimized.graph.node] == ["a", "b", "new", "c", "y"]


def test_weights_of_another_version_are_refused():
    model = toy("waveglow")
    weights = dict(model.model.state_dict())
    name = "WN.0.in_layers.0.weight"
    weights[name] = torch.cat([weights[name]] * 2, dim=1)
    with pytest.raises(UserError, match="of another version"):
        rebuild("waveglow", model.config, weights)


@pytest.mark.parametrize(("quant_mode", "worst"), [("force_float32", 0.0), ("force_float16", 0.02), ("int8", 0.02)])
def test_a_waveglow_whose_upsampling_interpolates_is_built_again(quant_mode, worst):
    """As in the shipped voice: its conditions are merged with the upsampling when it is fused."""
    config, model = toy("waveglow").config, waveglow.config.build_model(toy("waveglow").config).eval()
    make_lively(model)
    kernel = interpolation(torch.full((6,), -5.0), torch.full((6,), 2.0), *map(len, model.upsample.weight[0, :1]), 256)
    for parameter, value in zip((model.upsample.weight, model.upsample.bias), kernel, strict=True):
        parameter.data.copy_(value)
    model.fuse()
    assert model.on_lines
    assert model.is_composed
    weights = unpacked(packed(dict(model.state_dict()), quant_mode))
    again = rebuild("waveglow", config, weights).model
    mel, noise = torch.randn(1, 6, 5) - 5, [torch.randn(shape) for shape in model.noise_shapes(1, 5)]
    audio, expected = again.infer(mel, 0.6, noise), model.infer(mel, 0.6, noise)
    assert (audio - expected).abs().mean() <= worst * expected.abs().mean()


def test_pytorch_keeps_freed_memory(monkeypatch):
    kept = []
    monkeypatch.setattr(torch_engine, "keep_freed_memory", kept.append)
    Torch(0, 1, {})
    assert kept == [CPU]


@pytest.mark.parametrize(
    ("quant_mode", "half", "computes"),
    [
        ("force_float32", torch.bfloat16, torch.float32),
        ("force_float16", torch.bfloat16, torch.bfloat16),
        ("force_float16", torch.float16, torch.bfloat16),  # CPUs are slow in float16
        ("int8", torch.bfloat16, torch.bfloat16),
        ("int8", torch.float16, torch.float32),
    ],
)
def test_what_pytorch_computes_in(quant_mode, half, computes):
    assert torch_engine.precision(quant_mode, replace(CPU, half=half)) == computes


@pytest.mark.parametrize(("options", "spins"), [({}, "1"), ({"spinning": True}, "1"), ({"spinning": False}, "0")])
def test_threads_of_onnxruntime_wait_busily_within_a_graph_alone(options, spins):
    engine = OnnxRuntime(0, 1, options)
    session = engine.load(models_dir() / "onnx/postnet.onnx", "postnet", raw()).session
    entry = session.get_session_options().get_session_config_entry
    assert entry("session.intra_op.allow_spinning") == spins
    assert entry("session.force_spinning_stop") == "1"


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


@pytest.mark.parametrize("steps", [3, 16, 1000])
def test_gates_may_be_looked_at_every_few_steps(tmp_path, monkeypatch, steps):
    """As on a card, where a clip then goes on for a little behind its end."""
    contents = make(tmp_path, "torch", decoder="decoder_iter")
    contents.tacotron2.tacotron2_config.gate_threshold = threshold_that_ends_clips(tmp_path, contents)
    pipeline, _ = start(tmp_path, contents)
    mel, lengths = pipeline.spectrograms(TEXTS, SEEDS)
    assert lengths.max() < pipeline.limit
    graph, looks = pipeline.graphs["decoder_iter"], []
    original = graph.fetch
    monkeypatch.setattr(graph, "fetch", lambda value: looks.append(value) or original(value))
    graph.steps_at_a_time = steps
    again, same_lengths = pipeline.spectrograms(TEXTS, SEEDS)
    np.testing.assert_array_equal(same_lengths, lengths)
    np.testing.assert_array_equal(again, mel)
    assert len(looks) == -(-lengths.max() // steps) + 1  # and the frames, once


def threshold_that_ends_clips(folder, contents):
    """One that each clip's gate comes above before the limit of steps."""
    pipeline, _ = start(folder, contents)
    graph, gates = pipeline.graphs["decoder_iter"], []
    run = graph.run
    graph.run = lambda inputs: gates.append(run(inputs)) or gates[-1]
    contents.tacotron2.tacotron2_config.gate_threshold = 1.0
    pipeline.spectrograms(TEXTS, SEEDS)
    highest = torch.stack([each["gate_prediction"][:, 0] for each in gates[:-8]]).sigmoid().amax(0)
    return highest.min().item() - 1e-4


def test_pytorch_waits_for_a_card_once_a_stage(tmp_path, monkeypatch):
    pipeline, engine = start(tmp_path, make(tmp_path, "torch", decoder="decoder_iter"))
    waits = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: waits.append(1))
    monkeypatch.setattr(engine, "device", replace(engine.device, type="cuda"))
    pipeline.spectrograms(TEXTS, SEEDS)
    assert len(waits) == 3  # encoder, decoder, postnet


def arrays_of(inputs):
    return {name for name, value in inputs.items() if isinstance(value, np.ndarray)}


def test_onnxruntime_takes_outputs_as_inputs_in_place():
    pipeline, _ = start(models_dir() / "onnx", raw())
    graph = pipeline.graphs["encoder"]
    ids = np.ones((1, 5), np.int64)
    inputs = {"sequences": ids, "sequence_lengths": np.array([5], np.int32)}
    value = graph.run(inputs)["memory"]
    assert graph.upload("sequences", ids).data_ptr() == ids.ctypes.data
    address = value.data_ptr()
    mel = pipeline.graphs["postnet"].run(
        {"mel_outputs": np.zeros((1, 6, 40), np.float32), "mel_lengths": np.array([40], np.int32)}
    )
    assert value.data_ptr() == address
    assert not any(each.data_ptr() == address for each in mel.values())


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


def test_a_graph_with_a_flipped_bit_is_not_built(tmp_path):
    shutil.copytree(models_dir() / "onnx", tmp_path / "onnx")
    with open(tmp_path / "onnx/waveglow.onnx", "r+b") as file:
        file.seek(2000)
        before = file.read(1)
        file.seek(2000)
        file.write(bytes([before[0] ^ 16]))
    contents = read_contents(tmp_path / "onnx", "onnx", "")
    with pytest.raises(UserError, match=r"waveglow.onnx is not what was made here"):
        contents.path(tmp_path / "onnx", "waveglow")


def test_a_checkpoint_that_changed_since_its_export_is_not_built(tmp_path):
    checkpoint = tmp_path / "waveglow.safetensors"
    shutil.copy(models_dir() / "waveglow.safetensors", checkpoint)
    exported = read_contents(models_dir() / "onnx", "onnx", "")
    source = Source(str(checkpoint), exported.sources["waveglow"].sha256)
    request = Build("waveglow", exported.signature("waveglow"), tmp_path, source, "force_float32", {})
    Torch.build(request, tmp_path / "built")
    torch_engine.load_model.cache_clear()
    weights = safetensors.torch.load_file(checkpoint)
    with safetensors.safe_open(checkpoint, "pt") as file:
        metadata = file.metadata()
    weights["convinv.0.conv.weight"] *= 2
    safetensors.torch.save_file(weights, checkpoint, metadata)
    with pytest.raises(UserError, match="is not what it was when it was exported, export it again: "):
        Torch.build(request, tmp_path / "built")


def test_a_card_that_onnxruntime_cannot_use_is_no_silent_cpu(tmp_path, monkeypatch):
    contents = make(tmp_path)
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CUDAExecutionProvider"])
    with pytest.raises(UserError, match="device 3 does not exist, or onnxruntime-gpu cannot use it"):
        start(tmp_path, contents, device=3)


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
