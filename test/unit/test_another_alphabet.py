"""Tacotron2 learns German and Russian from recordings, and speaks them: nothing is lost."""

import shutil
import subprocess

import pytest
import soundfile
from alphabets import GERMAN, RUSSIAN, speak, speaking

from common.device import pick_device
from runs import start
from tacotron2.synthesizer import Synthesizer
from tacotron2.text import sequence_to_text

CPU = pick_device("cpu")
LINES = {
    "de": ["Süße Grüße!", "Über Köln.", "Ja, schön!", "Ein Fuß."],
    "ru": ["Объём, да?", "Ещё чай.", "Вот - жёлтый.", "Эта щука."],
}
ALPHABETS = {"de": GERMAN, "ru": RUSSIAN}

needs_espeak = pytest.mark.skipif(not shutil.which("espeak-ng"), reason="espeak-ng is not installed")


def make_corpus(folder, language):
    """Some lines of the language, each twice, spoken by espeak-ng."""
    (folder / "wavs").mkdir(parents=True)
    lines = []
    for i, text in enumerate(LINES[language] * 2):
        wav = folder / "wavs" / f"{i:02}.wav"
        subprocess.run(["espeak-ng", "-v", language, "-s", "450", "-w", wav, text], check=True, timeout=60)
        samples, rate = soundfile.read(wav)
        assert rate == 22050 and len(samples)
        lines.append(f"{wav.stem}|{text}\n")
    (folder / "metadata.csv").write_text("".join(lines), encoding="utf-8")
    return folder


@needs_espeak
@pytest.mark.slow
@pytest.mark.parametrize("language", ["de", "ru"])
def test_a_language_from_recordings_to_speech(tmp_path, monkeypatch, caplog, language):
    corpus = make_corpus(tmp_path / "corpus", language)
    symbols = tmp_path / "symbols.txt"
    symbols.write_text("".join(f"{symbol}\n" for symbol in ALPHABETS[language]), encoding="utf-8")
    run, _ = start(
        speaking(str(symbols)), corpus, tmp_path / "out", max_steps=200, epochs=1000, batch_size=2, learning_rate=5e-3
    )
    losses = run.progress.losses
    assert len(losses) == 200 and sum(losses[-20:]) < 0.7 * sum(losses[:20])
    symbols.unlink()  # the checkpoint has them
    synthesizer = Synthesizer(tmp_path / "out/tacotron2_200", CPU)
    assert synthesizer.cleaners == ["basic_cleaners"]
    for text in LINES[language]:
        assert sequence_to_text(synthesizer.symbols(text), synthesizer.alphabet) == text.lower()
    said = speak(monkeypatch, caplog, tmp_path / "out/tacotron2_200", tmp_path / "out.wav", *LINES[language])
    assert "left out" not in said and "transliterated" not in said
    assert soundfile.info(tmp_path / "out.wav").frames > 22050
