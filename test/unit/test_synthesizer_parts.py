"""What every synthesizer does with texts, whichever engine runs the model: symbols, seeds, tries, the choice."""

import logging
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from toy_speech import make_checkpoint, utterance

from common.hints import NAME_SYMBOLS
from common.program import UserError
from runs import CPU
from tacotron2.config import Config, DataConfig, Tacotron2Config, build_mel
from tacotron2.recorded_steps import SYMBOLS
from tacotron2.sentences import LONGEST_PIECE, Piece
from tacotron2.synthesizer import BaseSynthesizer, Synthesizer, derive_seed
from tacotron2.text import text_to_sequence

ENGLISH = ["english_cleaners"]


class Noted(BaseSynthesizer):
    """Notes what is to be spoken, and speaks it as it is told: ``make(symbols, seed)``."""

    def __init__(self, make=lambda symbols, seed: utterance(), config=None, **options):
        super().__init__("a checkpoint", config or Config(), **options)
        self.make, self.asked = make, []

    def infer(self, texts, seeds):
        self.asked.append((texts, seeds))
        return [self.make(*each) for each in zip(texts, seeds, strict=True)]


def ids(text):
    return text_to_sequence(text, ENGLISH)


def test_texts_are_read_as_sentences_and_what_has_no_sound_is_none():
    noted = Noted()
    assert noted.symbols("Dr. Who,") == ids("doctor who.")
    assert noted.symbols("5") == ids("five.")
    assert [noted.symbols(text) for text in ("", "...", "-- ,", "{XX}")] == [[]] * 4


@pytest.mark.parametrize("longest", [20, 60, None])
def test_a_piece_has_no_more_symbols_than_the_longest(longest):
    noted = Noted(**({"longest": longest} if longest else {}))
    most = longest or LONGEST_PIECE
    pieces = noted.take_apart("one two three " * 30 + "\n ... \nThe end.")
    assert " ".join(piece.text for piece in pieces) == "one two three " * 30 + "The end."
    assert most / 3 < max(len(piece.ids) for piece in pieces) <= most == noted.longest
    assert all(piece.ids == noted.symbols(piece.text) for piece in pieces)


def test_cleaners_and_dictionary_are_those_of_the_training_or_others(tmp_path):
    for name in ("own", "other"):
        (tmp_path / name).write_text(f"NUMBER  {'HH' if name == 'own' else 'B'}\n")
    config = Config(data_config=DataConfig(text_cleaners=["basic_cleaners"], dictionary=str(tmp_path / "own")))
    trained = Noted(config=config)
    assert (trained.cleaners, trained.dictionary) == (["basic_cleaners"], {"number": ["@HH"]})
    other = Noted(config=config, cleaners=("english_cleaners", "basic_cleaners"), dictionary=str(tmp_path / "other"))
    assert (other.cleaners, other.dictionary) == (["english_cleaners", "basic_cleaners"], {"number": ["@B"]})
    assert Noted(config=config, dictionary="").dictionary is None and Noted().dictionary is None
    assert Noted(dictionary=str(tmp_path / "own")).symbols("Number 5") == ids("{HH} five.")
    assert trained.symbols("Dr. Number") == text_to_sequence("dr. {HH}.", [])
    (tmp_path / "own").unlink()
    with pytest.raises(UserError, match=r"cannot read the dictionary .*own"):
        Noted(config=config)


def test_symbols_that_are_not_known_are_refused():
    config = Config(tacotron2_config=Tacotron2Config(n_symbols=60))
    with pytest.raises(UserError, match=f"^a checkpoint has 60 symbols, and does not list them: {NAME_SYMBOLS}$"):
        Noted(config=config)


def test_each_text_gets_what_is_spoken_of_it_and_a_seed_of_its_own():
    """In the order of the texts, though they are spoken in that of their lengths."""
    texts = ["The longest of all of them.", "Go!", "Not so long."]
    spoken = []

    def make(symbols, seed):
        spoken.append((symbols, seed))
        return utterance(length=len(symbols))

    noted = Noted(make)
    results = list(noted.speak(texts, seed=9))
    assert [(each.text, each.utterance.length, each.flaw) for each in results] == [
        (text, len(ids(text)), "") for text in texts
    ]
    ((asked, seeds),) = noted.asked
    assert asked == [ids(text) for text in sorted(texts, key=len)]
    assert seeds == [derive_seed(9, place, 0) for place in (1, 2, 0)]
    list(noted.speak(["..."]))  # of which there is nothing to speak
    assert noted.asked[1][0] == [[]]


def test_pieces_of_several_texts_have_the_seed_of_their_text_and_their_place_in_it():
    noted = Noted(lambda symbols, seed: utterance(coverage=0.1))
    pieces = [(Piece("a", 0.1, [5]), 7, 3), (Piece("b", 0.1, [6]), 8, 0)]
    assert [each.text for each in noted.speak_together(pieces, tries=2)] == ["a", "b"]
    assert noted.asked == [([[5], [6]], [derive_seed(7, 3, number), derive_seed(8, 0, number)]) for number in range(2)]


@pytest.mark.parametrize("tries", [1, 2, 3, 5])
@pytest.mark.parametrize("good", [0, 1, 2, 4, None])
def test_a_piece_is_tried_until_it_is_good(caplog, tries, good):
    """And the best is kept, which is said: where none is good, with its flaw; where the first was not, with that."""
    caplog.set_level(logging.INFO)
    coverages = [0.5, 0.6, 0.3, 0.4, 0.2]
    if good is not None:
        coverages[good] = 0.9
    made = iter(coverages)
    noted = Noted(lambda symbols, seed: utterance(coverage=next(made)))
    (spoken,) = noted.speak(["Hello."], tries=tries)
    needed = tries if good is None or good >= tries else good + 1
    best = max(coverages[:needed])
    assert len(noted.asked) == needed and spoken.utterance.coverage == best
    if best == 0.9:
        assert not spoken.flaw
        first = "'Hello.' was not spoken in full (coverage 0.50) at first"
        assert caplog.messages == ([f"{first}; try {needed} is good"] if needed > 1 else [])
    else:
        assert spoken.flaw == f"was not spoken in full (coverage {best:.2f})"
        assert caplog.messages == [f"'Hello.' {spoken.flaw}" + f", even in the best of {tries} tries" * (tries > 1)]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_spectrogram_that_is_not_finite_is_refused(value):
    bad = utterance()
    bad.mel[3, 2] = value
    with pytest.raises(UserError, match=r"mel spectrogram of 'Hello\.' is not finite: a checkpoint is not usable here"):
        list(Noted(lambda symbols, seed: bad).speak(["Hello."]))


@pytest.mark.parametrize("fp16_run", [False, True])
@pytest.mark.parametrize("amp", ["", "O0", "O1"])
def test_a_synthesizer_of_pytorch_says_what_it_is(toy, tmp_path, caplog, fp16_run, amp):
    caplog.set_level(logging.INFO)
    toy["train_config"]["fp16_run"] = fp16_run
    (tmp_path / "own").write_text("NUMBER  HH\n")
    toy["data_config"] = {"mel_fmax": 7000.0, "dictionary": str(tmp_path / "own")}
    device = replace(CPU, amp="O2")
    synthesizer = Synthesizer(path := make_checkpoint(tmp_path / "tacotron2_2", toy), device, amp)
    level = amp or ("O2" if fp16_run else "O0")
    assert synthesizer.precision.level == level and synthesizer.device is device
    assert f"Tacotron2 on device: cpu ({CPU.why}); precision: {level}" in caplog.messages
    assert synthesizer.bytes == sum(w.numel() * w.element_size() for w in synthesizer.model.state_dict().values())
    assert synthesizer.training.iteration == 2 and not synthesizer.model.training
    assert torch.equal(synthesizer.mel.filters, build_mel(synthesizer.config).filters)
    assert synthesizer.symbols("Dr. Number") == ids("doctor {HH}.")
    other = Synthesizer(path, device, amp, dictionary="", cleaners=["basic_cleaners"])
    assert other.symbols("Dr. Number") == text_to_sequence("dr. number.", [])


def made_for(kind, place):
    """A synthesizer on a device of this kind; its model returns what it is given."""
    own = Synthesizer.__new__(Synthesizer)
    own.device, own._make_steps = SimpleNamespace(torch_device=place, type=kind), "how steps are made"
    own.precision = SimpleNamespace(autocast=nullcontext)
    own.model = SimpleNamespace(infer=lambda *given: given)
    return own


def test_all_that_a_model_gets_is_on_its_device():
    text, lengths, *others = made_for("npu", "meta").infer([[1, 2], [3]], [4, 5])
    assert [(each.device.type, each.shape) for each in (text, lengths)] == [("meta", (2, 2)), ("meta", (2,))]
    assert others == [[4, 5], "how steps are made"]


@pytest.mark.parametrize(
    ("longest", "on_card"), [(1, SYMBOLS), (SYMBOLS, SYMBOLS), (SYMBOLS + 1, 2 * SYMBOLS), (3 * SYMBOLS, 3 * SYMBOLS)]
)
def test_texts_are_filled_up_for_cuda_cards_alone(longest, on_card):
    for kind, length in (("cpu", longest), ("npu", longest), ("cuda", on_card)):
        text, lengths, *_ = made_for(kind, "cpu").infer([[7] * longest, [8]], [4, 5])
        assert text.shape == (2, length) and lengths.tolist() == [longest, 1]
        assert text[0].tolist() == [7] * longest + [0] * (length - longest)
        assert text[1].tolist() == [8] + [0] * (length - 1)
