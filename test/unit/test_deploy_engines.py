"""The engines: one interface, the same numbers, few bits, and clear words for what does not work."""

import json
import shutil
import subprocess
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from test_deploy_export import exported, models_dir, run, toy

from common.program import UserError
from conftest import ROOT, script_environment
from tools.deploy import build, quantization
from tools.deploy.engines import find_engine
from tools.deploy.folder import read_contents, sole_writer, write_contents
from tools.deploy.pipeline import Pipeline
from tools.deploy.settings import load_settings

FAKE = ROOT / "test/unit/fake_magicmind"
ENGINES = ("onnxruntime", "torch", "magicmind")
SEEDS = [7, 8, 9]
TEXTS = [[5, 20, 3, 44, 9, 61, 2], [12, 3, 40], [*range(30, 50)]]


@pytest.fixture(autouse=True)
def magicmind(monkeypatch):
    monkeypatch.syspath_prepend(FAKE)
    import magicmind.python.runtime as runtime

    runtime.CALLS.clear()
    return runtime


def make(folder, engine="onnxruntime", quant_mode="force_float32", batch=(1, 2, 8), graphs=None, **options):
    """Build an engine; the contents of its folder."""
    settings = load_settings(None, list(batch))
    for name, value in options.items():
        setattr(settings.engine(engine), name, value)
    args = SimpleNamespace(engine=engine, quant_mode=quant_mode, models_dir=models_dir())
    vars(args).update(dict.fromkeys(build.GRAPHS), **(graphs or {}))
    return build.build(args, settings, read_contents(models_dir() / "onnx", "onnx", ""), folder)


def start(folder, contents, device=0):
    engine = find_engine(contents.engine)(device, 1, contents.options)
    return Pipeline(folder, contents, engine), engine


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
    if (engine, decoder) == ("torch", "decoder"):
        with pytest.raises(UserError, match="configure decoder_iter in place of decoder"):
            make(tmp_path, engine, decoder=decoder)
        return
    pipeline, engine = start(tmp_path, make(tmp_path, engine, decoder=decoder))
    mel, lengths = pipeline.spectrograms(TEXTS, SEEDS)
    texts = torch.nn.utils.rnn.pad_sequence(list(map(torch.tensor, TEXTS)), batch_first=True)
    utterances = toy("tacotron2").model.infer(texts, torch.tensor(list(map(len, TEXTS))), SEEDS)
    assert lengths.tolist() == [utterance.length for utterance in utterances]
    assert mel.shape[2] == max(lengths)
    for i, utterance in enumerate(utterances):
        assert np.abs(mel[i, :, : lengths[i]] - utterance.mel.numpy()).max() < 1e-3
    short, frames = mel[:, :, :20], np.minimum(lengths, 20)
    sigmas = [0.3, 0.6, 1.0]
    for i, audio in enumerate(pipeline.audio(short, frames, sigmas, SEEDS)):
        expected = expected_audio(short[i, :, : frames[i]], sigmas[i], SEEDS[i])[: len(audio)]
        assert len(audio) == 256 * frames[i]
        assert np.abs(audio - expected.numpy()).max() < 1e-3
    engine.close()


def test_stages_are_timed():
    pipeline, _ = start(models_dir() / "onnx", raw())
    mel, lengths = pipeline.spectrograms(TEXTS, SEEDS)
    pipeline.audio(mel, lengths, 0.6, SEEDS)
    assert list(pipeline.seconds) == ["encoder", "decoder", "postnet", "waveglow"]
    assert all(seconds > 0 for seconds in pipeline.seconds.values())


def raw():
    """The exported graphs, run as they are."""
    contents = read_contents(models_dir() / "onnx", "onnx", "")
    return replace(contents, engine="onnxruntime", ranges=load_settings(None, [1, 2, 8]).sizes())


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
def test_only_frames_and_gates_leave_the_engine_in_the_loop(tmp_path, monkeypatch, magicmind, engine):
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


@pytest.mark.parametrize(("change", "worst"), [(quantization.to_float16, 0.01), (quantization.to_int8, 0.1)])
@pytest.mark.parametrize("name", ["encoder", "decoder", "postnet", "waveglow"])
def test_weights_in_fewer_bits(name, change, worst):
    _, graph, _, inputs = exported()[name]
    small = onnx.ModelProto()
    small.CopyFrom(graph)
    change(small, smallest=64)
    given = inputs(2, 6)
    for result, exact in zip(run(small, **given).values(), run(graph, **given).values()):
        assert result.shape == exact.shape
        difference = (result.double() - exact.double()).abs().mean()
        assert difference <= worst * (exact.double().abs().mean() + 0.1)
    assert any(not torch.equal(a, b) for a, b in zip(run(small, **given).values(), run(graph, **given).values()))


@pytest.mark.parametrize(("change", "share"), [(quantization.to_float16, 0.5), (quantization.to_int8, 0.25)])
def test_files_get_smaller(change, share):
    parse = onnx.parser.parse_model
    model = parse(
        '<ir_version: 8, opset_import: ["": 18]> g (float[n,256] x) => (float[n,512] y) { y = MatMul (x, w) }'
    )
    weight = np.random.default_rng(0).standard_normal((256, 512)).astype(np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    before = model.ByteSize()
    change(model)
    assert model.ByteSize() == pytest.approx(share * before, rel=0.05)
    x = np.ones((3, 256), np.float32)
    assert np.abs(run(model, x=x)["y"].numpy() - x @ weight).max() < 0.5


def test_on_cards_float16_is_computed_with(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("onnxruntime.get_available_providers", lambda: ["CUDAExecutionProvider"])
        contents = make(tmp_path, quant_mode="force_float16")
    pipeline, _ = start(tmp_path, contents)  # the CPU converts back and forth
    exact, _ = start(models_dir() / "onnx", raw())
    pipeline.limit = exact.limit = 10
    (mel, lengths), (expected, _) = (each.spectrograms(TEXTS, SEEDS) for each in (pipeline, exact))
    assert 0 < np.abs(mel - expected).mean() < 0.02 * np.abs(expected).mean()
    audio, exact_audio = (each.audio(expected, lengths, 0.6, SEEDS)[0] for each in (pipeline, exact))
    assert 0 < np.abs(audio - exact_audio).mean() < 0.02 * np.abs(exact_audio).mean()


def test_products_inside_the_loop_are_of_integers():
    small = onnx.ModelProto()
    small.CopyFrom(exported()["decoder"].graph)
    quantization.to_int8(small, smallest=64)
    (loop,) = (node for node in small.graph.node if node.op_type == "Loop")
    (body,) = (attribute.g for attribute in loop.attribute if attribute.name == "body")
    kinds = [node.op_type for node in body.node]
    assert kinds.count("MatMulNBits") > 5
    floats = {weight.name for weight in small.graph.initializer if weight.data_type == onnx.TensorProto.FLOAT}
    products = [node for node in body.node if node.op_type in ("MatMul", "Gemm")]
    assert not [node for node in products if node.input[1] in floats and "gate" not in node.input[1]]


def test_8_bits_are_off_by_half_a_step_at_most():
    values = np.random.default_rng(0).standard_normal((5, 70)).astype(np.float32)
    values[3] = 0
    integers, scale = quantization.rounded(values, axes=(1,))
    assert integers.dtype == np.int8
    assert np.abs(integers).max() == 127
    assert (np.abs(integers * scale[:, None] - values) <= scale[:, None] / 2 + 1e-7).all()


@pytest.mark.parametrize("quant_mode", ["force_float16", "int8"])
@pytest.mark.parametrize("engine", ENGINES)
def test_what_a_mode_costs_is_small_and_measured(tmp_path, monkeypatch, engine, quant_mode):
    monkeypatch.setattr(quantization, "SMALLEST", 64)
    monkeypatch.setattr("tools.deploy.engine_torch.SMALLEST", 64)
    monkeypatch.setattr(quantization.to_float16, "__defaults__", (64,))
    monkeypatch.setattr(quantization.to_int8, "__defaults__", (64,))
    contents = make(tmp_path, engine, quant_mode)
    pipeline, _ = start(tmp_path, contents)
    exact, _ = start(models_dir() / "onnx", raw())
    pipeline.limit = exact.limit = 10  # beyond that they go different ways
    mel, _ = pipeline.spectrograms(TEXTS[2:], SEEDS[2:])
    expected, _ = exact.spectrograms(TEXTS[2:], SEEDS[2:])
    difference = np.abs(mel - expected).mean()
    assert difference < 0.1 * np.abs(expected).mean()
    assert (difference > 0) == (engine != "magicmind")  # whose stand-in computes in float32


def test_the_cost_is_measured(tmp_path):
    from tools.deploy.cost import measure_cost

    exported_contents = read_contents(models_dir() / "onnx", "onnx", "")
    cost = measure_cost(tmp_path, make(tmp_path, "torch", "force_float16"), models_dir() / "onnx", exported_contents)
    assert cost.keys() == {"tacotron2", "waveglow"}
    assert all(0 < distance < 0.1 for distance in cost.values())


# MagicMind's interface


def test_magicmind_is_told_sizes_and_precision(tmp_path):
    make(tmp_path, "magicmind", "force_float16", batch=(2, 3, 5))
    import pickle

    with open(tmp_path / "decoder_iter.graph", "rb") as file:
        assert file.read(9) == b"MagicMind"
        config = pickle.load(file)["config"]
    assert config["precision_config"] == {"precision_mode": "force_float16"}
    assert config["archs"] == [{"mtp_372": [2, 6, 8]}]
    assert config["opt_config"] == {"type64to32_conversion": True, "conv_scale_fold": True}
    assert config["graph_shape_mutable"] is True
    assert config["dim_range"]["0"] == {"min": [2, 6], "max": [5, 6]}
    assert config["dim_range"]["8"] == {"min": [2, 4, 16], "max": [5, 256, 16]}
    assert config["dim_range"]["11"] == {"min": [2, 2, 12], "max": [2, 5, 12]}


def test_magicmind_is_taken_down_in_order(tmp_path, magicmind):
    pipeline, engine = start(tmp_path, make(tmp_path, "magicmind"))
    pipeline.spectrograms(TEXTS, SEEDS)
    magicmind.CALLS.clear()
    pipeline.graphs.clear()
    engine.close()
    assert [*["context", "engine", "model"] * 4, "queue", "device", "destory"] == magicmind.CALLS


@pytest.mark.parametrize(
    ("call", "result", "says"),
    [
        ("Builder.build_model", None, "MagicMind failed to build encoder"),
        ("Model.serialize_to_file", "the disk is full", "failed to write .*: the disk is full"),
        ("BuilderConfig.parse_from_string", "unknown key", "failed to configure .*: unknown key"),
        ("NetworkInput.set_dimension", "no", "failed to set the sizes of input 0: no"),
        ("Device.active", "no", "device 0 does not exist"),
        ("Device.create_queue", None, "failed to create a queue"),
        ("Model.create_i_engine", None, "failed to create an engine"),
        ("Engine.create_i_context", None, "failed to create a context"),
        ("Tensor.from_numpy", "no", "failed to set sequences: no"),
        ("Tensor.to", "no", "failed to move sequences to the card: no"),
        ("Context.enqueue", "no", "failed to enqueue: no"),
        ("Queue.sync", "no", "failed to run: no"),
    ],
)
def test_each_way_in_which_magicmind_fails_is_said(tmp_path, monkeypatch, magicmind, call, result, says):
    kind, method = call.split(".")
    answer = result if result is None else magicmind.Status(result)
    monkeypatch.setattr(getattr(magicmind, kind), method, lambda *args, **kwargs: answer)
    with pytest.raises(UserError, match=says):
        pipeline, _ = start(tmp_path, make(tmp_path, "magicmind"))
        pipeline.spectrograms(TEXTS, SEEDS)


def test_magicmind_has_as_many_devices_as_cards(tmp_path):
    contents = make(tmp_path, "magicmind")
    start(tmp_path, contents, device=1)[1].close()
    with pytest.raises(UserError, match="device 2 does not exist"):
        start(tmp_path, contents, device=2)


def test_without_magicmind(tmp_path):
    done = run_build("force_float32", "1", "4", "8", "--engine=magicmind", f"--models_dir={models_dir()}")
    assert done.returncode == 1
    assert "--engine=magicmind: No module named 'magicmind'; it needs Cambricon's driver" in done.stderr


# Bad input


def run_build(*options, cwd=None, **environment):
    return subprocess.run(
        ["bash", ROOT / "tools/deploy/gen_model/run.sh", *options],
        cwd=cwd, env=script_environment() | environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


@pytest.mark.parametrize("engine", ["onnxruntime", "torch", "magicmind"])
def test_files_that_are_not_what_was_built(tmp_path, engine):
    contents = make(tmp_path, engine)
    path = contents.path(tmp_path, "postnet")
    whole = path.read_bytes()
    other = bytes(reversed(whole))
    for data, says in (
        (whole[:-10], "postnet.* is truncated: .* bytes instead of"),
        (whole + b" ", "postnet.* is not what was built here"),
        (other, "postnet.* is no"),
        (None, "postnet.* is missing, build it again"),
    ):
        path.unlink(missing_ok=True)
        if data is not None:
            path.write_bytes(data)
        with pytest.raises(UserError, match=says):
            start(tmp_path, contents)


def test_a_folder_of_another_engine(tmp_path):
    make(tmp_path, "torch")
    with pytest.raises(UserError, match=r"is for torch, not for onnxruntime: do this"):
        read_contents(tmp_path, "onnxruntime", "do this")
    with pytest.raises(UserError, match=r"nothing for torch in .*nowhere: do this"):
        read_contents(tmp_path / "nowhere", "torch", "do this")
    (tmp_path / "contents.json").write_text('{"engine": "torch"')
    with pytest.raises(UserError, match=r"contents.json is damaged .*: do this"):
        read_contents(tmp_path, "torch", "do this")


def test_a_build_that_fails_leaves_no_folder_that_looks_complete(tmp_path):
    make(tmp_path)
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no graph")
    with pytest.raises(UserError, match=r"broken.onnx is no graph that ONNX Runtime can run"):
        make(tmp_path, graphs={"postnet": broken})
    with pytest.raises(UserError, match="nothing for onnxruntime"):
        read_contents(tmp_path, "onnxruntime", "")
    assert not list(tmp_path.glob(".*.part"))


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (["force_float32", "8", "4", "1"], 1, "batch is [8, 4, 1]: must be the smallest, usual and largest"),
        (["force_float32", "0", "1", "2"], 1, "batch is [0, 1, 2]: must be"),
        (["force_int4", "1", "4", "8"], 2, "invalid choice: 'force_int4'"),
        (["force_float32", "1", "four", "8"], 2, "invalid int value: 'four'"),
        (["force_float32", "1", "4", "8", "--engine=tensorrt"], 2, "invalid choice: 'tensorrt'"),
        (["force_float32", "1", "4"], 2, "wanted are QUANT_MODE BS_MIN BS BS_MAX"),
        (["force_float32", "1", "4", "8", "--json=nowhere.json"], 1, "cannot read the config nowhere.json"),
        (["force_float32", "1", "4", "8", "--models_dir=nothing here"], 1, "run export_model/run.sh first"),
    ],
)
def test_what_is_asked_for_wrongly_is_said_in_a_line(tmp_path, options, code, says):
    done = run_build(*options, cwd=tmp_path, MODEL_PATH=str(models_dir()))
    assert done.returncode == code
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_two_runs_in_one_folder():
    with sole_writer(models_dir()):
        done = run_build("force_float32", "1", "4", "8", f"--models_dir={models_dir()}")
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: another run is writing to {models_dir()}: wait")


def test_the_script_builds(tmp_path):
    shutil.copytree(models_dir(), tmp_path / "my models")
    (tmp_path / "small.json").write_text(json.dumps({"ranges": {"text": [4, 8, 16]}}))
    options = ["force_float16", "1", "2", "4", "--models_dir=my models", "--json=small.json", "-o", "my engines"]
    done = run_build(*options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "force_float16 costs: mel L1 (natural logarithm) of Tacotron2 0.0" in done.stdout
    contents = read_contents(tmp_path / "my engines", "onnxruntime", "")
    assert contents.cost.keys() == {"tacotron2", "waveglow"}
    assert contents.ranges == {"batch": [1, 2, 4], "text": [4, 8, 16], "mel": [32, 768, 1664], "steps": [1, 768, 1664]}
    pipeline, _ = start(tmp_path / "my engines", contents)
    pipeline.spectrograms(TEXTS[:1], SEEDS[:1])
    write_contents(tmp_path / "my engines", contents)
