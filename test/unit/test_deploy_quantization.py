"""Weights in fewer bits: smaller files, near the exact numbers; what calibrates them."""

from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from deploy_toys import ENGINES, SEEDS, TEXTS, exported, make, models_dir, raw, run, start

from tools.deploy.engines import quantization
from tools.deploy.gen_model import calibration


@pytest.mark.parametrize(("change", "worst"), [(quantization.to_float16, 0.001), (quantization.to_int8, 0.02)])
@pytest.mark.parametrize("name", ["encoder", "decoder", "postnet", "waveglow"])
def test_graphs_of_weights_in_fewer_bits_are_near_the_exact_ones(name, change, worst):
    _, graph, _, inputs = exported()[name]
    small = onnx.ModelProto()
    small.CopyFrom(graph)
    change(small, smallest=64)
    given = inputs(2, 6)
    pairs = list(zip(run(small, **given).values(), run(graph, **given).values(), strict=True))
    for result, exact in pairs:
        assert result.shape == exact.shape
        difference = (result.double() - exact.double()).abs().mean()
        assert difference <= worst * (exact.double().abs().mean() + 0.1)
    assert not all(torch.equal(*pair) for pair in pairs)


@pytest.mark.parametrize(
    ("change", "share", "worst"), [(quantization.to_float16, 0.5, 0.02), (quantization.to_int8, 0.25, 0.6)]
)
def test_files_get_smaller(change, share, worst):
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
    assert np.abs(run(model, x=x)["y"].numpy() - x @ weight).max() < worst


def test_on_cards_float16_is_computed_with(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("onnxruntime.get_available_providers", lambda: ["CUDAExecutionProvider"])
        contents = make(tmp_path, quant_mode="force_float16")
    pipeline, _ = start(tmp_path, contents)  # the CPU converts back and forth
    exact, _ = start(models_dir() / "onnx", raw())
    pipeline.limit = exact.limit = 10
    (mel, lengths), (expected, _) = (each.spectrograms(TEXTS, SEEDS) for each in (pipeline, exact))
    assert 0 < np.abs(mel - expected).mean() < 0.001 * np.abs(expected).mean()
    audio, exact_audio = (each.audio(expected, lengths, 0.6, SEEDS)[0] for each in (pipeline, exact))
    assert 0 < np.abs(audio - exact_audio).mean() < 0.002 * np.abs(exact_audio).mean()


def test_a_graph_that_has_onnxruntimes_operators_already_imports_them_once():
    text = '<ir_version: 8, opset_import: ["": 18, "com.microsoft": 1]> g (float[1] x) => (float[1] y) { y = Relu (x) }'
    model = onnx.parser.parse_model(text)
    quantization.to_int8(model)
    assert [each.domain for each in model.opset_import] == ["", "com.microsoft"]


def test_a_product_of_more_than_two_axes_stays_as_it_is():
    """As a graph of the user's own may have it: ONNX Runtime's product of integers takes matrices."""
    model = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["": 18]>
        g (float[2, 3, 4] x) => (float[2, 3, 5] y) { y = MatMul (x, w) }""")
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((2, 4, 5), np.float32), "w"))
    quantization.to_int8(model, smallest=1)
    assert [node.op_type for node in model.graph.node] == ["MatMul"]


def test_a_kernel_that_convolutions_share_is_made_of_its_integers_once():
    model = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["": 18]>
        g (float[1, 4, 6] x) => (float[1, 4, 6] y) { z = Conv (x, w)  y = Conv (z, w) }""")
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((4, 4, 1), np.float32), "w"))
    quantization.to_int8(model, smallest=1, on_card=True)
    assert [node.op_type for node in model.graph.node] == ["Cast", "Mul", "Conv", "Conv"]
    assert len({node.input[1] for node in model.graph.node[2:]}) == 1
    assert [each.name for each in model.graph.initializer] == ["w.int8", "w.scale"]


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


@pytest.mark.parametrize("on_card", [False, True])
@pytest.mark.parametrize("name", ["postnet", "waveglow"])
def test_convolutions_are_products_of_integers_except_on_cards(name, on_card):
    _, graph, _, inputs = exported()[name]
    before = {node.input[1] for node in graph.graph.node if node.op_type == "Conv"}
    large = {w.name for w in graph.graph.initializer if w.name in before and np.prod(w.dims) >= 64}
    small = onnx.ModelProto()
    small.CopyFrom(graph)
    quantization.to_int8(small, smallest=64, on_card=on_card)
    products = [node for node in small.graph.node if node.op_type == "MatMulIntegerToFloat"]
    assert large and len(products) >= (0 if on_card else len(large))
    assert not (on_card and products)
    floats = {weight.name for weight in small.graph.initializer if weight.data_type == onnx.TensorProto.FLOAT}
    assert not large & floats
    given = inputs(1, 5)
    for result, exact in zip(run(small, **given).values(), run(graph, **given).values(), strict=True):
        assert (result - exact).abs().max() <= 0.05 * exact.abs().max()


@pytest.mark.parametrize(
    ("attributes", "kernel"),
    [
        ("strides = [2], pads = [1, 1], dilations = [1]", (16, 8, 3)),
        ("group = 2, pads = [1, 1], dilations = [1]", (16, 4, 3)),
        ('auto_pad = "SAME_UPPER"', (16, 8, 3)),
        ("kernel_shape = [3]", (16, 8, 3)),
        ("pads = [1, 1], dilations = [2]", (16, 8, 3)),
        ("pads = [2, 0], dilations = [1]", (16, 8, 3)),
        ("pads = [0, 3], dilations = [2]", (16, 8, 3)),
    ],
)
def test_any_convolution_of_the_users_own_is_right(attributes, kernel):
    """Also those that are no product of integers: with strides, groups, padding that follows from the size."""
    text = '<ir_version: 8, opset_import: ["": 11]> g (float[1,8,20] x) => (float y) { y = Conv <%s> (x, w) }'
    model = onnx.parser.parse_model(text % attributes)
    model.graph.output[0].type.tensor_type.ClearField("shape")
    random = np.random.default_rng(0)
    model.graph.initializer.append(onnx.numpy_helper.from_array(random.standard_normal(kernel).astype("f4"), "w"))
    x = random.standard_normal((1, 8, 20)).astype("f4")
    exact = run(model, x=x)["y"]
    quantization.to_int8(model, smallest=64)
    assert (run(model, x=x)["y"] - exact).abs().max() <= 0.03 * exact.abs().max()


BETWEEN = {
    "scalar": "b = Mul (a, scalar)",
    "channels": "b = Add (a, channels)",
    "channels of a batch": "c = Add (batch, a) b = Tanh (c)",
    "times": "b = Mul (a, times)",
    "halves": "c, d = Split <axis = 1> (a) e = Sigmoid (c) f = Mul (e, d) b = Concat <axis = -2> (f, c)",
    "halves in time": "c, d = Split <axis = 2> (a) b = Concat <axis = 2> (d, c)",
    "with a constant": "b = Concat <axis = 1> (a, batch_of_channels)",
    "a slice of channels": "c = Slice (a, zero, eight, one) b = Concat <axis = 1> (c, c)",
    "a slice of times": "b = Slice (a, zero, eight, last)",
    "a mask": "c = ReduceMean <axes = [1]> (x) d = Relu (c) b = Mul (a, d)",
    "a sum": "c = ReduceMean <keepdims = 0> (x) b = Add (a, c)",
    "the input": "c = Concat <axis = 1> (x, x) b = Sub (a, c)",
    "a graph inside": "c = ReduceMean <keepdims = 0> (x) d = Cast <to = 9> (c)"
    " b = If (d) <then_branch = t () => (float[1,16,20] t1) { t1 = Exp (a) },"
    " else_branch = f () => (float[1,16,20] f1) { f1 = Neg (a) }>",
}


@pytest.mark.parametrize("between", BETWEEN)
def test_what_lies_between_two_convolutions_is_right(between):
    """Constants of any number of axes, tensors of any other, parts, joins, what is needed in both layouts."""
    text = (
        '<ir_version: 8, opset_import: ["": 11]> g (float[1,8,20] x) => (float[1,16,20] a, float[n,c,t] y) {'
        f" a = Conv <pads = [1, 1], dilations = [1]> (x, w) {BETWEEN[between]}"
        " y = Conv <pads = [2, 2], dilations = [2]> (b, v) }"
    )
    model = onnx.parser.parse_model(text)
    random = np.random.default_rng(0)
    weights = {"w": (16, 8, 3), "v": (16, 24 if between == "with a constant" else 16, 3), "channels": (16, 1)}
    weights |= {"scalar": (), "batch": (1, 16, 1), "times": (20,), "batch_of_channels": (1, 8, 20)}
    for name, shape in weights.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(random.standard_normal(shape).astype("f4"), name))
    for name, value in {"zero": 0, "eight": 8, "one": 1, "last": -1}.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([value]), name))
    x = random.standard_normal((1, 8, 20)).astype("f4")
    exact = run(model, x=x)
    quantization.to_int8(model, smallest=64)
    onnx.checker.check_model(model)  # also that nothing is used before it is made
    assert sum(node.op_type == "MatMulIntegerToFloat" for node in model.graph.node) == 2
    for name, result in run(model, x=x).items():
        assert (result - exact[name]).abs().max() <= 0.05 * exact[name].abs().max()


def test_nothing_is_transposed_between_convolutions():
    """A layer of WaveGlow: a gate, a residual, and a condition that is a convolution, too."""
    text = """<ir_version: 8, opset_import: ["": 11]> g (float[1,16,20] x, float[1,16,20] mel) => (float[1,16,20] y) {
        a = Conv <pads = [1, 1], dilations = [1]> (x, w) b = Conv <pads = [0, 0], dilations = [1]> (mel, v)
        c = Add (a, b) d, e = Split <axis = 1> (c) f = Tanh (d) g = Sigmoid (e) h = Mul (f, g)
        i = Conv <pads = [0, 0], dilations = [1]> (h, u) j = Add (x, i)
        k = Conv <pads = [2, 2], dilations = [2]> (j, w) y, z = Split <axis = 1> (k) }"""
    model = onnx.parser.parse_model(text)
    for name, shape in {"w": (32, 16, 3), "v": (32, 16, 1), "u": (16, 16, 1)}.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(shape, "f4"), name))
    quantization.to_int8(model, smallest=64)
    kinds = [node.op_type for node in model.graph.node]
    assert (kinds.count("MatMulIntegerToFloat"), kinds.count("Transpose")) == (4, 3)


@pytest.mark.parametrize(
    ("attributes", "is_a_product"),
    [
        ("strides = [4]", True),
        ("strides = [4], pads = [0, 0], dilations = [1], output_padding = [0], group = 1", True),
        ("strides = [12]", True),
        ("strides = [5]", False),
        ("strides = [4], pads = [2, 2]", False),
        ("strides = [4], output_padding = [2]", False),
        ('strides = [4], auto_pad = "SAME_UPPER"', False),
    ],
)
def test_any_upsampling_is_right(attributes, is_a_product):
    text = (
        '<ir_version: 8, opset_import: ["": 11]> g (float[2,8,20] x) => (float y) { y = ConvTranspose <%s> (x, w, b) }'
    )
    model = onnx.parser.parse_model(text % attributes)
    model.graph.output[0].type.tensor_type.ClearField("shape")
    random = np.random.default_rng(0)
    for name, shape in (("w", (8, 6, 12)), ("b", (6,))):
        model.graph.initializer.append(onnx.numpy_helper.from_array(random.standard_normal(shape).astype("f4"), name))
    x = random.standard_normal((2, 8, 20)).astype("f4")
    exact = run(model, x=x)["y"]
    quantization.to_int8(model, smallest=64)
    assert is_a_product == any(node.op_type == "MatMul" for node in model.graph.node)
    torch.testing.assert_close(run(model, x=x)["y"], exact)


def test_8_bits_are_off_by_half_a_step_at_most():
    values = np.random.default_rng(0).standard_normal((5, 70)).astype(np.float32)
    values[3] = 0
    with np.errstate(all="raise"):
        integers, scale = quantization.quantize_weight(values, axes=(1,))
    assert integers.dtype == np.int8
    assert np.abs(integers).max() == 127
    assert (np.abs(integers * scale[:, None] - values) <= scale[:, None] / 2 + 1e-7).all()


@pytest.mark.parametrize("quant_mode", ["force_float16", "int8"])
@pytest.mark.parametrize("engine", ENGINES)
def test_in_every_engine_a_mode_changes_the_spectrogram_a_little(tmp_path, monkeypatch, engine, quant_mode):
    monkeypatch.setattr(quantization, "SMALLEST", 64)
    monkeypatch.setattr("tools.deploy.engines.torch_engine.SMALLEST", 64)
    monkeypatch.setattr(quantization.to_float16, "__defaults__", (64,))
    monkeypatch.setattr(quantization.to_int8, "__defaults__", (64, False))
    contents = make(tmp_path, engine, quant_mode)
    pipeline, _ = start(tmp_path, contents)
    exact, _ = start(models_dir() / "onnx", raw())
    pipeline.limit = exact.limit = 10  # beyond that they go different ways
    mel, _ = pipeline.spectrograms(TEXTS[2:], SEEDS[2:])
    expected, _ = exact.spectrograms(TEXTS[2:], SEEDS[2:])
    difference = np.abs(mel - expected).mean()
    assert difference < 0.004 * np.abs(expected).mean()
    assert (difference > 0) == (engine != "magicmind")  # whose stand-in computes in float32


def test_what_goes_into_the_exported_graphs_is_heard_and_the_engine_given_back(monkeypatch):
    did = []

    class Graph:
        def run(self, inputs):
            return {"y": 2 * inputs["x"]}

    def say(pipeline):
        assert pipeline.graphs["encoder"].run({"x": np.ones(1)}) == {"y": 2.0}
        pipeline.graphs["encoder"].run({"x": np.full(1, 3.0)})

    engine = SimpleNamespace(close=lambda: did.append("close"))
    monkeypatch.setattr(calibration, "find_engine", lambda name: lambda *given: did.append((name, given)) or engine)
    monkeypatch.setattr(
        calibration, "Pipeline", lambda folder, contents, engine: SimpleNamespace(graphs={"encoder": Graph()})
    )
    monkeypatch.setattr(calibration, "replace", lambda contents, **changes: did.append(changes) or contents)
    monkeypatch.setattr(calibration, "say", say)
    exported = SimpleNamespace(files={"encoder": "its file", "waveglow": "another"})
    heard = calibration.listen(SimpleNamespace(made_of={"encoder": "digest"}), "onnx", exported)
    assert heard == {"encoder": {"x": np.full(1, 3.0)}}  # the latest
    assert did == [
        ("onnxruntime", (0, 1, {})),
        {"engine": "onnxruntime", "files": {"encoder": "its file"}},
        "close",
    ]
