"""tools/speed/examples.py, with a stand-in for the checkout of NVIDIA's DeepLearningExamples."""

import sys
from types import SimpleNamespace

import pytest
import torch
from peer_stubs import WAVEGLOW_METHODS

import tacotron2
import tacotron2.model
import waveglow.config
from common.program import UserError
from runs import CPU
from tools import benchmark
from tools.speed import examples, jobs
from tools.speed.examples import FOLDER, examples_tacotron2, examples_waveglow, has_examples, load
from tools.speed.measure import NVIDIA, NVIDIA_EXAMPLES, OURS

# As theirs, a module adds to the path and imports a package that is found there alone.
MODEL = """
import sys
import torch
sys.path.append("added by theirs")
from tacotron2_common.layers import asked
"""
WAVEGLOW = f"""{MODEL}
class WaveGlow(torch.nn.Module):
    def __init__(self, n_group, WN_config):
        super().__init__()
        asked.append((n_group, WN_config))
{WAVEGLOW_METHODS}    def infer(self, mel, sigma):
        asked.append((mel.shape, sigma, self.training, torch.is_grad_enabled()))
        return torch.zeros(len(mel), mel.shape[2] * 256, dtype=torch.bfloat16)
"""
TACOTRON2 = f"""{MODEL}
class Tacotron2(torch.nn.Module):
    def __init__(self, n_symbols, max_decoder_steps, gate_threshold, mask_padding, decoder_no_early_stopping):
        super().__init__()
        asked.append((n_symbols, max_decoder_steps, gate_threshold, mask_padding, decoder_no_early_stopping))
        self.steps, self.weight = max_decoder_steps, torch.nn.Parameter(torch.ones(1))
    def forward(self, given):
        text, text_lengths, mel, longest, mel_lengths = given
        asked.append((text.shape, text_lengths.tolist(), mel.shape, longest, mel_lengths.tolist()))
        return self.weight
    def infer(self, text, lengths):
        asked.append((text.shape, lengths.tolist(), self.training, torch.is_grad_enabled()))
        return torch.zeros(len(text), 80, self.steps), lengths, None
"""
LOSS = """
class WaveGlowLoss:
    def __init__(self, sigma): pass
    def __call__(self, output, clean_audio): return 3 * output

class Tacotron2Loss:
    def __call__(self, output, targets):
        mel, gate = targets
        assert gate.shape == (len(mel), mel.shape[2]) and gate[0].sum() == 1 and gate[-1].sum() > 1
        return output.sum()
"""


@pytest.fixture
def checkout(tmp_path):
    files = {
        "waveglow/model.py": WAVEGLOW, "waveglow/loss_function.py": LOSS, "tacotron2/model.py": TACOTRON2,
        "tacotron2/loss_function.py": LOSS, "tacotron2_common/layers.py": "asked = []", "waveglow/__init__.py": "",
        "tacotron2/__init__.py": "import tacotron2_common.layers",
    }  # fmt: skip
    for name, text in files.items():
        path = tmp_path / FOLDER / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


@pytest.fixture
def asked(monkeypatch):
    """What the stand-ins were asked for, by the job made last."""
    loaded = []
    monkeypatch.setattr(examples, "load", lambda *given: loaded.append(load(*given)) or loaded[-1])
    return lambda: loaded[-1][0].asked


def test_waveglow_trains_at_ours_size(checkout, asked):
    job = examples_waveglow(checkout, CPU, True, "float32", 2)
    ours = waveglow.config.WaveGlowConfig()
    before = job.work()
    assert job.work() < before and job.units == 2 * 8000  # Adam has made a step
    assert asked()[0] == (ours.n_group, vars(ours.WN_config)) and asked()[-1] == ((2, 80, 32), (2, 8000))


def test_waveglow_infers(checkout, asked):
    job = examples_waveglow(checkout, CPU, False, "half", 2)
    audio = job.work()
    assert asked()[1:] == ["fused", ((2, 80, 100), 0.6, False, False)]
    assert (audio.shape, audio.dtype, job.units) == ((2, 25600), torch.float32, 2 * 25600)


def test_tacotron2_trains(checkout, asked):
    job = examples_tacotron2(checkout, CPU, True, "float32", 3)
    job.work()
    assert asked()[1] == ((3, 150), [150, 105, 60], (3, 80, 870), 150, [870, 610, 350])
    assert job.units == 870 + 610 + 350


def test_tacotron2_speaks_several_texts(checkout, asked):
    job = examples_tacotron2(checkout, CPU, False, "half", 4)
    assert job.work().shape == (4, 80, jobs.DECODED) and job.units == 4 * jobs.DECODED
    assert asked() == [(148, jobs.DECODED, 1.0, False, False), ((4, 128), [128] * 4, False, False)]


def test_ours_are_ours_again(checkout):
    names = lambda: {name for name in sys.modules if name.startswith(("tacotron2", "waveglow"))}  # noqa: E731
    path, modules, model = list(sys.path), names(), tacotron2.model.Tacotron2
    (theirs,) = load(checkout, "tacotron2.model")
    assert str(checkout) in theirs.__file__ and theirs.Tacotron2 is not model
    assert (sys.path, names()) == (path, modules)
    import tacotron2.model as ours

    assert ours.Tacotron2 is model is sys.modules["tacotron2"].model.Tacotron2


def test_ours_are_ours_after_an_error_that_is_said(checkout):
    path = list(sys.path)
    (checkout / FOLDER / "tacotron2_common/layers.py").write_text("import no_such_thing\nmore")
    with pytest.raises(UserError, match=r"Tacotron2: No module named 'no_such_thing'$"):
        load(checkout, "waveglow.model")
    assert sys.path == path and sys.modules["tacotron2"] is tacotron2


def test_they_are_measured_where_they_are(checkout, tmp_path):
    """After ours, before what takes long to compile; of NVIDIA's, they alone speak several texts."""
    assert has_examples(checkout) and not has_examples(tmp_path / "elsewhere")
    args, card = SimpleNamespace(peer_path=checkout, precision=["half"]), SimpleNamespace(type="cuda")

    def planned(job, device):
        return [(each.implementation, each.precision) for each in benchmark.planned(job, args, device)]

    for job in ("waveglow-train", "waveglow-infer", "tacotron2-train", "tacotron2-infer"):
        assert planned(job, CPU)[:2] == [(NVIDIA, "float32"), (OURS, "half")]
        assert (NVIDIA_EXAMPLES, "float32") in planned(job, CPU) and (NVIDIA_EXAMPLES, "half") not in planned(job, CPU)
    theirs = [(NVIDIA_EXAMPLES, "float32"), (NVIDIA_EXAMPLES, "half")]
    both = [(NVIDIA, "float32"), (NVIDIA, "half"), (OURS, "half")]
    assert planned("tacotron2-infer", card) == [*both, *theirs, *[(OURS, "half"), *theirs] * 2]
    training = planned("waveglow-train", card)
    assert training[:-1] == [*both, (OURS, "half, recomputed"), *theirs, (OURS, "half, compiled")]
    args.peer_path = None
    assert not set(theirs) & set(planned("waveglow-infer", card))
