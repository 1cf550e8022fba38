"""The symbols go with the weights: finetuning keeps rows by symbol, and what no file says is asked for."""

import json
import sys

import pytest
import soundfile
import torch
from alphabets import GERMAN, RUSSIAN, speak, speaking

from common.checkpoints import native
from common.program import UserError
from common.training import finetuning
from conftest import toy_tacotron2_config
from runs import CPU, make_run
from tacotron2.synthesizer import Synthesizer
from tacotron2.text import text_to_sequence
from tacotron2.text.symbols import SYMBOLS
from tools import convert_checkpoint

# ---- finetuning ----


def embedding(run):
    return run.model.embedding.weight.detach().clone()


def begun(tmp_path, name, symbols, **changes):
    """A run of a toy model that has begun and not learned."""
    run = make_run(toy_of(symbols), tmp_path / name, seed=hash_of(name), **changes)
    run.start("no")
    return run


def saved(tmp_path, name, symbols):
    run = begun(tmp_path, name, symbols)
    run.progress.iteration = 70
    (tmp_path / name).mkdir()
    native.save(run.path(), run.state([]))
    return run, run.path()


def hash_of(name):
    return sum(map(ord, name))


def toy_of(symbols):
    return speaking(symbols) if symbols else toy_tacotron2_config()


@pytest.mark.parametrize(
    ("old", "new"), [(GERMAN, RUSSIAN), (RUSSIAN, GERMAN[::-1]), (GERMAN, GERMAN[::-1]), (None, GERMAN)]
)
def test_finetuning_keeps_the_rows_that_both_know(tmp_path, caplog, old, new):
    before, path = saved(tmp_path, "before", old)
    fresh = embedding(begun(tmp_path, "after", new))
    with caplog.at_level("INFO"):
        run = begun(tmp_path, "after", new, checkpoint_path=str(path))
    theirs = before.config.data_config.symbols
    assert len(embedding(run)) == len(new)
    for i, symbol in enumerate(new):
        known = symbol in theirs
        expected = embedding(before)[theirs.index(symbol)] if known else fresh[i]
        assert torch.equal(embedding(run)[i], expected), symbol
    kept = len(set(new) & set(theirs))
    assert f"{kept} of {len(new)} symbols keep their rows" in caplog.text
    assert f"{len(set(theirs) - set(new))} of the checkpoint's are left out, {len(new) - kept} rows" in caplog.text
    assert torch.equal(run.model.decoder.linear_projection.linear_layer.weight,
                       before.model.decoder.linear_projection.linear_layer.weight)  # fmt: skip
    assert run.progress.iteration == run.progress.first_iteration == 0 and not run.progress.losses
    with pytest.raises(UserError, match="--keep_optimizer does not go with another alphabet"):
        begun(tmp_path, "after", new, checkpoint_path=str(path), keep_optimizer=True)


@pytest.mark.parametrize(("drawn", "shown"), [(0, 0), (1, 1), (20, 20), (21, 20)])
def test_up_to_twenty_symbols_whose_rows_are_drawn_are_named(caplog, drawn, shown):
    old, new = ["a", "b", "c"], ["c", *(f"<{i}>" for i in range(drawn)), "a"]
    weight, fresh = torch.arange(3.0)[:, None], -torch.ones(len(new), 1)
    with caplog.at_level("INFO"):
        rows = finetuning.rows_by_symbol(weight, old, fresh, new)
    assert rows[:, 0].tolist() == [2, *[-1] * drawn, 0]
    assert f"2 of {len(new)} symbols keep" in caplog.text and "1 of the checkpoint's are left out" in caplog.text
    named = "".join([f"{drawn} rows are drawn anew", ": " * bool(shown), " ".join(new[1 : shown + 1])])
    assert caplog.messages[-1].endswith(named + " ..." * (drawn > shown))


def test_an_old_checkpoint_is_of_nvidias_symbols(tmp_path):
    before, path = saved(tmp_path, "before", None)
    state = native.load(path)
    assert state["config"]["data_config"].pop("symbols") == SYMBOLS
    native.save(path, state)
    run = begun(tmp_path, "after", SYMBOLS, checkpoint_path=str(path))
    assert torch.equal(embedding(run), embedding(before)) and run.progress.iteration == 70
    assert Synthesizer(path, CPU).symbols("Hello.") == text_to_sequence("hello.", [])


# ---- foreign checkpoints ----


@pytest.fixture
def foreign(tmp_path):
    """A German model as NVIDIA's own program saves it, and its symbols in a file."""
    run, _ = saved(tmp_path, "before", GERMAN)
    torch.save({"state_dict": run.model.state_dict(), "iteration": 7}, tmp_path / "foreign.pt")
    (tmp_path / "symbols.txt").write_text("".join(f"{symbol}\n" for symbol in GERMAN), encoding="utf-8")
    (tmp_path / "config.json").write_text(json.dumps({"data_config": {"symbols": GERMAN, "sampling_rate": 16000}}))
    return tmp_path


def test_an_unknown_alphabet_is_refused_until_it_is_said(foreign, monkeypatch, caplog):
    path, text = foreign / "foreign.pt", "Süß."
    with pytest.raises(UserError, match=r"foreign\.pt has 42 symbols, and does not list them: .*--symbols=FILE"):
        speak(monkeypatch, caplog, path, foreign / "a.wav", text)
    assert not (foreign / "a.wav").exists()
    said = speak(monkeypatch, caplog, path, foreign / "a.wav", text, f"--symbols={foreign / 'symbols.txt'}",
                 "--max_decoder_steps=5", "--gate_threshold=0.9")  # fmt: skip
    assert "text_cleaners ['basic_cleaners']" in said and "sampling_rate 22050" in said
    assert "gate_threshold" not in said and "max_decoder_steps" not in said
    assert soundfile.info(foreign / "a.wav").frames == 5 * 256
    speak(monkeypatch, caplog, path, foreign / "b.wav", text, f"--config={foreign / 'config.json'}",
          "--max_decoder_steps=5")  # fmt: skip
    assert soundfile.info(foreign / "b.wav").samplerate == 16000


def test_a_list_of_another_length_is_refused(foreign):
    with pytest.raises(UserError, match="has 42 symbols, and the list of symbols has 45"):
        Synthesizer(foreign / "foreign.pt", CPU, hints={"data_config": {"symbols": RUSSIAN}})


@pytest.mark.parametrize("form", ["native", "safetensors", "nvidia"])
def test_conversion_keeps_what_was_said(foreign, monkeypatch, form):
    command = ["convert_checkpoint.py", str(foreign / "foreign.pt"), str(foreign / "out"), f"--to={form}"]
    monkeypatch.setattr(sys, "argv", command)
    if form == "native":
        with pytest.raises(UserError, match="does not list them"):
            convert_checkpoint.main()
    else:
        convert_checkpoint.main()
    monkeypatch.setattr(sys, "argv", [*command, f"--config={foreign / 'config.json'}"])
    convert_checkpoint.main()
    if form == "nvidia":  # which has no room for it
        with pytest.raises(UserError, match="does not list them"):
            Synthesizer(foreign / "out", CPU)
        return
    synthesizer = Synthesizer(foreign / "out", CPU)
    assert synthesizer.alphabet.symbols == GERMAN and synthesizer.config.data_config.sampling_rate == 16000


def test_finetuning_from_an_unknown_alphabet(foreign):
    change = {"checkpoint_path": str(foreign / "foreign.pt")}
    with pytest.raises(UserError, match=r"has 42 symbols and does not list them: --ignore_layers=embedding\.weight"):
        begun(foreign, "after", RUSSIAN, **change)
    run = begun(foreign, "after", RUSSIAN, ignore_layers=["embedding.weight"], **change)
    assert len(embedding(run)) == len(RUSSIAN)
