"""What cannot be used of a corpus is refused at the start, all of it at once, or left out."""

import io
import unicodedata
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tacotron2.data
import waveglow.data
from common.announced_length import missing_bytes
from common.audio import MOST_PER_BYTE, ClipError, Fault, check_wav, read_wav
from common.bad_clips import NAME, BadClips
from common.corpus import find_clips, read_transcripts
from common.program import UserError
from conftest import RATE, make_corpus, run_script, toy_config, toy_tacotron2_config, write_config
from runs import start

CONTAINERS = ["WAV", "WAVEX", "RF64", "W64", "AIFF", "AU", "OGG"]
FEW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
TOYS = {"waveglow": toy_config, "tacotron2": toy_tacotron2_config}


@cache
def written(kind: str) -> bytes:
    """A file of noise, in Ogg of many pages."""
    sound = io.BytesIO()
    noise = 0.1 * np.random.default_rng(0).standard_normal(60_000).astype(np.float32)
    soundfile.write(sound, noise, RATE, format=kind)
    return sound.getvalue()


@pytest.fixture
def noise():
    return 0.1 * np.random.default_rng(0).standard_normal(8000).astype(np.float32)


@pytest.mark.parametrize("kind", [*CONTAINERS, "FLAC", "MP3"])
@pytest.mark.parametrize("share", [0.5, 0.9, 0.999])
def test_a_file_that_was_cut_off_is_refused_whatever_its_format(tmp_path, noise, kind, share):
    path = tmp_path / "a.wav"
    soundfile.write(path, noise, RATE, format=kind)
    assert len(read_wav(path, RATE)) == len(noise)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ClipError, match=r"a\.wav"):
        read_wav(path, RATE)


@pytest.mark.parametrize("kind", CONTAINERS)
def test_a_single_missing_byte_is_noticed_by_the_header(tmp_path, noise, kind):
    path = tmp_path / "a"
    soundfile.write(path, noise, RATE, format=kind)
    assert missing_bytes(path) == 0
    path.write_bytes(path.read_bytes()[:-1])
    assert missing_bytes(path) == 1


def test_so_is_a_last_page_that_is_missing_as_a_whole(tmp_path, noise):
    """By the header; what is left ends with a page."""
    soundfile.write(tmp_path / "a.ogg", noise, RATE, format="OGG", subtype="VORBIS")
    content = (tmp_path / "a.ogg").read_bytes()
    (tmp_path / "a.ogg").write_bytes(content[: content.rindex(b"OggS")])
    assert missing_bytes(tmp_path / "a.ogg") == 1


@FEW
@given(kind=st.sampled_from([*CONTAINERS, "FLAC", "MP3"]), missing=st.integers(1, 5000))
def test_so_is_what_is_missing_of_many_pages(tmp_path_factory, kind, missing):
    path = tmp_path_factory.mktemp("cut") / "a"
    content = written(kind)
    path.write_bytes(content[:-missing])
    with pytest.raises(ClipError):
        read_wav(path, RATE)


@FEW
@given(kind=st.sampled_from([*CONTAINERS, "FLAC", "MP3"]), bits=st.sets(st.integers(0, 1000), min_size=1, max_size=8))
def test_flipped_bits_of_a_header_cost_no_memory_and_no_traceback(tmp_path_factory, kind, bits):
    path = tmp_path_factory.mktemp("flipped") / "a"
    content = bytearray(written(kind))
    for bit in bits:
        content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)
    try:
        assert len(read_wav(path, RATE)) <= MOST_PER_BYTE * len(content)
    except ClipError as error:
        assert str(path) in str(error)


def test_more_samples_than_a_file_can_hold(tmp_path):
    """MemoryError, where they are believed."""
    for kind, field, place, claimed in (("MP3", b"Xing", 8, 2**26), ("FLAC", b"fLaC", 22, 2**31)):
        content = bytearray(written(kind))
        start = content.index(field) + place
        content[start : start + 4] = claimed.to_bytes(4, "big")
        (tmp_path / "a").write_bytes(content)
        with pytest.raises(ClipError, match="which is not to be believed"):
            check_wav(tmp_path / "a", RATE)


def test_samples_that_are_said_to_reach_beyond_the_file(tmp_path, noise):
    """Though the first size of the wav is left open."""
    path = tmp_path / "a.wav"
    soundfile.write(path, noise, RATE)
    content = bytearray(path.read_bytes())
    content[4:8] = b"\xff" * 4
    path.write_bytes(content)
    assert check_wav(path, RATE) == len(noise)
    path.write_bytes(content[:-1000])
    with pytest.raises(ClipError, match="truncated: 1000 bytes"):
        check_wav(path, RATE)


@pytest.mark.parametrize("sign", [1, -1])
def test_floats_scaled_as_integers_are_refused(tmp_path, noise, sign):
    soundfile.write(tmp_path / "a.wav", sign * np.abs(noise) * 32768, RATE, subtype="FLOAT")
    with pytest.raises(ClipError, match=r"which are not in -1\.\.1 as floating-point audio is"):
        read_wav(tmp_path / "a.wav", RATE)


def test_a_format_that_is_not_known_must_be_converted(tmp_path):
    (tmp_path / "a.m4a").write_bytes(b"\0\0\0 ftypM4A " + bytes(500))
    with pytest.raises(ClipError, match=r"a\.m4a is not readable as audio: the format is not known; .*ffmpeg"):
        check_wav(tmp_path / "a.m4a", RATE)


def test_a_stream_that_does_not_say_its_length_is_refused(tmp_path, noise):
    path = tmp_path / "a.wav"
    soundfile.write(path, noise, RATE, format="FLAC")
    content = bytearray(path.read_bytes())
    content[21] &= 0xF0  # the number of samples: the lower 36 bits from here on
    content[22:26] = bytes(4)
    path.write_bytes(content)
    with pytest.raises(ClipError, match="does not say how long it is"):
        check_wav(path, RATE)


@pytest.fixture
def spoiled(tmp_path):
    """A corpus with a clip of each kind that cannot be used, in an order that is not that of how bad they are."""
    corpus = make_corpus(tmp_path / "spoiled", clips=20)
    wavs = corpus / "wavs"
    audio = soundfile.read(wavs / "clip09.wav", dtype="float32")[0]
    soundfile.write(wavs / "clip05.wav", audio, 16000)
    soundfile.write(wavs / "clip06.wav", np.where(np.arange(len(audio)) == 7000, np.nan, audio), RATE, subtype="FLOAT")
    (wavs / "clip07.wav").write_bytes((wavs / "clip07.wav").read_bytes()[:-500])
    (wavs / "clip08.wav").write_text("no audio")
    with (corpus / "metadata.csv").open("a") as file:
        file.write("clip99|Nobody.|Nobody.\n")
    return corpus


@pytest.mark.parametrize("name", TOYS)
def test_all_is_refused_at_once_the_worst_first(spoiled, tmp_path, name):
    with pytest.raises(UserError) as error:
        start(TOYS[name](), spoiled, tmp_path / "out")
    message = str(error.value)
    assert message.startswith(f"4 of 20 clips cannot be used: {spoiled}/wavs/clip08.wav is not readable")
    assert f"all 5, the worst first: {tmp_path}/out/{NAME}" in message and "--on_bad_clip=skip" in message
    lines = (tmp_path / "out" / NAME).read_text().splitlines()
    places = [
        "clip08.wav",
        "clip07.wav is truncated",
        "clip06.wav holds samples that are not finite",
        "clip05.wav has 16000",
    ]
    assert len(lines) == 5 and all(place in line for place, line in zip([*places, "wavs/clip99.wav"], lines))


@pytest.mark.parametrize("name", TOYS)
def test_bad_clips_are_skipped_at_the_start_too(spoiled, tmp_path, name, caplog):
    run, _ = start(TOYS[name](), spoiled, tmp_path / "out", max_steps=5, on_bad_clip="skip")
    assert run.progress.iteration == 5
    assert "left out: 4 of 20 clips cannot be used" in caplog.text
    assert "skipped: " not in caplog.text
    # A corpus that was mended needs no list.
    start(TOYS[name](), make_corpus(tmp_path / "good"), tmp_path / "out", resume="no", max_steps=1)
    assert not (tmp_path / "out" / NAME).exists()


@pytest.mark.parametrize("count", [1, 2, 3, 4, 50])
def test_three_faults_are_said_and_all_are_in_the_list(tmp_path, count):
    bad = BadClips(folder=tmp_path)
    for number in range(count):
        bad.add(f"fault {number}", Fault.TEXT)
    with pytest.raises(UserError) as error:
        bad.settle(count)
    said = str(error.value).partition(" (all ")[0]
    assert said.count("fault ") == min(count, 3) and said.endswith("; ...") == (count > 3)
    assert said.startswith("the transcripts have faults: ") == (count > 1)
    assert (tmp_path / NAME).read_text() == "".join(f"fault {number}\n" for number in range(count))


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_the_first_process_writes_the_list(tmp_path, monkeypatch, rank):
    """The others say where it is."""
    for name, value in {"RANK": rank, "WORLD_SIZE": 3}.items():
        monkeypatch.setenv(name, str(value))
    bad = BadClips(folder=tmp_path)
    bad.add("a fault", Fault.TEXT)
    with pytest.raises(UserError, match=rf"all 1, the worst first: {tmp_path}/{NAME}"):
        bad.settle(1)
    assert (tmp_path / NAME).exists() == (rank == 0)


def test_without_a_folder_nothing_is_written_and_no_file_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bad = BadClips()
    bad.add("a fault", Fault.TEXT)
    with pytest.raises(UserError, match=r"^a fault$"):
        bad.settle(1)
    assert not list(tmp_path.iterdir())


def test_a_list_that_cannot_be_written_is_said_and_not_named(tmp_path, caplog):
    (tmp_path / NAME).mkdir()
    bad = BadClips(folder=tmp_path)
    bad.add("a fault", Fault.TEXT)
    with pytest.raises(UserError, match=r"^a fault \(--on_bad_clip"):
        bad.settle(1)
    assert f"cannot write {tmp_path / NAME}" in caplog.text


def test_nothing_left_to_hold_back(spoiled, tmp_path):
    for i in range(2):
        (spoiled / f"wavs/clip0{i}.wav").write_text("no audio")
    with pytest.raises(UserError, match="none of the held-back clips can be used"):
        start(toy_config(), spoiled, tmp_path / "out", on_bad_clip="skip")


def test_a_silent_clip_speaks_no_text(tmp_path):
    corpus = make_corpus(tmp_path / "c", clips=3)
    soundfile.write(corpus / "wavs/clip01.wav", np.zeros(RATE), RATE)
    bad = BadClips()
    training, held_back = tacotron2.data.find_utterances(tacotron2.data.DataConfig(), str(corpus))
    samples, symbols = tacotron2.data.count_samples_and_symbols(training + held_back, tacotron2.data.DataConfig(), bad)
    assert samples[0] == symbols[0] == 0 and all(samples[1:])
    assert bad.worst_first() == [f"{corpus}/wavs/clip01.wav is silent, though its text is 'A tone.'"]


def test_clips_beyond_full_scale_are_counted(tmp_path, caplog):
    corpus = make_corpus(tmp_path / "c", clips=3)
    audio = soundfile.read(corpus / "wavs/clip01.wav", dtype="float32")[0]
    soundfile.write(corpus / "wavs/clip01.wav", audio * 5, RATE, subtype="FLOAT")
    assert waveglow.data.take_census(find_clips(str(corpus)), waveglow.data.DataConfig()).clipped == 1
    for name, toy in TOYS.items():
        start(toy(), corpus, tmp_path / name, max_steps=1, batch_size=2)
    assert caplog.text.count("1 clip(s) have samples beyond full scale") == 2


# ---- names ----


def rename(corpus, change):
    for path in sorted((corpus / "wavs").iterdir()):
        path.rename(path.with_name(change(path.name)))


def test_endings_in_capitals_and_names_of_other_systems(tmp_path):
    corpus = make_corpus(tmp_path / "c", clips=4)
    rename(corpus, lambda name: unicodedata.normalize("NFD", f"Übung {name[4:6]}.WAV"))
    (corpus / "wavs/._Übung 00.WAV").write_bytes(b"macOS")
    text = "".join(f"übung {i:02}|Text {'abcd'[i]}.\n" for i in range(4))
    (corpus / "metadata.csv").write_text(unicodedata.normalize("NFC", text))
    assert len(find_clips(str(corpus))) == 4
    training, held_back = tacotron2.data.find_utterances(tacotron2.data.DataConfig(), str(corpus))
    assert [clip.text for clip in held_back + training] == [f"Text {c}." for c in "abcd"]


def test_a_list_has_the_names_of_another_system(tmp_path):
    corpus = make_corpus(tmp_path / "c", clips=4)
    rename(corpus, lambda name: unicodedata.normalize("NFD", f"Übung {name[4:6]}.WAV"))
    (corpus / "wavs/übung 03.wav").write_bytes(b"")
    names = [unicodedata.normalize("NFC", f"wavs/übung {i:02}.wav") for i in range(4)]
    (corpus / "list.txt").write_text("".join(f"{name}|A tone.\n" for name in names))
    found = find_clips("", str(corpus / "list.txt"))
    assert found[:3] == sorted((corpus / "wavs").glob("*.WAV"))[:3]
    assert found[3] == corpus / names[3]  # exactly this one is there
    (corpus / "wavs/übung 03.wav").rename(corpus / "wavs/ÜBUNG 03.wav")
    assert find_clips("", str(corpus / "list.txt"))[3] == Path(names[3])  # it may be either
    training, held_back = tacotron2.data.find_utterances(
        tacotron2.data.DataConfig(training_files=str(corpus / "list.txt")), ""
    )
    assert [clip.path for clip in held_back + training][:3] == found[:3]


def test_paths_of_a_list_are_relative_to_it(tmp_path, monkeypatch):
    for name in ("a", "b"):
        make_corpus(tmp_path / name, clips=2)
        (tmp_path / name / "list.txt").write_text("wavs/clip00.wav\nwavs/clip01.wav\n")
    monkeypatch.chdir(tmp_path / "a")
    assert find_clips("", str(tmp_path / "b/list.txt")) == find_clips(str(tmp_path / "b"))
    (tmp_path / "list.txt").write_text("wavs/clip00.wav\n")
    assert find_clips("", str(tmp_path / "list.txt")) == [Path("wavs/clip00.wav")]  # as NVIDIA's lists are


def test_names_that_differ_only_in_case_are_told_apart(tmp_path):
    corpus = make_corpus(tmp_path / "c", clips=2)
    (corpus / "wavs/clip01.wav").rename(corpus / "wavs/CLIP00.wav")
    (corpus / "metadata.csv").write_text("clip00|One.\nCLIP00|Two.\n")
    training, held_back = tacotron2.data.find_utterances(tacotron2.data.DataConfig(), str(corpus))
    assert {clip.path.stem: clip.text for clip in training + held_back} == {"clip00": "One.", "CLIP00": "Two."}
    (corpus / "metadata.csv").write_text("Clip00|One.\n")
    with pytest.raises(UserError, match=r"there is no wavs/Clip00\.wav"):
        find_clips(str(corpus))


def test_two_clips_of_one_name(tmp_path):
    corpus = make_corpus(tmp_path / "c", clips=3)
    (corpus / "wavs/clip01.wav").rename(corpus / "wavs/clip00.WAV")
    with pytest.raises(UserError, match=r"clip00\.wav has the same name as clip00\.WAV"):
        find_clips(str(corpus))


def test_other_audio_beside_the_wavs_is_said(corpus, caplog):
    for name in ("more.flac", "other.mp3", "notes.txt"):
        (corpus / "wavs" / name).write_bytes(b"")
    find_clips(str(corpus))
    assert "2 files in wavs/ are left out: they are no .wav: more.flac, ..." in caplog.text


@pytest.mark.parametrize("speakers", [["anna"], ["anna", "bob"]])
def test_a_speaker_is_no_text(corpus, speakers):
    names = [line.split("|")[0] for line in (corpus / "metadata.csv").read_text().splitlines()]
    lines = [f"{name}|Text {i}.|{speakers[i % len(speakers)]}\n" for i, name in enumerate(names)]
    (corpus / "metadata.csv").write_text("".join(lines))
    with pytest.raises(UserError, match=rf"the last column has only {len(speakers)} different values \('anna'"):
        tacotron2.data.find_utterances(tacotron2.data.DataConfig(), str(corpus))


@pytest.mark.parametrize(("lines", "texts", "taken"), [(2, 1, True), (3, 1, False), (6, 3, False), (6, 4, True)])
def test_texts_may_occur_twice_but_not_half_of_them(tmp_path, lines, texts, taken):
    """Of more than two lines whose second columns differ."""
    path = tmp_path / "metadata.csv"
    path.write_text("".join(f"clip{i}|Text {i}.|Text {i % texts}.\n" for i in range(lines)))
    if taken:
        assert len(read_transcripts(path)) == lines
    else:
        with pytest.raises(UserError, match=f"only {texts} different values"):
            read_transcripts(path)


def test_where_no_line_can_be_read_it_is_said_why(corpus, tmp_path):
    names = [line.split("|")[0] for line in (corpus / "metadata.csv").read_text().splitlines()]
    (corpus / "metadata.csv").write_text("".join(f"{name}|anna|A tone.|A tone.\n" for name in names))
    bad = BadClips(folder=tmp_path)
    with pytest.raises(UserError, match=r"metadata.csv line 1 has 4 columns split by \|, must be 2 or 3"):
        tacotron2.data.find_utterances(tacotron2.data.DataConfig(), str(corpus), bad)
    assert len((tmp_path / NAME).read_text().splitlines()) == len(names)


@pytest.mark.slow
@pytest.mark.parametrize("network", ["WaveGlow", "Tacotron2"])
def test_a_file_list_through_the_script(checkout, tmp_path, network):
    """Its paths are relative to the list."""
    make_corpus(tmp_path / "data", clips=4)
    lines = [f"wavs/clip0{i}.wav" + "|A tone." * (network == "Tacotron2") for i in range(4)]
    (tmp_path / "data/list.txt").write_text("\n".join(lines))
    values = TOYS[network.lower()]()
    values["train_config"]["batch_size"] = 2
    options = [
        "--nproc=1",
        "--output_directory=out",
        "--max_steps=1",
        "--device=cpu",
        f"--network={network}",
        "--training_files=data/list.txt",
    ]
    config = write_config(tmp_path / "config.json", values)
    done = run_script(
        checkout,
        "train_full_8p.sh",
        *options,
        "--nproc=1",
        f"--config={config}",
        "--output_directory=out",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "data: 4 clips" in done.stdout
    both = run_script(checkout, "train_full_8p.sh", *options, "--data_path=data", cwd=tmp_path)
    assert both.returncode == 1 and "not both" in both.stderr
