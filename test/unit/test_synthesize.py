"""tools/synthesize.py: what is read, what is written, what is said and what is refused."""

import io
import logging
import subprocess
import sys
import weakref

import numpy as np
import pytest
import soundfile
import torch
from full_disk import full_disk
from running_programs import wait_for
from toy_speech import FRAMES, make_models, run_synthesize

from common.program import UserError
from conftest import RATE, ROOT
from tacotron2 import synthesizer
from tacotron2.sentences import PARAGRAPH_PAUSE, SENTENCE_PAUSE
from tools import synthesize


@pytest.fixture
def models(tmp_path):
    return make_models(tmp_path)


def read(path):
    audio, rate = soundfile.read(path, dtype="int16")
    assert (rate, soundfile.info(path).subtype) == (RATE, "PCM_16")
    return audio


def messages(caplog, level=logging.WARNING):
    """But for the clipped samples: the toy's sound is loud."""
    return [r.message for r in caplog.records if r.levelno >= level and "full scale" not in r.message]


def test_sentences_are_joined_with_pauses(models, tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(synthesizer, "find_flaw", lambda utterance: "")
    run_synthesize(monkeypatch, "Hello there. Go now!\nThe end.", *models, "-o", tmp_path / "out.wav")
    audio = read(tmp_path / "out.wav")
    piece, pauses = FRAMES * 256, [round(seconds * RATE) for seconds in (SENTENCE_PAUSE, PARAGRAPH_PAUSE)]
    assert len(audio) == 3 * piece + sum(pauses)
    begin = 0
    for pause in [*pauses, 0]:
        assert np.abs(audio[begin : begin + piece]).max() > 100
        assert not audio[begin + piece : begin + piece + pause].any()
        begin += piece + pause
    last = messages(caplog, logging.INFO)[-1]
    assert last.startswith(f"wrote {tmp_path / 'out.wav'}: 1 clip(s), {len(audio) / RATE:.1f} s of audio in ")
    assert last.endswith(f"peak {np.abs(audio).max() / 32768:.2f}")
    assert not list(tmp_path.glob(".*"))


def test_a_folder_gets_a_wav_for_each_line(models, tmp_path, monkeypatch):
    (tmp_path / "text.TXT").write_bytes("\ufeffHello there.\r\n\r\n  Go now! Go.\r\n***\r\nThe end.".encode())
    (tmp_path / "new/clips").mkdir(parents=True)
    (tmp_path / "new/clips/.out_0001.wav.1.part").touch()  # of a run that was killed
    run_synthesize(monkeypatch, tmp_path / "text.TXT", "One more.", *models, "-o", tmp_path / "new/clips")
    assert not list((tmp_path / "new/clips").glob(".*.part"))
    names = ["out_0001.wav", "out_0003.wav", "out_0005.wav", "out_0006.wav"]
    assert sorted(path.name for path in (tmp_path / "new/clips").glob("out*")) == names
    lengths = [len(read(tmp_path / "new/clips" / name)) for name in names]
    two = 2 * FRAMES * 256 + round(SENTENCE_PAUSE * RATE)
    assert lengths == [FRAMES * 256, two, FRAMES * 256, FRAMES * 256]


@pytest.mark.parametrize("arguments", [[], ["-"]])
def test_standard_input_is_spoken(models, tmp_path, monkeypatch, arguments):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("\ufeffHello\r\nthere é".encode())))
    run_synthesize(monkeypatch, *arguments, *models, "-o", tmp_path / "out.wav")
    assert len(read(tmp_path / "out.wav")) == 2 * FRAMES * 256 + round(PARAGRAPH_PAUSE * RATE)


@pytest.mark.parametrize("preview", [False, True])
def test_the_seed_decides_on_the_sound(models, tmp_path, monkeypatch, preview):
    models = models[: 1 if preview else 2]
    for name, seed in [("a", 7), ("b", 7), ("c", 8)]:
        run_synthesize(monkeypatch, "Hello there. Go!", *models, f"--seed={seed}", "-o", tmp_path / f"{name}.wav")
    a, b, c = ((tmp_path / f"{name}.wav").read_bytes() for name in "abc")
    assert a == b != c


@pytest.mark.parametrize(("loud", "level"), [(0, None), (2, logging.INFO), (500, logging.WARNING)])
def test_clipped_samples_are_counted(models, tmp_path, monkeypatch, caplog, loud, level):
    caplog.set_level(logging.INFO)
    audio = torch.full((10000,), 0.9999)
    audio[:loud] = torch.tensor([1.0, -1.0]).repeat(loud // 2)
    monkeypatch.setattr(synthesize, "make_vocoder", lambda *args: lambda mel: audio)
    run_synthesize(monkeypatch, "Hello there.", *models, "-o", tmp_path / "out.wav")
    said = [(record.levelno, record.message) for record in caplog.records if "full scale" in record.message]
    share = f"{loud / 10000:.2%}"
    expected = [(level, f"{loud} of 10,000 samples ({share}) are clipped at full scale: a lower --sigma is less loud")]
    assert said == expected * bool(loud)


def test_sigma_denoiser_and_precision_change_the_sound(models, tmp_path, monkeypatch):
    wavs = []
    for i, options in enumerate([[], ["--sigma=0.1"], ["--denoiser_strength=1"], ["--amp=O1"], ["--device=cpu"]]):
        run_synthesize(monkeypatch, "Hello there.", *models, *options, "-o", tmp_path / f"{i}.wav")
        wavs.append(read(tmp_path / f"{i}.wav").tobytes())
    assert len(set(wavs)) == 4
    assert wavs[0] == wavs[4]


def test_flawed_pieces_are_counted_at_the_end(models, tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    run_synthesize(monkeypatch, "Hello there. Go now!", *models, "-o", tmp_path / "out.wav")
    assert messages(caplog) == [
        "'Hello there.' has no end after 15 frames, even in the best of 3 tries",
        "'Go now!' has no end after 15 frames, even in the best of 3 tries",
        "2 of 2 pieces of the text are flawed, listen to those named above",
    ]


def test_memory_does_not_grow_with_the_text(models, tmp_path, monkeypatch):
    """The spectrograms that exist while a text of 300 sentences is spoken: those of a window."""
    alive, most, audio = weakref.WeakSet(), [], []
    choose = synthesizer.Synthesizer._choose

    def watched(self, text, outcomes):
        spoken = choose(self, text, outcomes)
        alive.add(spoken.utterance.mel)
        return spoken

    def vocode(mel):
        most.append(len(alive))
        audio.append(torch.full((256,), len(audio) / 1000))
        return audio[-1]

    monkeypatch.setattr(synthesizer.Synthesizer, "_choose", watched)
    monkeypatch.setattr(synthesizer, "WINDOW", 10)
    monkeypatch.setattr(synthesizer, "find_flaw", lambda utterance: "")
    monkeypatch.setattr(synthesize, "make_vocoder", lambda *args: vocode)
    run_synthesize(monkeypatch, "Go now! " * 300, models[0], "-o", tmp_path / "out.wav")
    assert len(most) == 300
    assert max(most) <= 10
    # All of it is there, in its order.
    pause = round(SENTENCE_PAUSE * RATE)
    written = read(tmp_path / "out.wav")
    assert written[:: 256 + pause].tolist() == [round(i / 1000 * 32768) for i in range(300)]


def test_what_the_text_loses_is_said(models, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(synthesizer, "find_flaw", lambda utterance: "")
    run_synthesize(monkeypatch, "Мир, \x07peace", *models, "-o", tmp_path / "out.wav")
    assert messages(caplog) == ["left out: '\\x07'", "transliterated: 'М' as 'm', 'и' as 'i', 'р' as 'r'"]
    caplog.clear()
    lines = "Say {HH AH0 L OW1.\n" + "Hello ☺\n" * 30 + "***"
    run_synthesize(monkeypatch, lines, *models, "-o", tmp_path / "out.wav")
    said = messages(caplog)
    assert said[0].startswith("line 1: a brace stands alone, ")
    assert said[1] == "line 2: left out: '☺'"
    assert len(said) == 11
    assert said[-1] == "... and 23 more such remarks"


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "the text is empty: give some"),
        (" \n\t ", "the text is empty"),
        ("☻ ☺", "nothing of the text can be spoken, it needs letters or digits: left out: '☺', '☻'"),
        ("*** ... !", "nothing of the text can be spoken"),
        ("\x00\x01", "nothing of the text can be spoken"),
        ("{}", "nothing of the text can be spoken.* a brace stands alone"),
        ("{QQ}", r"nothing of the text can be spoken.* left out, no phones of ARPAbet such as HH or AH0: 'QQ'"),
        ("missing.txt", "cannot read missing.txt: No such file or directory"),
        ("latin.txt", "latin.txt is not UTF-8 text: byte 3 is 0xe9"),
        ("empty.txt", "the text is empty"),
        ("{" + "AH0 " * 200 + "}", "too many phones in one pair of braces"),
    ],
)
def test_a_text_that_cannot_be_spoken_is_refused_and_nothing_is_written(models, tmp_path, monkeypatch, text, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "latin.txt").write_bytes("café".encode("latin-1"))
    (tmp_path / "empty.txt").write_bytes(b"\xef\xbb\xbf\r\n")
    with pytest.raises(UserError, match=message):
        run_synthesize(monkeypatch, text, *models, "-o", "out.wav")
    assert not (tmp_path / "out.wav").exists()


def test_checkpoints_of_the_other_model_are_refused(models, tmp_path, monkeypatch):
    tacotron2, waveglow = tmp_path / "tacotron2_2", tmp_path / "waveglow_3"
    with pytest.raises(UserError, match="waveglow_3 is a checkpoint of WaveGlow, and one of Tacotron2 is needed here"):
        run_synthesize(
            monkeypatch, "Hi.", f"--tacotron2={waveglow}", f"--waveglow={waveglow}", "-o", tmp_path / "out.wav"
        )
    with pytest.raises(UserError, match="tacotron2_2 is a checkpoint of Tacotron2, and one of WaveGlow is needed here"):
        run_synthesize(
            monkeypatch, "Hi.", f"--tacotron2={tacotron2}", f"--waveglow={tacotron2}", "-o", tmp_path / "out.wav"
        )
    with pytest.raises(UserError, match="no checkpoint at"):
        run_synthesize(monkeypatch, "Hi.", models[0], f"--waveglow={tmp_path / 'none'}", "-o", tmp_path / "out.wav")


@pytest.mark.parametrize(
    "options",
    [
        ["--sigma=-1"], ["--sigma=nan"], ["--sigma=inf"], ["--denoiser_strength=-0.1"], ["--seed=-1"], ["--seed=x"],
        [f"--seed={2**63}"], ["--amp=O3"], ["-o", "out.mp3"], ["--nonsense"],
    ],
)  # fmt: skip
def test_wrong_options_end_with_code_2(models, monkeypatch, capsys, options):
    with pytest.raises(SystemExit) as end:
        run_synthesize(monkeypatch, "Hi.", *models, "-o", "out.wav", *options)
    assert end.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_full_disk_leaves_the_earlier_wav(models, tmp_path, monkeypatch):
    """And not half of a new one."""
    (tmp_path / "out.wav").write_bytes(b"earlier")
    with full_disk(20_000), pytest.raises(UserError, match=r"cannot write .*out.wav: File too large"):
        run_synthesize(monkeypatch, "Hello. " * 9, *models, "-o", tmp_path / "out.wav")
    assert (tmp_path / "out.wav").read_bytes() == b"earlier"
    assert not list(tmp_path.glob(".*"))


def test_as_a_program_it_says_one_line_for_an_error(models, tmp_path):
    """With code 1 and no traceback; otherwise no warnings of libraries."""
    command = [sys.executable, ROOT / "tools/synthesize.py", "--device=cpu", *models, "-o", "out.wav"]
    good = subprocess.run([*command, "Hello there."], cwd=tmp_path, capture_output=True, text=True, timeout=500)
    assert (good.returncode, (tmp_path / "out.wav").exists()) == (0, True)
    assert len(good.stderr.splitlines()) == 3  # the toy's text has no end, and is counted; samples are clipped
    bad = subprocess.run([*command, "☺"], cwd=tmp_path, capture_output=True, text=True, timeout=500)
    assert bad.returncode == 1
    assert bad.stderr.splitlines() == [
        "error: nothing of the text can be spoken, it needs letters or digits: left out: '☺'; nothing is left to speak"
    ]


def test_it_begins_to_speak_without_what_takes_seconds_to_import(models, tmp_path):
    """PyTorch's compiler, librosa's filters, plots."""
    slow = {"torch._dynamo", "sympy", "scipy.signal", "numba", "matplotlib"}
    program = (
        f"import atexit, runpy, sys; atexit.register(lambda: print('imported:', *{slow} & sys.modules.keys()));"
        "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    command = [sys.executable, "-c", program, ROOT / "tools/synthesize.py", "--device=cpu", *models, "-o", "out.wav"]
    done = subprocess.run([*command, "Hi."], cwd=tmp_path, capture_output=True, text=True, timeout=500)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "imported:"), done.stdout + done.stderr


def test_sigterm_leaves_whole_wavs_and_nothing_else(models, tmp_path):
    command = [sys.executable, ROOT / "tools/synthesize.py", "--device=cpu", *models, "-o", tmp_path / "clips", "-"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        process.stdin.write(b"Hello there.\n" * 5000)
        process.stdin.close()
        wait_for((tmp_path / "clips/out_0001.wav").exists, 240, process)
        process.terminate()
        process.stderr.read()
    assert process.returncode == 143
    left = list((tmp_path / "clips").iterdir())
    assert len(left) < 5000 and all(len(read(path)) == FRAMES * 256 for path in left)
