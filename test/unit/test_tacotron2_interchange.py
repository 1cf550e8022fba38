"""Checkpoints of Tacotron2, of every form, compute the reference's numbers, also after conversion."""

from dataclasses import replace

import pytest
import torch

from common.checkpoints.interchange import fitted, read
from common.config_reading import from_dict
from conftest import ROOT
from tacotron2.config import Config, build_model
from tools.convert_checkpoint import FORMS, to_native, write

DATA = ROOT / "test/data/reference"
FILES = ["tacotron2.pt", "tacotron2_nvidia.pt", "tacotron2_dle.pt"]


def assert_outputs_are_the_references(path):
    numbers = torch.load(DATA / "tacotron2.pt", weights_only=True)
    checkpoint = read(path, "tacotron2")
    config = from_dict(Config, checkpoint.config)
    config = replace(config, tacotron2_config=replace(config.tacotron2_config, p_prenet_dropout=0.0))
    model = build_model(config).eval()
    model.load_state_dict(fitted(path, checkpoint.weights, model))
    inputs = (numbers["inputs"][name] for name in ("text", "text_lengths", "mel", "mel_lengths"))
    with torch.no_grad():
        outputs = model(*inputs)
    for name, output in zip(("mel", "mel_postnet", "gate", "alignments"), outputs, strict=True):
        torch.testing.assert_close(output, numbers["teacher_forced"][name], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", FILES)
def test_outputs_are_the_references(name):
    assert_outputs_are_the_references(DATA / name)


@pytest.mark.parametrize("form", ["native", *FORMS])
@pytest.mark.parametrize("name", FILES)
def test_outputs_are_the_references_after_conversion_too(tmp_path, name, form):
    checkpoint = read(DATA / name)
    native = to_native(checkpoint, name)
    write(str(tmp_path / "out"), native if form == "native" else FORMS[form](checkpoint))
    assert_outputs_are_the_references(tmp_path / "out")
