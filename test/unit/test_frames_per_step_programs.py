"""Several frames in a step of the decoder (n_frames_per_step): training, checkpoints, speech, deployment."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from deploy_toys import SEEDS, models_dir, raw, toy
from deploy_toys import TEXTS as TOY_TEXTS
from deploy_toys import start as start_engine
from tacotron2_toys import toy_batch
from torch.nn.utils.rnn import pad_sequence
from toy_speech import TEXTS, make_checkpoint

from common.checkpoints.interchange import fitted, read
from common.config_reading import from_dict
from common.device import pick_device
from common.program import UserError
from conftest import make_corpus, toy_tacotron2_config
from runs import CURVE, start
from tacotron2 import decoding, evaluation, train
from tacotron2.config import Config, build_model
from tacotron2.data import Clip
from tacotron2.loss import Tacotron2Loss
from tacotron2.model import padding_mask
from tacotron2.synthesizer import Synthesizer
from tools.convert_checkpoint import FORMS, to_native, write
from tools.deploy import models
from tools.deploy.artifacts import read_contents
from tools.deploy.export_model import to_onnx
from tools.deploy.graphs import EncoderGraph
from tools.deploy.infer_python import worker
from tools.deploy.infer_python.requests import Request
from tools.deploy.infer_python.synthesizer import EngineSynthesizer

CPU = pick_device("cpu")
OWN = ("sources", "tacotron2", "waveglow", "files")
"What a folder of graphs says of the models in it."
LENGTHS = ("text_lengths", "mel", "mel_lengths")


def config_of(r, **changes):
    config = toy_tacotron2_config()
    config["tacotron2_config"] |= {"n_frames_per_step": r} | changes
    return config


@pytest.fixture
def path(tmp_path):
    """A checkpoint of 2 frames a step."""
    return make_checkpoint(tmp_path / "tacotron2_2", config_of(2, max_decoder_steps=15))


@pytest.mark.parametrize("level", ["O0", "O2"])
def test_training_lowers_the_loss(tmp_path, monkeypatch, level):
    """Of clips of 19 frames; the loss is that of the steps."""
    seen = []

    def watch(model, batch, run, criterion):
        loss, output = original(model, batch, run, criterion)
        seen.append((loss.item(), output, batch))
        return loss, output

    original = train.run_teacher_forced
    monkeypatch.setattr(train, "run_teacher_forced", watch)
    corpus = make_corpus(tmp_path / "corpus", seconds=0.21)
    run, _ = start(config_of(2), corpus, tmp_path / "out", amp=level, with_tensorboard=True, **CURVE)
    before, after = (loss for _, loss in run.progress.validation_losses)
    assert after < before / 2
    assert run.progress.losses[-1] < run.progress.losses[0] / 1.5
    assert all(output[0].shape[2] == 19 and output[3].shape[1] == 10 for _, output, _ in seen)
    of_steps, of_frames = (
        [Tacotron2Loss(0.0, r)(output, *(batch[name] for name in LENGTHS)).item() for _, output, batch in seen]
        for r in (2, 1)
    )
    losses = [loss for loss, _, _ in seen]
    assert losses == pytest.approx(of_steps, rel=1e-5) and losses != pytest.approx(of_frames, rel=1e-3)


@pytest.mark.parametrize("form", ["native", *FORMS])
def test_a_checkpoint_of_any_form_tells_it(path, tmp_path, form):
    checkpoint = read(path)
    write(str(tmp_path / form), to_native(checkpoint, path) if form == "native" else FORMS[form](checkpoint))
    outputs = []
    for each in (path, tmp_path / form):
        checkpoint = read(each, "tacotron2")
        config = from_dict(Config, checkpoint.config)
        assert config.tacotron2_config.n_frames_per_step == 2
        model = build_model(config).eval()
        model.load_state_dict(fitted(each, checkpoint.weights, model))
        torch.manual_seed(0)
        outputs.append(model(*toy_batch()))
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(*outputs, strict=True))


def test_a_model_of_another_number_does_not_fit(path):
    model = build_model(from_dict(Config, config_of(1)))
    with pytest.raises(UserError, match=r"does not fit the model, 3 weights differ"):
        fitted(path, read(path).weights, model)


def test_speech(path):
    """The limit counts steps, the lengths frames; what ends by itself is of whole steps, too."""
    for spoken in Synthesizer(path, CPU).speak(TEXTS[:3], tries=1):
        utterance = spoken.utterance
        assert utterance.mel.shape == (6, 30) and utterance.alignment.shape[0] == 15
        assert spoken.flaw == "has no end after 30 frames"
    ending = Synthesizer(path, CPU)
    ending.model.decoder.gate_layer.linear_layer.bias += 1000
    utterances = [spoken.utterance for spoken in ending.speak(TEXTS[:3], tries=1)]
    assert len({each.length for each in utterances if each.stopped}) > 1
    for each in utterances:
        assert each.length == each.mel.shape[1] == 2 * each.alignment.shape[0]


def test_the_figures_of_an_evaluation_go_by_steps(path, tmp_path):
    torch.manual_seed(0)
    mel = torch.randn(6, 19)
    speaker = Synthesizer(path, CPU)
    predicted = evaluation.predict(Clip(tmp_path / "clip.wav", "A tone."), mel, speaker, seed=3)
    assert predicted.mel.shape == (6, 19)
    assert len(predicted.gate) == len(predicted.alignment) == 10
    symbols = torch.tensor([speaker.symbols("A tone.")])
    lengths = torch.tensor([symbols.shape[1]]), torch.tensor([19])
    torch.manual_seed(3)
    output = speaker.model(symbols, lengths[0], mel[None], lengths[1])
    of_steps, of_frames = (Tacotron2Loss(0.0, r)(output, lengths[0], mel[None], lengths[1]).item() for r in (2, 1))
    assert predicted.loss == pytest.approx(of_steps, rel=1e-5) and abs(of_steps - of_frames) > 1


@pytest.mark.parametrize("decoder", ["decoder", pytest.param("decoder_iter", marks=pytest.mark.slow)])
def test_deployment_speaks_as_the_model_does(path, tmp_path, decoder, monkeypatch):
    """One clip ends by itself, the others at the limit."""
    models_dir()  # skips where graphs cannot be exported
    deployed = models.load("tacotron2", str(path))
    model = deployed.model
    model.decoder.prenet.layers[0].linear_layer.weight.data *= 0.3  # else rounding errors grow from step to step
    model.decoder.gate_layer.linear_layer.bias.data += 1000
    model.decoder.gate_layer.linear_layer.weight.data *= 0.1
    model.decoder.gate_threshold = 2  # of all steps are the gates wanted first
    texts = pad_sequence(list(map(torch.tensor, TOY_TEXTS)), batch_first=True)
    lengths = torch.tensor(list(map(len, TOY_TEXTS)))
    memory = EncoderGraph(model)(texts, lengths)[0]
    gates = decoding.infer(model.decoder, memory, padding_mask(lengths, texts.shape[1]), SEEDS)[0].gate
    threshold = gates.sigmoid().amax(1).topk(2).values.mean().item()
    model.decoder.gate_threshold = deployed.config.tacotron2_config.gate_threshold = threshold
    to_onnx.write({"tacotron2": deployed, "waveglow": toy("waveglow")}, tmp_path, sigma=0.6)
    contents = replace(raw(), **{name: getattr(read_contents(tmp_path, "onnx", ""), name) for name in OWN})
    if decoder == "decoder_iter":
        del contents.files["decoder"]
    pipeline, _ = start_engine(tmp_path, contents)
    mel, mel_lengths = pipeline.spectrograms(TOY_TEXTS, SEEDS)
    utterances = model.infer(texts, lengths, SEEDS)
    assert sum(each.stopped for each in utterances) == 1
    assert mel_lengths.tolist() == [each.length for each in utterances]
    for ours, each in zip(mel, utterances, strict=True):
        assert np.abs(ours[:, : each.length] - each.mel.numpy()).max() < 4e-5
    if decoder == "decoder":
        for ours, each in zip(EngineSynthesizer(tmp_path, contents).infer(TOY_TEXTS, SEEDS), utterances, strict=True):
            assert (ours.length, ours.stopped) == (each.length, each.stopped)
            assert (ours.gate.shape, ours.alignment.shape) == (each.gate.shape, each.alignment.shape)
    monkeypatch.setattr(worker, "reader", lambda contents: lambda text: TOY_TEXTS[int(text)])
    requests = [Request(str(i), seed, tmp_path / "unused.wav") for i, seed in enumerate(SEEDS)]
    _, _, iteration = worker.do(worker.Work(tmp_path, contents, 0, 1, [], [requests], 0.6, with_waveglow=False))
    assert (iteration.endless, iteration.mels) == (2, 30)
