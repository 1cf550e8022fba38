"""Texts to mel spectrograms: batches, seeds, tries, memory."""

import logging
import weakref

import pytest
import torch
from toy_speech import TEXTS, make_checkpoint, utterance

from common.checkpoints.interchange import read
from common.device import pick_device
from tacotron2 import synthesizer as module
from tacotron2.alignment import STEPS_AT_THE_END, alignment_quality
from tacotron2.model import Utterance
from tacotron2.synthesizer import (
    LEAST_COVERAGE,
    LEAST_DIAGONALITY,
    TRIES,
    WINDOW,
    Synthesizer,
    derive_seed,
    find_flaw,
    in_batches,
    shorten,
)
from tools.convert_checkpoint import FORMS, write

CPU = pick_device("cpu")


@pytest.fixture
def path(toy, tmp_path):
    toy["tacotron2_config"]["max_decoder_steps"] = 15
    return make_checkpoint(tmp_path / "tacotron2_2", toy)


@pytest.fixture
def any_is_good(monkeypatch):
    monkeypatch.setattr(module, "find_flaw", lambda utterance: "")


def spoken_by_fake(synthesizer, monkeypatch, make):
    """Let ``make(seed)`` give the utterances; returns the list of the seeds of all calls."""
    calls = []

    def infer(text, text_lengths, seeds, make_steps):
        calls.append(seeds)
        return [make(seed) for seed in seeds]

    monkeypatch.setattr(synthesizer.model, "infer", infer)
    return calls


def test_all_texts_are_spoken_in_their_order(path, any_is_good):
    synthesizer = Synthesizer(path, CPU)
    spoken = list(synthesizer.speak(TEXTS))
    assert [each.text for each in spoken] == TEXTS
    for each in spoken:
        assert each.utterance.mel.shape == (6, each.utterance.length)
        assert each.utterance.alignment.shape[1] == len(synthesizer.symbols(each.text))
        assert (each.utterance.length, each.flaw) == (15, "")


def test_what_else_is_in_a_batch_does_not_matter(path, monkeypatch, any_is_good):
    synthesizer = Synthesizer(path, CPU)
    together = list(synthesizer.speak(TEXTS, seed=5))
    monkeypatch.setattr(module, "WINDOW", 4)
    monkeypatch.setattr(module, "SYMBOLS_IN_BATCH", 1)
    alone = list(synthesizer.speak(TEXTS, seed=5))
    for one, other in zip(together, alone, strict=True):
        assert one.utterance.length == other.utterance.length
        assert (one.utterance.mel - other.utterance.mel).abs().max() < 2e-5


def test_seed_and_place_decide_on_the_random_numbers(path, any_is_good):
    synthesizer = Synthesizer(path, CPU)
    first, again, other = (list(synthesizer.speak(TEXTS, seed)) for seed in (1, 1, 2))
    mels = [[each.utterance.mel for each in spoken] for spoken in (first, again, other)]
    assert all(torch.equal(a, b) for a, b in zip(mels[0], mels[1], strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(mels[0], mels[2], strict=True))
    # The same text at another place has other random numbers.
    assert not torch.equal(mels[0][2], mels[0][5])
    assert len({derive_seed(*numbers) for numbers in [(1, 2, 3), (1, 3, 2), (2, 1, 3), (1, 2), (123,)]}) == 5


def test_batches_are_sorted_and_bounded():
    lengths = [7, 150, 3, 90, 1, 2000, 5000, 12] * 20
    batches = list(in_batches(range(len(lengths)), lambda i: lengths[i]))
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    assert [lengths[i] for batch in batches for i in batch] == sorted(lengths)
    sizes = [len(batch) * max(lengths[i] for i in batch) for batch in batches]
    assert all(size <= module.SYMBOLS_IN_BATCH or len(batch) == 1 for size, batch in zip(sizes, batches, strict=True))
    assert len(batches) < 70
    half = module.SYMBOLS_IN_BATCH // 2
    assert list(in_batches([1, 2, 3], lambda i: half)) == [[1, 2], [3]]  # full to the last symbol


def test_what_never_ends_is_tried_again_and_said(path, caplog):
    caplog.set_level(logging.INFO)
    synthesizer = Synthesizer(path, CPU)
    seeds = []
    original = synthesizer.model.infer
    synthesizer.model.infer = lambda text, lengths, some, _: seeds.append(some) or original(text, lengths, some)
    (spoken,) = synthesizer.speak(["Hello there, this is long enough to be shortened."])
    assert len(seeds) == TRIES
    assert len({each for some in seeds for each in some}) == TRIES
    assert spoken.utterance.length == 15
    assert spoken.flaw == "has no end after 15 frames"
    lines = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert lines == [
        "'Hello there, this is long enough to b...' has no end after 15 frames, even in the best of 3 tries"
    ]


def test_what_never_ends_is_cut_where_the_text_ends(path, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    synthesizer = Synthesizer(path, CPU)
    symbols, r = 8, 2
    advancing = torch.arange(40) // 5
    there_and_on = torch.cat([advancing, torch.full((100,), symbols - 1)])
    never_there = torch.cat([advancing[:35], torch.full((105,), 3)])

    def endless(seed):
        alignment = torch.nn.functional.one_hot(there_and_on if goes_there else never_there, symbols).float()
        return Utterance(
            torch.ones(6, 140 * r),
            140 * r,
            False,
            alignment,
            torch.zeros(len(alignment)),
            *alignment_quality(alignment),
        )

    calls = spoken_by_fake(synthesizer, monkeypatch, endless)
    goes_there = True
    (spoken,) = synthesizer.speak(["Hello."])
    assert len(calls) == TRIES and not spoken.flaw
    assert spoken.utterance.mel.shape == (6, spoken.utterance.length) == (6, r * (35 + STEPS_AT_THE_END))
    assert len(spoken.utterance.alignment) == 35 + STEPS_AT_THE_END
    assert spoken.utterance.diagonality > endless(0).diagonality
    assert "has no end after 280 frames, and is cut where the attention" in caplog.text
    goes_there = False
    (spoken,) = synthesizer.speak(["Hello."])
    assert spoken.flaw == "has no end after 280 frames" and spoken.utterance.length == 280


def test_speech_that_ended_by_itself_is_never_cut_for_the_sake_of_another_try(path, monkeypatch):
    """Nor preferred to it is a try without end, well aligned as it may be."""
    synthesizer = Synthesizer(path, CPU)
    alignment = torch.nn.functional.one_hot(torch.cat([torch.arange(40) // 5, torch.full((100,), 7)]), 8).float()
    endless = Utterance(torch.ones(6, 140), 140, False, alignment, torch.zeros(140), 0.9, 0.9)
    outcomes = iter([endless, utterance(coverage=0.5), endless])
    spoken_by_fake(synthesizer, monkeypatch, lambda seed: next(outcomes))
    (spoken,) = synthesizer.speak(["Hello."])
    assert spoken.utterance.length == 4 and spoken.flaw == "was not spoken in full (coverage 0.50)"


def test_only_what_failed_is_tried_again(path, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    synthesizer = Synthesizer(path, CPU)
    good = {derive_seed(9, place, number) for place, number in [(0, 0), (1, 1), (2, 0), (3, 2)]}
    calls = spoken_by_fake(synthesizer, monkeypatch, lambda seed: utterance(stopped=seed in good))
    spoken = list(synthesizer.speak(TEXTS[:5], seed=9))
    assert [bool(each.flaw) for each in spoken] == [False, False, False, False, True]
    assert [len(seeds) for seeds in calls] == [5, 3, 2]
    said = [record.message for record in caplog.records if "'" in record.message]
    assert said[:2] == [
        "'A longer sentence, this one.' has no end after 4 frames at first; try 2 is good",
        "'Numbers: 12 and 3.5.' has no end after 4 frames at first; try 3 is good",
    ]
    assert "even in the best of 3 tries" in said[2]


def test_the_best_try_is_kept_by_both_measures(path, monkeypatch):
    synthesizer = Synthesizer(path, CPU)
    outcomes = iter([utterance(diagonality=0.3), utterance(diagonality=0.5), utterance(stopped=False)])
    spoken_by_fake(synthesizer, monkeypatch, lambda seed: next(outcomes))
    (spoken,) = synthesizer.speak(["Hello."])
    assert spoken.utterance.diagonality == 0.5
    assert spoken.flaw == "does not advance with the text (diagonality 0.50)"
    # Both measures count alike, and that it ended by itself before either.
    outcomes = iter([utterance(diagonality=0.55, coverage=0.5), utterance(diagonality=0.5, coverage=0.7), utterance(0)])
    (spoken,) = synthesizer.speak(["Hello."])
    assert spoken.utterance.coverage == 0.7


@pytest.mark.parametrize(
    "changes, flaw",
    [
        ({}, ""),
        ({"stopped": False}, "has no end after 4 frames"),
        ({"coverage": float("nan")}, "was not spoken in full (coverage nan)"),
        ({"stopped": False, "coverage": 0.1, "diagonality": 0.1}, "has no end after 4 frames"),
        ({"coverage": 0.5}, "was not spoken in full (coverage 0.50)"),
        ({"diagonality": 0.1}, "does not advance with the text (diagonality 0.10)"),
        ({"diagonality": float("nan")}, "does not advance with the text (diagonality nan)"),
    ],
)
def test_a_flaw_is_said_with_its_figure(changes, flaw):
    assert find_flaw(utterance(**changes)) == flaw


@pytest.mark.parametrize(("name", "least"), [("coverage", LEAST_COVERAGE), ("diagonality", LEAST_DIAGONALITY)])
def test_the_limits_of_flaws_are_no_flaws(name, least):
    assert 0.5 < least < 0.9  # see the numbers beside them
    assert not find_flaw(utterance(**{name: least})) and find_flaw(utterance(**{name: least - 0.001}))


def test_a_text_is_quoted_whole_or_its_beginning():
    assert [shorten("x" * length) for length in (1, 40)] == [repr("x" * length) for length in (1, 40)]
    assert shorten("x" * 41) == repr("x" * 37 + "...")


def test_texts_without_end_are_spoken_in_bounded_memory(path, monkeypatch):
    """Ten thousand texts that come one by one: neither they nor their spectrograms pile up."""
    synthesizer = Synthesizer(path, CPU)
    alive = weakref.WeakSet()
    taken = 0

    def make(seed):
        mel = torch.zeros(6, 4)
        alive.add(mel)
        return Utterance(mel, 4, seed % 5 > 0, torch.zeros(4, 3), torch.zeros(4), 0.9, 0.9)

    def texts():
        nonlocal taken
        for number in range(10_000):
            taken += 1
            yield f"Hello {'abcdefghij'[number % 10]}."

    spoken_by_fake(synthesizer, monkeypatch, make)
    logging.disable()
    most = 0
    for number, _ in enumerate(synthesizer.speak(texts()), start=1):
        most = max(most, len(alive))
        assert taken - number < WINDOW
    logging.disable(logging.NOTSET)
    assert number == 10_000
    assert most <= 3 * WINDOW


def test_a_text_is_taken_apart_into_sentences_and_what_has_no_sound_is_left_out(path):
    synthesizer = Synthesizer(path, CPU)
    pieces = synthesizer.take_apart("Hello.  ... - One, two, three.\n***\n" + "and so on " * 40)
    assert [piece.text for piece in pieces[:2]] == ["Hello.", "- One, two, three."]
    assert " ".join(piece.text for piece in pieces[2:]) == ("and so on " * 40).strip()
    assert synthesizer.take_apart(' ... "" *** \n\n -') == []
    assert synthesizer.symbols("...") == []


def test_a_text_is_cleaned_once(path, monkeypatch, any_is_good):
    """To cut it, to leave out what is no more than punctuation, and to speak it."""
    synthesizer = Synthesizer(path, CPU)
    cleaned, clean = [], module.text_to_sequence
    monkeypatch.setattr(module, "text_to_sequence", lambda text, *rest: cleaned.append(text) or clean(text, *rest))
    assert len(list(synthesizer.speak_pieces(synthesizer.take_apart("Hello. How are you? ***")))) == 2
    assert cleaned == ["Hello.", "How are you?", "***."]


@pytest.mark.parametrize("form", ["nvidia", "dle", "safetensors"])
def test_every_form_of_checkpoint_speaks_the_same(path, tmp_path, form):
    write(str(tmp_path / form), FORMS[form](read(path)))
    synthesizers = [Synthesizer(each, CPU) for each in (path, tmp_path / form)]
    synthesizers[1].model.decoder.max_decoder_steps = 15  # not every form tells
    ours, theirs = (next(each.speak(["Hello."], tries=1)).utterance.mel for each in synthesizers)
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("level", ["O1", "O2"])
def test_in_half_precision_spectrograms_are_float32_and_finite(path, level, any_is_good):
    (spoken,) = Synthesizer(path, CPU, level).speak(["Hello there."])
    assert spoken.utterance.mel.dtype == torch.float32
    assert spoken.utterance.mel.isfinite().all()
