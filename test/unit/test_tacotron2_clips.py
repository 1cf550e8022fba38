"""The clips of a corpus, one by one: which text is whose, what is a fault, what the model gets."""

import re
from dataclasses import replace

import numpy as np
import pytest
import soundfile

from common.audio import Fault
from common.bad_clips import BadClips
from common.program import UserError
from conftest import RATE
from tacotron2.config import DataConfig
from tacotron2.data import Clip, Utterances, count_samples_and_symbols, find_utterances
from tacotron2.text import text_to_sequence

CONFIG = DataConfig()


def test_a_clip_has_the_text_of_its_first_line(corpus):
    lines = ["clip00|One.", "CLIP00|Two.", *(f"clip{i:02}|Text {i}." for i in range(1, 13))]
    (corpus / "metadata.csv").write_text("\n".join(lines))
    told = r"metadata\.csv: CLIP00 is .*wavs/clip00\.wav, which has another line"
    with pytest.raises(UserError, match=told):
        find_utterances(CONFIG, str(corpus))
    bad = BadClips("skip")
    training, held_back = find_utterances(CONFIG, str(corpus), bad)
    assert [clip.text for clip in held_back + training] == ["One.", *(f"Text {i}." for i in range(1, 13))]
    ((message, kind),) = bad.faults.items()
    assert re.search(told, message) and kind is Fault.TEXT


def test_who_gathers_mistakes_is_told_of_them_later(corpus):
    """Unless they leave too few clips."""
    (corpus / "metadata.csv").write_text("clip00|One.\nclip01|Two.\nclip02\n")
    bad = BadClips("stop")
    training, held_back = find_utterances(CONFIG, str(corpus), bad)
    assert [clip.text for clip in held_back + training] == ["One.", "Two."] and len(bad.faults) == 1
    with pytest.raises(UserError, match="line 3 has 1 columns"):
        find_utterances(CONFIG, str(corpus))


@pytest.mark.parametrize(
    ("audio", "text", "said", "kind"),
    [
        (np.full(1024, 0.5), "A.", "", None),
        (np.full(1023, 0.5), "A.", "has 1023 samples, fewer than a frame's 1024", Fault.SHORT),
        (np.zeros(1023), "5", "has 1023 samples, fewer than a frame's 1024", Fault.SHORT),
        (np.full(1024, 0.5), "...", ": of its text '...' nothing is left to speak", Fault.TEXT),
        pytest.param(
            np.zeros(1024), "☃" * 60, f": of its text {'☃' * 50!r} nothing is left to speak", Fault.TEXT, id="lost"
        ),
        (np.resize([1 / 32768, -1 / 32768], 1024), "A.", "is silent, though its text is 'A.'", Fault.SILENT),
        pytest.param(np.zeros(1024), "a" * 60, f"is silent, though its text is {'a' * 50!r}", Fault.SILENT, id="mute"),
    ],
)
def test_a_clip_that_cannot_be_learned_from_is_a_fault_with_its_reason(tmp_path, audio, text, said, kind):
    path = tmp_path / "a.wav"
    soundfile.write(path, audio, RATE)
    clip, bad = Clip(path, text), BadClips("skip")
    found = count_samples_and_symbols([clip], CONFIG, bad)
    if kind is None:
        assert found == ([len(audio)], [2]) and not bad.faults
        return
    assert found == ([0], [0]) and [*bad.paths] == [path]
    ((message, fault),) = bad.faults.items()
    assert said in message and message.startswith(str(path)) and fault is kind
    with pytest.raises(UserError, match=re.escape(said)):
        count_samples_and_symbols([clip], CONFIG)


@pytest.mark.parametrize("peak", [1.5, -1.5, 1.0, -1.0])
def test_samples_beyond_full_scale_are_said_whatever_their_sign(tmp_path, caplog, peak):
    soundfile.write(tmp_path / "a.wav", np.resize([peak, 0.2], 3000), RATE, subtype="FLOAT")
    count_samples_and_symbols([Clip(tmp_path / "a.wav", "A.")], CONFIG)
    said = "1 clip(s) have samples beyond full scale, which are clipped"
    assert caplog.messages == [said] * (abs(peak) > 1)


def test_clips_are_looked_up_by_number_or_by_epoch_and_number(corpus, tmp_path):
    (tmp_path / "words.dict").write_text("TONE  T OW1 N\n")
    config = replace(CONFIG, dictionary=str(tmp_path / "words.dict"))
    clips = [Clip(corpus / f"wavs/clip{i:02}.wav", f"Tone {i}.") for i in range(4)]
    utterances = Utterances(clips, config, lambda path: path.name, "stop")
    assert len(utterances) == 4
    for key in (2, (7, 2), (0, 2)):
        item = utterances[key]
        assert (item["names"], item["mel"]) == ("clip02.wav", "clip02.wav")
        assert item["text"].tolist() == text_to_sequence("{T OW1 N} two.", ["english_cleaners"])


def test_a_clip_that_cannot_be_read_any_more_ends_the_run_or_gives_way_to_the_next(corpus, caplog):
    def mel(path):
        if path.name == "clip02.wav":
            raise UserError(f"{path}: No such file")
        return path.name

    clips = [Clip(corpus / f"wavs/clip{i:02}.wav", "A tone.") for i in range(4)]
    with pytest.raises(UserError, match=r"clip02\.wav: No such file"):
        Utterances(clips, CONFIG, mel, "stop")[2]
    assert Utterances(clips, CONFIG, mel, "skip")[2]["names"] == "clip03.wav"
    assert "skipped: " in caplog.text
