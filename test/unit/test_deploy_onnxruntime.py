"""The engine of ONNX Runtime: the order of nodes, threads, values in place, cards."""

import numpy as np
import onnx
import onnxruntime
import pytest
from deploy_toys import make, models_dir, raw, start

from common.program import UserError
from tools.deploy.engines.engine import Build
from tools.deploy.engines.onnxruntime_engine import OnnxRuntime, put_in_order_of


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


@pytest.mark.parametrize(("options", "spins"), [({}, "1"), ({"spinning": True}, "1"), ({"spinning": False}, "0")])
def test_threads_of_onnxruntime_wait_busily_within_a_graph_alone(options, spins):
    engine = OnnxRuntime(0, 1, options)
    session = engine.load(models_dir() / "onnx/postnet.onnx", "postnet", raw()).session
    entry = session.get_session_options().get_session_config_entry
    assert entry("session.intra_op.allow_spinning") == spins
    assert entry("session.force_spinning_stop") == "1"


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


def test_a_card_that_onnxruntime_cannot_use_is_no_silent_cpu(tmp_path, monkeypatch):
    contents = make(tmp_path)
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CUDAExecutionProvider"])
    with pytest.raises(UserError, match="device 3 does not exist, or onnxruntime-gpu cannot use it"):
        start(tmp_path, contents, device=3)


@pytest.mark.parametrize("spinning", [False, True])
def test_onnxruntime_takes_the_threads_that_it_was_given(monkeypatch, tmp_path, spinning):
    models_dir()  # whose making is compared in sessions of its own
    given, session = [], onnxruntime.InferenceSession
    monkeypatch.setattr("onnxruntime.InferenceSession", lambda *args: given.append(args[1]) or session(*args))
    contents = raw()
    contents.options = {"spinning": spinning}
    _, engine = start(models_dir() / "onnx", contents)
    assert {options.intra_op_num_threads for options in given} == {engine.threads}
    spins = {options.get_session_config_entry("session.intra_op.allow_spinning") for options in given}
    assert spins == {str(int(spinning))}
    # Else a long text takes many times as long.
    assert {options.get_session_config_entry("session.set_denormal_as_zero") for options in given} == {"1"}


def test_engines_of_onnxruntime_are_for_every_machine(tmp_path):
    """What is good for one processor alone, as a convolution and what follows it in one, comes when they are loaded."""
    text = '<ir_version: 8, opset_import: ["": 18]> g (float[1,16,8] x) => (float y) { a = Conv (x, w) y = Relu (a) }'
    model = onnx.parser.parse_model(text)
    model.graph.output[0].type.tensor_type.ClearField("shape")
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((16, 16, 3), np.float32), "w"))
    onnx.save(model, tmp_path / "a.onnx")
    source = raw().sources["waveglow"]
    request = Build("waveglow", raw().signature("waveglow"), tmp_path / "a.onnx", source, "force_float32", {})
    OnnxRuntime.build(request, tmp_path / "built.onnx")
    assert [node.op_type for node in onnx.load(tmp_path / "built.onnx").graph.node] == ["Conv", "Relu"]
