"""The graphs for others: what is written into each, the table of ports, and a program without this repository."""

import ast
import importlib.util
import json
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import soundfile
import torch
from deploy_toys import make, models_dir, toy

from common.mel_forms import FLOOR
from conftest import ROOT
from tools.deploy.artifacts import ONNX, read_contents
from tools.deploy.export_model.metadata import describe, settings
from tools.deploy.models import PACKAGES
from tools.deploy.signatures import GRAPHS, tacotron2_signatures, waveglow_signatures

EXAMPLE = ROOT / "tools/deploy/example.py"


def metadata(path) -> dict[str, str]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.get_modelmeta().custom_metadata_map


@pytest.mark.parametrize("name", GRAPHS)
def test_each_graph_tells_its_ports_and_what_both_models_are(name):
    told = metadata(models_dir() / ONNX / f"{name}.onnx")
    signature = toy("waveglow" if name == "waveglow" else "tacotron2").signatures()[name]
    ports = json.loads(told["ports"])
    for which, expected in (("inputs", signature.inputs), ("outputs", signature.outputs)):
        assert list(ports[which]) == list(expected)
        for port, (axes, dtype, meaning) in zip(expected.values(), map(dict.values, ports[which].values())):
            assert (tuple(axes), dtype, meaning) == (port.axes, port.dtype, port.meaning)
            assert meaning
    config = toy("tacotron2").config
    assert json.loads(told["symbols"]) == config.data_config.symbols
    numbers = {key: float(told[key]) for key in ("sampling_rate", "hop_length", "mel_fmax", "n_mel_channels", "sigma")}
    assert numbers == dict(sampling_rate=22050, hop_length=256, mel_fmax=8000, n_mel_channels=6, sigma=0.6)
    assert float(told["silence"]) == FLOOR


def test_engines_of_onnxruntime_tell_it_too(tmp_path):
    make(tmp_path, quant_mode="int8")
    assert metadata(tmp_path / "decoder.onnx") == metadata(models_dir() / ONNX / "decoder.onnx")


def test_what_is_told_of_dropout_noise_and_texts_is_this_models(tmp_path):
    contents = read_contents(models_dir() / ONNX, ONNX, "")
    contents.tacotron2.tacotron2_config.p_prenet_dropout, contents.sigma = 0.2, 0.45
    contents.tacotron2.data_config.text_cleaners = ["basic_cleaners"]
    signature = contents.signature("decoder")
    assert ": 1.25 with probability 0.8, else 0" in signature.inputs["prenet_masks"].meaning
    model = onnx.ModelProto()
    describe(model, signature, contents)
    told = {each.key: each.value for each in model.metadata_props}
    assert (told["p_prenet_dropout"], told["sigma"], told["text_cleaners"]) == ("0.2", "0.45", '["basic_cleaners"]')


def test_every_number_that_is_told_is_that_of_its_name():
    """Each setting has a value that no other has."""
    contents = read_contents(models_dir() / ONNX, ONNX, "")
    told = settings(contents)
    owners = (contents.tacotron2.tacotron2_config, contents.tacotron2.data_config, contents.waveglow.data_config)
    changed, shared = {}, ("sigma", "silence", "mel_form", "symbols", "text_cleaners")
    for i, name in enumerate(name for name in told if name not in shared):
        changed[name] = str(1000 + i)
        for owner in owners:
            if hasattr(owner, name):
                setattr(owner, name, 1000 + i)
    again = settings(contents)
    assert {name: str(value) for name, value in again.items() if name not in shared} == changed
    assert len(changed) > 10 and {name: again[name] for name in shared} == {name: told[name] for name in shared}


def test_the_table_of_ports_in_the_docs():
    signatures = {}
    for kind, of in (("tacotron2", tacotron2_signatures), ("waveglow", waveglow_signatures)):
        signatures |= of(PACKAGES[kind].Config())
    rows = [
        f"| `{graph}` | {which} | `{name}` | {port.dtype} [{', '.join(map(str, port.axes))}] | {port.meaning} |"
        for graph, signature in signatures.items()
        for which, ports in (("in", signature.inputs), ("out", signature.outputs))
        for name, port in ports.items()
    ]
    docs = (ROOT / "docs/deployment.md").read_text()
    assert "\n".join(rows) in docs


def test_the_example_needs_nothing_of_this_repository(tmp_path):
    tree = ast.walk(ast.parse(EXAMPLE.read_text()))
    names = {alias.name for node in tree if isinstance(node, ast.Import | ast.ImportFrom) for alias in node.names}
    assert names == {"json", "sys", "wave", "numpy", "onnxruntime"}
    (tmp_path / "example.py").write_bytes(EXAMPLE.read_bytes())
    command = [sys.executable, "-I", "example.py", models_dir() / ONNX, "Of good cheer.", "out.wav"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    audio, rate = soundfile.read(tmp_path / "out.wav")
    assert rate == 22050
    assert len(audio) % 256 == 0
    assert len(audio) and np.abs(audio).max() > 0


def load_example():
    spec = importlib.util.spec_from_file_location("example", EXAMPLE)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    return example


def test_what_is_too_loud_for_the_examples_wav_is_clipped(tmp_path):
    example = load_example()
    example.speak = lambda folder, text: (np.array([2.0, -2.0, 0.5], np.float32), 22050)
    example.main("graphs", "Text.", str(tmp_path / "a.wav"))
    assert soundfile.read(tmp_path / "a.wav")[0] == pytest.approx([1, -1, 0.5], abs=1e-4)


@pytest.mark.parametrize("text", ["148", "3 148", "漢", ""])
def test_the_example_refuses_what_is_neither_letters_nor_ids(text):
    example = load_example()
    with pytest.raises(AssertionError, match="give letters, or ids from 0 to 147"):
        example.speak(str(models_dir() / ONNX), text)


def test_the_example_reads_capitals_as_the_models_do():
    example = load_example()
    small, capital = (example.speak(str(models_dir() / ONNX), text)[0] for text in ("of", "OF"))
    assert np.array_equal(small, capital)


def test_a_number_among_words_makes_no_ids_of_them():
    example = load_example()
    with_number, without = (example.speak(str(models_dir() / ONNX), text)[0] for text in ("of 4", "of "))
    assert np.array_equal(with_number, without)  # which has no letter for it


@torch.no_grad()
def test_the_example_says_what_the_models_say():
    example = load_example()
    ids = [12, 40, 3, 44, 9]
    audio, _ = example.speak(str(models_dir() / ONNX), " ".join(map(str, ids)), seed=3)
    random = np.random.default_rng(3)
    tacotron2, waveglow = toy("tacotron2").modules(), toy("waveglow").modules()["waveglow"]
    memory, keys, _ = tacotron2["encoder"](torch.tensor([ids]), torch.tensor([5]))
    masks = 2 * torch.from_numpy(random.random((1, 40, 2, 12)) < 0.5).float()
    mask, limit = torch.zeros(1, 5, dtype=torch.bool), torch.tensor([40])
    mel, _, _, lengths = tacotron2["decoder"](memory, keys, mask, masks, limit)
    mel = tacotron2["postnet"](mel, lengths)[:, :, : lengths[0], None]
    z = torch.from_numpy(random.standard_normal((1, 8, 32 * mel.shape[2], 1), np.float32))
    expected = waveglow(mel, z, torch.tensor([0.6]))[0]
    assert audio.shape == expected.shape
    assert np.abs(audio - expected.numpy()).max() < 1e-5
