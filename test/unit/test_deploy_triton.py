"""The model repository for NVIDIA's Triton: by Triton's protobuf, by the models' numbers, and on a Triton server."""

import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import onnxruntime
import pytest
import torch
from deploy_toys import models_dir, toy
from google.protobuf import json_format, text_format

from conftest import ROOT, script_environment
from tools.deploy.triton import __main__ as program

IDS = [12, 40, 3, 44, 9]
CPU, INT64, FP32 = 2, 9, 11
"Of Triton's protobuf: the kind of an instance, and types."


@pytest.fixture
def repository(run_here, tmp_path):
    """Of the toy models, for Triton's Python backend."""
    return write(run_here, tmp_path, "--backend=python")


def write(run_here, tmp_path, *options) -> Path:
    done = run_here(program.main, f"--models_dir={models_dir()}", "-o", "repository", "--max_batch=4", *options)
    assert done.returncode == 0, done.stderr
    return tmp_path / "repository"


def load(path: Path, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def parsed(path: Path):
    """By Triton's own description of the format, which needs nothing of the rest of its client."""
    (folder,) = importlib.util.find_spec("tritonclient").submodule_search_locations
    return text_format.Parse(path.read_text(), load(Path(folder) / "grpc/model_config_pb2.py", "pb2").ModelConfig())


@pytest.mark.parametrize("backend", ["onnxruntime", "python"])
def test_configurations_are_what_triton_reads(run_here, tmp_path, backend):
    folder = write(run_here, tmp_path, f"--backend={backend}")
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == [
        "decoder", "encoder", "postnet", "speech", "waveglow",
    ]  # fmt: skip
    numbers = {"tensor(int64)": "TYPE_INT64", "tensor(int32)": "TYPE_INT32", "tensor(bool)": "TYPE_BOOL"}
    for name in ("encoder", "decoder", "postnet", "waveglow"):
        config = parsed(folder / name / "config.pbtxt")
        assert (config.name, config.backend, config.max_batch_size) == (name, backend, 4)
        assert config.dynamic_batching.max_queue_delay_microseconds == 5000
        groups = [(group.kind, group.count) for group in config.instance_group]
        assert groups == ([(CPU, 0)] if backend == "python" else [])  # that of ONNX Runtime finds its cards itself
        assert (folder / name / "1/model.py").exists() == (backend == "python")
        session = onnxruntime.InferenceSession(str(folder / name / "1/model.onnx"))
        for told, ports in ((config.input, session.get_inputs()), (config.output, session.get_outputs())):
            assert [port.name for port in told] == [port.name for port in ports]
            for ours, port in zip(told, ports):
                own = ours.reshape.shape if ours.HasField("reshape") else ours.dims
                assert list(own) == [axis if isinstance(axis, int) else -1 for axis in port.shape[1:]]
                data_type = json_format.MessageToDict(ours)["dataType"]
                assert data_type == numbers.get(port.type, "TYPE_FP32")
    speech = parsed(folder / "speech/config.pbtxt")
    assert {port.name: port.optional for port in speech.input} == {"sequences": False, "seed": True, "sigma": True}
    assert (speech.name, speech.backend, speech.max_batch_size) == ("speech", "python", 0)
    assert [(group.kind, group.count) for group in speech.instance_group] == [(CPU, 4)]  # one clip in each
    assert {port.name: (list(port.dims), port.data_type) for port in (*speech.input, *speech.output)} == {
        "sequences": ([-1], INT64), "seed": ([1], INT64), "sigma": ([1], FP32), "audio": ([-1], FP32),
    }  # fmt: skip
    assert {name: speech.parameters[name].string_value for name in ("prenet_dim", "n_group")} == {
        "prenet_dim": "12", "n_group": "8",
    }  # fmt: skip
    assert json.loads(speech.parameters["symbols"].string_value) == toy("tacotron2").config.data_config.symbols


def test_a_repository_is_written_while_nobody_else_writes(run_here, tmp_path, monkeypatch):
    held = []
    monkeypatch.setattr(program, "hold_folder", lambda folder, **_: held.append((folder, list(folder.iterdir()))))
    write(run_here, tmp_path)
    assert held == [(Path("repository"), [])]


def test_on_a_cpu_a_graph_has_the_cpu_alone(triton):
    """As the configuration of its instances says, whatever else ONNX Runtime knows of there."""
    assert triton.models["encoder"].session.get_providers() == ["CPUExecutionProvider"]


def test_what_the_other_backend_would_run_does_not_stay(run_here, repository, tmp_path):
    write(run_here, tmp_path, "--backend=onnxruntime")
    assert [path.parts[-3] for path in repository.glob("*/1/model.py")] == ["speech"]


class ModelError(Exception):
    """Of a model."""


def stand_in(folder: Path) -> SimpleNamespace:
    """Of triton_python_backend_utils: requests go to the models of the repository, without a server."""
    models = {}

    class Tensor:
        def __init__(self, name, array):
            self.name, self.as_numpy = lambda: name, lambda: array

    class Response:
        def __init__(self, tensors=(), error=None):
            self.output_tensors, self.has_error, self.error = lambda: tensors, lambda: bool(error), lambda: error

    class Request:
        def __init__(self, model_name, requested_output_names, inputs, preferred_memory=None):
            self.model_name, self.wanted, self.inputs = model_name, requested_output_names, inputs

        def exec(self):
            config = parsed(folder / self.model_name / "config.pbtxt")
            flat = {port.name for port in (*config.input, *config.output) if port.HasField("reshape")}
            shaped = [Tensor(t.name(), t.as_numpy()[:, 0] if t.name() in flat else t.as_numpy()) for t in self.inputs]
            (response,) = models[self.model_name].execute([SimpleNamespace(inputs=shaped)])
            found = {t.name(): t.as_numpy() for t in response.output_tensors()}
            found = {name: each[:, None] if name in flat else each for name, each in found.items()}
            return Response([Tensor(name, found[name]) for name in self.wanted])

    utils = SimpleNamespace(
        Tensor=Tensor, InferenceResponse=Response, InferenceRequest=Request, TritonModelException=ModelError,
        TritonError=lambda message: SimpleNamespace(message=lambda: message), TRITONSERVER_MEMORY_CPU=0,
        PreferredMemory=lambda *where: where,
        get_input_tensor_by_name=lambda request, name: next((t for t in request.inputs if t.name() == name), None),
    )  # fmt: skip
    sys.modules["triton_python_backend_utils"] = utils
    for path in sorted(folder.glob("*/1/model.py")):
        name = path.parts[-3]
        models[name] = load(path, name).TritonPythonModel()
        config = json_format.MessageToDict(parsed(folder / name / "config.pbtxt"), preserving_proto_field_name=True)
        models[name].initialize(
            {"model_config": json.dumps(config), "model_repository": str(folder / name), "model_version": "1"}
        )
    return SimpleNamespace(models=models, utils=utils)


@pytest.fixture
def triton(repository, monkeypatch):
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", None)
    return stand_in(repository)


def speech(triton, **inputs):
    tensors = [triton.utils.Tensor(name, np.array(value)) for name, value in inputs.items()]
    (response,) = triton.models["speech"].execute([SimpleNamespace(inputs=tensors)])
    return response.error().message() if response.has_error() else response.output_tensors()[0].as_numpy()


@torch.no_grad()
def expected(seed: int, sigma: float) -> np.ndarray:
    """By the models themselves, with the random numbers of a seed."""
    random = np.random.default_rng(seed)
    tacotron2, waveglow = toy("tacotron2").modules(), toy("waveglow").modules()["waveglow"]
    memory, keys, _ = tacotron2["encoder"](torch.tensor([IDS]), torch.tensor([len(IDS)]))
    masks = 2 * torch.from_numpy(random.random((1, 40, 2, 12)) < 0.5).float()
    mask = torch.zeros(1, len(IDS), dtype=torch.bool)
    mel, _, _, lengths = tacotron2["decoder"](memory, keys, mask, masks, torch.tensor([40]))
    mel = tacotron2["postnet"](mel, lengths)[:, :, : lengths[0]]
    padded = torch.nn.functional.pad(mel, (0, -mel.shape[2] % 64), value=float(np.log(1e-5)))
    z = torch.from_numpy(random.standard_normal((1, 8, 32 * padded.shape[2], 1), np.float32))
    return waveglow(padded[..., None], z, torch.tensor([sigma]))[0, : 256 * mel.shape[2]].numpy()


def test_speech_is_what_the_models_say(triton):
    for seed, sigma in ((3, 0.6), (4, 0.3)):
        audio = speech(triton, sequences=IDS, seed=[seed], sigma=[sigma])
        exact = expected(seed, sigma)
        assert audio.shape == exact.shape
        assert np.abs(audio - exact).max() < 1e-5
    np.testing.assert_array_equal(speech(triton, sequences=IDS), speech(triton, sequences=IDS, seed=[0], sigma=[0.6]))


def test_requests_of_a_batch_get_their_own_parts(triton):
    encoder, tensor = triton.models["encoder"], triton.utils.Tensor
    texts = [np.array([[5, 6, 7], [8, 9, 10]]), np.array([[11, 12, 13]])]
    requests = [
        SimpleNamespace(inputs=[tensor("sequences", ids), tensor("sequence_lengths", np.full(len(ids), 3, np.int32))])
        for ids in texts
    ]
    together = encoder.execute(requests)
    for request, response in zip(requests, together, strict=True):
        (alone,) = encoder.execute([request])
        for one, other in zip(response.output_tensors(), alone.output_tensors(), strict=True):
            assert one.as_numpy().shape == other.as_numpy().shape
            assert np.abs(one.as_numpy() - other.as_numpy()).max() < 1e-5


@pytest.mark.parametrize("ids", [[], [-1], [148]])
def test_ids_that_are_none(triton, ids):
    assert "sequences must be one id or more, from 0 to 147" in speech(triton, sequences=np.array(ids, np.int64))


@pytest.mark.parametrize("ids", [[0], [147]])
def test_the_first_and_the_last_id_are_spoken(triton, ids):
    assert speech(triton, sequences=ids).dtype == np.float32


def test_a_model_that_fails_is_said_to_who_asked(triton):
    failed = triton.utils.InferenceResponse(error=triton.utils.TritonError("no memory"))
    asks, execute = triton.utils.InferenceRequest, triton.utils.InferenceRequest.exec
    asks.exec = lambda request: failed if request.model_name == "postnet" else execute(request)
    assert speech(triton, sequences=IDS) == "no memory"


def test_what_is_as_long_as_a_step_is_not_padded(triton):
    """Texts of up to a multiple of the step share a batch, and so do spectrograms."""
    seen, execute = {"encoder": [], "waveglow": []}, triton.utils.InferenceRequest.exec

    def listen(request):
        if request.model_name in seen:
            seen[request.model_name].append(request.inputs[0].as_numpy().shape)
        return execute(request)

    triton.utils.InferenceRequest.exec = listen
    for length in (1, 32, 33):
        speech(triton, sequences=[5] * length)
    assert seen == {"encoder": [(1, 32), (1, 32), (1, 64)], "waveglow": [(1, 6, 64, 1)] * 3}


def test_the_prenets_dropout_is_the_models(triton):
    """What is kept makes up for what is not."""
    masks, execute = [], triton.utils.InferenceRequest.exec

    def listen(request):
        masks.extend(each.as_numpy() for each in request.inputs if each.name() == "prenet_masks")
        return execute(request)

    triton.utils.InferenceRequest.exec = listen
    triton.models["speech"].about["p_prenet_dropout"] = "0.2"
    speech(triton, sequences=IDS)
    assert set(np.unique(masks[0])) == {np.float32(0), np.float32(1.25)}
    assert (masks[0] == 0).mean() == pytest.approx(0.2, abs=0.05)


@pytest.mark.parametrize(("given", "code"), [("0", 2), ("1025", 2), ("1", 0), ("1024", 0)])
def test_how_many_clips_share_a_batch(run_here, tmp_path, monkeypatch, given, code):
    written = []
    monkeypatch.setattr("tools.deploy.triton.repository.write_repository", lambda *args: written.append(args[-2:]))
    done = run_here(program.main, f"--models_dir={models_dir()}", "-o", "repository", f"--max_batch={given}")
    assert (done.returncode, written) == (code, [("onnxruntime", int(given))] * (code == 0))
    run_here(program.main, f"--models_dir={models_dir()}", "-o", "repository")
    assert written[-1] == ("onnxruntime", 8)


def test_without_graphs(run_here, tmp_path):
    done = run_here(program.main, f"--models_dir={tmp_path}", "-o", "repository")
    assert done.returncode == 1
    assert f"export_model/run.sh --models_dir={tmp_path}\n" in done.stderr
    assert not (tmp_path / "repository").exists()


@pytest.mark.slow
def test_a_triton_server_speaks(repository):
    """The environment of requirement-triton.txt is named by TRITON_ENVIRONMENT."""
    if not os.environ.get("TRITON_ENVIRONMENT"):
        pytest.skip("TRITON_ENVIRONMENT names no environment with nvidia-pytriton")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = ROOT / "tools/deploy/triton/serve.sh"
    options = [f"--http-port={port}", "--http-address=127.0.0.1", "--allow-grpc=false", "--allow-metrics=false"]
    server = subprocess.Popen(
        ["bash", script, os.environ["TRITON_ENVIRONMENT"], repository, *options], env=script_environment()
    )
    try:
        wait_for(f"http://127.0.0.1:{port}/v2/health/ready", server)
        with ThreadPoolExecutor(8) as pool:
            seeds = [3, 4, 3, 4, 3, 4, 3, 4]
            clips = list(pool.map(lambda seed: ask(port, IDS, seed), seeds))
        for seed, clip in zip(seeds, clips, strict=True):
            assert np.abs(clip - expected(seed, 0.6)).max() < 1e-3
        with pytest.raises(urllib.error.HTTPError) as refused:
            ask(port, [148], 1)
        assert b"sequences must be one id or more" in refused.value.read()
    finally:
        server.terminate()
        server.wait(60)


def wait_for(address: str, server: subprocess.Popen) -> None:
    for _ in range(240):
        assert server.poll() is None
        try:
            urllib.request.urlopen(address, timeout=5)
            return
        except OSError:
            time.sleep(0.5)
    raise TimeoutError(address)


def ask(port: int, ids: list[int], seed: int) -> np.ndarray:
    inputs = [
        {"name": "sequences", "shape": [len(ids)], "datatype": "INT64", "data": ids},
        {"name": "seed", "shape": [1], "datatype": "INT64", "data": [seed]},
    ]
    address = f"http://127.0.0.1:{port}/v2/models/speech/infer"
    with urllib.request.urlopen(address, json.dumps({"inputs": inputs}).encode(), timeout=120) as answer:
        return np.array(json.load(answer)["outputs"][0]["data"], np.float32)
