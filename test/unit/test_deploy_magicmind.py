"""The adapter of MagicMind, on a stand-in for it: every call, its order, and every way in which it can fail."""

import json
import pickle
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from deploy_toys import SEEDS, TEXTS, make, models_dir, run_script, start

from common.program import UserError
from conftest import write_programs
from tools.deploy.artifacts import read_contents
from tools.deploy.benchmark import perf
from tools.deploy.engines import hardware_names
from tools.deploy.engines.engine import find_engine
from tools.deploy.gen_model import build


@pytest.fixture
def magicmind():
    import magicmind.python.runtime as runtime

    runtime.CALLS.clear()
    return runtime


def config_of(folder, graph="decoder"):
    """What the stand-in's builder was told."""
    with open(folder / f"{graph}.graph", "rb") as file:
        assert file.read(9) == b"MagicMind"
        return pickle.load(file)["config"]


def test_magicmind_is_told_sizes_and_precision(tmp_path, monkeypatch, magicmind):
    told, set_dimension = [], magicmind.NetworkInput.set_dimension
    monkeypatch.setattr(
        magicmind.NetworkInput, "set_dimension", lambda *args: told.append(args[1].GetDims()) or set_dimension(*args)
    )
    make(tmp_path, "magicmind", "force_float16", batch=(2, 3, 5))
    config = config_of(tmp_path)
    assert config["precision_config"] == {"precision_mode": "force_float16"}
    assert config["archs"] == [{"mtp_372": [2, 6, 8]}]
    assert config["opt_config"] == {"type64to32_conversion": True, "conv_scale_fold": True}
    assert config["graph_shape_mutable"] is True
    assert config["dim_range"] == {
        "0": {"min": [2, 4, 16], "max": [5, 256, 16]},
        "1": {"min": [2, 4, 10], "max": [5, 256, 10]},
        "2": {"min": [2, 4], "max": [5, 256]},
        "3": {"min": [2, 1, 2, 12], "max": [5, 1664, 2, 12]},
        "4": {"min": [2], "max": [5]},
    }
    assert told[:3] == [[-1, -1], [-1], [-1, -1, 16]]  # of the encoder and the decoder: -1 is any size


def test_magicmind_is_taken_down_in_order(tmp_path, magicmind):
    pipeline, engine = start(tmp_path, make(tmp_path, "magicmind"))
    pipeline.spectrograms(TEXTS, SEEDS)
    magicmind.CALLS.clear()
    pipeline.graphs.clear()
    engine.close()
    assert [*["context", "engine", "model"] * 4, "queue", "device", "destory"] == magicmind.CALLS


def spoken(folder):
    pipeline, _ = start(folder, read_contents(folder, "magicmind", ""))
    mel, lengths = pipeline.spectrograms(TEXTS, SEEDS)
    return mel, pipeline.audio(mel[:, :, :16], np.minimum(lengths, 16), 0.6, SEEDS)[0]


@pytest.fixture
def expected(tmp_path):
    make(tmp_path, "magicmind", decoder="decoder_iter")
    return spoken(tmp_path)


@pytest.mark.parametrize("gives", ["nothing", "itself"])
def test_nothing_is_relied_on_of_what_a_move_to_the_card_gives(tmp_path, monkeypatch, magicmind, expected, gives):
    to = magicmind.Tensor.to
    monkeypatch.setattr(
        magicmind.Tensor, "to", lambda self, device: to(self, device) and (self if gives == "itself" else None)
    )
    for result, exact in zip(spoken(tmp_path), expected, strict=True):
        np.testing.assert_array_equal(result, exact)


def test_a_release_that_takes_no_tensors_but_its_own(tmp_path, monkeypatch, magicmind, expected):
    enqueue = magicmind.Context.enqueue
    orders = []

    def without_order(self, inputs, outputs, queue):
        orders.append(len(inputs))
        return enqueue(self, inputs, outputs, queue, input_by_tensor_order=False)

    monkeypatch.setattr(magicmind.Context, "enqueue", without_order)
    for result, exact in zip(spoken(tmp_path), expected, strict=True):
        np.testing.assert_array_equal(result, exact)
    assert len(orders) > 4


@pytest.mark.parametrize("gives", ["None", "Status"])
@pytest.mark.parametrize(
    ("call", "says"),
    [
        ("Builder.build_model", "failed to build encoder"),
        ("Device.create_queue", "failed to create a queue"),
        ("Model.create_i_engine", "failed to create an engine"),
        ("Engine.create_i_context", "failed to create a context"),
        ("Context.create_inputs", "failed to create inputs"),
    ],
)
def test_a_factory_that_fails_gives_none_or_a_status(tmp_path, monkeypatch, magicmind, call, says, gives):
    kind, method = call.split(".")
    answer, why = (None, "its log says why") if gives == "None" else (magicmind.Status("no memory"), "no memory")
    monkeypatch.setattr(getattr(magicmind, kind), method, lambda *args, **kwargs: answer)
    with pytest.raises(UserError, match=f"MagicMind {says}: {why}"):
        start(tmp_path, make(tmp_path, "magicmind"))


def test_one_function_looks_at_every_answer(magicmind):
    checked = sys.modules[find_engine("magicmind").__module__].checked
    thing = object()
    for answer in (magicmind.Status.OK(), None, thing):
        assert checked(answer, "act") is answer
    assert checked(thing, "make", makes=True) is thing
    for answer in (None, magicmind.Status.OK(), magicmind.Status("no")):
        with pytest.raises(UserError, match="MagicMind failed to make"):
            checked(answer, "make", makes=True)


@pytest.mark.parametrize("decoder", ["decoder", "decoder_iter"])
def test_8_bits_are_calibrated_by_what_goes_into_each_graph(tmp_path, magicmind, decoder):
    contents = make(tmp_path, "magicmind", "int8", decoder=decoder)
    seen = [call for call in magicmind.CALLS if call.startswith("sample of")]
    inputs = [name for graph in contents.files for name in contents.signature(graph).inputs]
    assert seen == [f"sample of {name}" for name in inputs]
    config = config_of(tmp_path, "waveglow")
    assert config["precision_config"] == {
        "activation_quant_algo": "symmetric",
        "weight_quant_granularity": "per_axis",
        "precision_mode": "qint8_mixed_float16",
    }
    assert "custom_ranges" not in config
    magicmind.CALLS.clear()
    make(tmp_path / "half", "magicmind", "force_float16")
    assert "calibrate" not in magicmind.CALLS


@pytest.mark.parametrize("mode", ["int8", "force_float16"])
def test_a_host_without_a_card_builds_and_leaves_the_comparison_out(run_here, tmp_path, monkeypatch, magicmind, mode):
    monkeypatch.setattr(magicmind, "CARDS", 0)
    given = ["--quant_mode", mode, "--bs=1,2,4", "--engine=magicmind", f"--models_dir={models_dir()}", "-o", "engines"]
    done = run_here(build.main, *given)
    assert done.returncode == 0, done.stderr
    said = done.stdout + done.stderr
    assert f"what {mode} costs is not known: device 0 does not exist: MagicMind failed to make it active" in said
    contents = read_contents(tmp_path / "engines", "magicmind", "")
    assert not contents.cost
    for graph in contents.files:
        contents.path(tmp_path / "engines", graph)
    if mode == "int8":
        assert config_of(tmp_path / "engines")["custom_ranges"] == {"": {"max": [1], "min": [-1]}}
        assert "decoder is not calibrated, for want of a card or samples" in said


def test_a_mode_that_the_card_refuses_ends_alone(tmp_path, monkeypatch, magicmind):
    (tmp_path / "models").mkdir()
    (tmp_path / "models/onnx").symlink_to(models_dir() / "onnx")
    monkeypatch.setattr(magicmind, "MODES", ("force_float32",))
    given = ["--engine=magicmind", "--bs=1", "--il=20", "--num_iters=1", "--warmup_iters=0", "--no-waveglow"]
    monkeypatch.setattr(sys, "argv", ["perf", *given, f"--models_dir={tmp_path}/models", "-o", str(tmp_path)])
    perf.main()
    saved = json.loads((tmp_path / "perf.json").read_text())
    assert [run["quant_mode"] for run in saved["runs"]] == ["force_float32"]
    assert saved["failed"].keys() == {"force_float16", "int8"}
    assert all("MagicMind failed to build encoder" in why for why in saved["failed"].values())


def test_what_its_library_throws_is_said(tmp_path, monkeypatch, magicmind):
    def throw(*args):
        raise RuntimeError("no such precision\nat builder.cc:7")

    monkeypatch.setattr(magicmind.Builder, "build_model", throw)
    with pytest.raises(UserError, match=r"MagicMind failed to build encoder: no such precision$"):
        make(tmp_path, "magicmind")


def test_who_configures_the_builder_goes_before_our_defaults_but_not_before_the_mode(magicmind):
    """Of the parts a later one is merged into those before it."""
    from tools.deploy.engines import magicmind_engine

    signature = SimpleNamespace(inputs={})
    request = SimpleNamespace(signature=signature, quant_mode="int8", options={"builder_config": {"a": 1}}, ranges={})
    defaults = [{"precision_config": magicmind_engine.QUANTIZATION}, magicmind_engine.FAKE_RANGES]
    mode = {"precision_config": {"precision_mode": magicmind_engine.PRECISION["int8"]}}
    assert magicmind_engine.configuration(request, fake_ranges=True)[:4] == [*defaults, {"a": 1}, mode]


@pytest.mark.parametrize("call", ["System.initialize", "Device.active"])
def test_a_device_at_whose_start_its_library_throws_does_not_exist(monkeypatch, magicmind, call):
    def throw(*args):
        raise RuntimeError("no driver")

    kind, method = call.split(".")
    monkeypatch.setattr(getattr(magicmind, kind), method, throw)
    with pytest.raises(UserError, match="device 0 does not exist: no driver"):
        find_engine("magicmind")(0, 1, {})


@pytest.mark.parametrize("more", [-1, 1])
def test_inputs_that_it_sees_otherwise_are_said(tmp_path, monkeypatch, magicmind, more):
    monkeypatch.setattr(magicmind.Network, "get_input_count", lambda network: len(network.model.graph.input) + more)
    with pytest.raises(UserError, match=rf"MagicMind sees {2 + more} inputs of .*encoder.onnx, not 2"):
        make(tmp_path, "magicmind")


@pytest.mark.parametrize(
    ("call", "result", "says"),
    [
        ("Model.serialize_to_file", "the disk is full", "failed to write .*: the disk is full"),
        ("BuilderConfig.parse_from_string", "unknown key", "failed to configure .*: unknown key"),
        ("NetworkInput.set_dimension", "no", "failed to set the sizes of input 0: no"),
        ("Device.active", "no", "device 0 does not exist"),
        ("Tensor.from_numpy", "no", "failed to set sequences: no"),
        ("Tensor.to", "no", "failed to move sequences to the card: no"),
        ("Context.enqueue", "no", "failed to enqueue: no"),
        ("Queue.sync", "no", "failed to run: no"),
    ],
)
def test_a_call_that_answers_with_an_error_is_said(tmp_path, monkeypatch, magicmind, call, result, says):
    kind, method = call.split(".")
    monkeypatch.setattr(getattr(magicmind, kind), method, lambda *args, **kwargs: magicmind.Status(result))
    with pytest.raises(UserError, match=says):
        pipeline, _ = start(tmp_path, make(tmp_path, "magicmind"))
        pipeline.spectrograms(TEXTS, SEEDS)


def test_magicmind_has_as_many_devices_as_cards(tmp_path):
    contents = make(tmp_path, "magicmind")
    start(tmp_path, contents, device=1)[1].close()
    with pytest.raises(UserError, match="device 2 does not exist"):
        start(tmp_path, contents, device=2)


def test_a_card_has_the_name_that_cnmon_tells(tmp_path, monkeypatch):
    """As public scripts read it."""
    assert hardware_names.mlu_name(1) == "MLU, card 1"
    answer = 'echo "    Product Name  : MLU370-S4"'
    write_programs(tmp_path, {"cnmon": f'#!/bin/bash\n{answer}\n[[ "$*" == "info -c 1 -t" ]]\n'})
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert hardware_names.mlu_name(1) == "MLU370-S4, card 1"
    assert hardware_names.mlu_name(0) == "MLU, card 0"


@pytest.mark.parametrize("failure", [FileNotFoundError(), subprocess.TimeoutExpired("ask", 10)])
def test_a_program_that_does_not_answer_costs_a_name_alone(monkeypatch, failure):
    waits = []

    def run(command, timeout=None, **_):
        waits.append(timeout)
        raise failure

    monkeypatch.setattr(hardware_names.subprocess, "run", run)
    assert (hardware_names.mlu_name(1), hardware_names.cuda_card_name(2)) == ("MLU, card 1", "CUDA, card 2")
    assert waits == [hardware_names.LONGEST_ANSWER] * 2


def test_without_its_package_it_is_said_what_it_needs():
    done = run_script(
        "gen_model/run.sh", "force_float32", "1", "4", "8", "--engine=magicmind", f"--models_dir={models_dir()}"
    )
    assert done.returncode == 1
    assert "--engine=magicmind: No module named 'magicmind'; it needs Cambricon's driver" in done.stderr


def test_what_comes_from_the_card_is_float32_or_as_it_is(magicmind):
    from tools.deploy.engines.magicmind_engine import MagicMindGraph

    graph = MagicMindGraph.__new__(MagicMindGraph)
    for given, expected in (("float16", "float32"), ("float32", "float32"), ("int32", "int32")):
        value = SimpleNamespace(asnumpy=lambda given=given: np.array([1, 2], given))
        assert (graph.fetch(value).dtype, graph.fetch(value).tolist()) == (expected, [1, 2])


def test_as_many_outputs_are_wanted_as_the_graph_has_names(magicmind, monkeypatch):
    """One fewer would otherwise be looked for in vain, or taken for another."""
    from tools.deploy.engines.magicmind_engine import MagicMindGraph

    graph = MagicMindGraph.__new__(MagicMindGraph)
    graph.names, graph.outputs, graph.takes_others = [], ["mel", "gate"], True
    graph.queue = SimpleNamespace(sync=lambda: None)
    monkeypatch.setattr(graph, "_enqueue", lambda tensors, outputs: outputs.append("mel"))
    with pytest.raises(ValueError, match="shorter"):
        graph.run({})
