"""WaveGlow's evaluation as a program: what its options reach, in which order, and what only the first process does."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from common.program import UserError
from waveglow import infer
from waveglow.evaluation import ClipFigures

CONFIG = SimpleNamespace(
    data_config=SimpleNamespace(sampling_rate=1000), train_config=SimpleNamespace(batch_size=24), waveglow_config=None
)


@pytest.fixture
def did(monkeypatch, tmp_path):
    """What is done, in its order: (name, what it is given). Each clip has 2 s, of which 3 samples are clipped."""
    calls = []

    def stand_in(module, name, result=None):
        monkeypatch.setattr(module, name, lambda *given: calls.append((name, given)) or result)

    vocoder = SimpleNamespace(model="model", config=CONFIG)
    stand_in(infer, "start_log")
    stand_in(infer, "pick_device", "device")
    stand_in(infer, "read_hints", "hints")
    stand_in(infer, "Vocoder", vocoder)
    stand_in(infer, "hold_folder")
    stand_in(infer, "segment_mels", "mels")
    stand_in(infer, "facts_of_evaluation", {"a": "fact"})
    stand_in(infer, "evaluate", ClipFigures("a", 2.0, -4.0, 0.5, 5.0, 0.25, clipped=3))
    stand_in(infer, "say_clipped")
    for name in ("write_json", "write_page"):
        stand_in(infer, name)
    for name in ("start", "agree", "stop"):
        stand_in(infer.distributed, name)
    monkeypatch.setattr(infer.distributed, "first_ranks", lambda do: calls.append(("first_ranks", ())) or do())
    results = lambda **of: calls.append(("Results", of)) or SimpleNamespace(write=stand_write)  # noqa: E731
    stand_write = lambda args: calls.append(("write", args))  # noqa: E731
    monkeypatch.setattr(infer, "Results", results)
    ticks = iter([10.0, 14.0])
    monkeypatch.setattr(infer, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    return calls


def run(monkeypatch, tmp_path, *options, rank=0, world_size=1, local_rank=0):
    for name, value in {"RANK": rank, "WORLD_SIZE": world_size, "LOCAL_RANK": local_rank}.items():
        monkeypatch.setenv(name, str(value))
    arguments = ["infer", "--pth_path=a.pt", f"--output_directory={tmp_path / 'out'}", *options, "a.wav", "b.wav"]
    monkeypatch.setattr("sys.argv", arguments)
    infer.main()


def test_what_is_done_in_which_order(did, monkeypatch, tmp_path):
    run(monkeypatch, tmp_path)
    assert [name for name, _ in did] == [
        "start_log", "pick_device", "read_hints", "Vocoder", "start", "first_ranks", "hold_folder", "segment_mels",
        "facts_of_evaluation", "agree", "evaluate", "evaluate", "stop", "say_clipped", "write_json", "write_page",
        "Results", "write",
    ]  # fmt: skip
    given = dict(did)
    assert given["Vocoder"] == ("a.pt", "device", "", 1000, False, "hints")
    assert given["start"] == ("device",) and given["agree"] == ({"a": "fact"},)
    assert given["hold_folder"] == (tmp_path / "out", "--output_directory")
    assert given["facts_of_evaluation"][1:] == ("model", [Path("a.wav"), Path("b.wav")])
    assert [of[0] for name, of in did if name == "evaluate"] == [Path("a.wav"), Path("b.wav")]
    assert given["evaluate"][1].model == "model" and given["evaluate"][3:] == (tmp_path / "out", "mels")
    assert given["say_clipped"] == (6, 4000)
    path, facts, overall, clips = given["write_json"]
    assert path == tmp_path / "out/evaluation.json" and (overall.name, overall.seconds) == ("overall", 4.0)
    assert facts == {"checkpoint": "a.pt", "sigma": 0.6, "denoiser_strength": 0.0, "seed": 1234, "int8": False}
    assert len(clips) == 2 and given["write_page"][:3] == (tmp_path / "out", [Path("a.wav"), Path("b.wav")], clips)
    assert given["Results"] == dict(
        network="WaveGlow_for_PyTorch", rank_size=1, batch_size=24, case="acc", fps=0.5, samples_per_second=1000.0,
        iteration_seconds=2.0, losses=[-4.0],
    )  # fmt: skip


def test_options_reach_what_they_are_for(did, monkeypatch, tmp_path):
    options = ["--amp=O1", "--chunk_frames=7", "--int8", "--mels_path=m", "--batch_size=3", "--case=perf"]
    run(monkeypatch, tmp_path, *options, "--device=cuda", "--device_id=2")
    given = dict(did)
    assert given["pick_device"] == ("cuda", 2)
    assert given["Vocoder"] == ("a.pt", "device", "O1", 7, True, "hints")
    assert given["segment_mels"][1] == "m"
    assert (given["Results"]["batch_size"], given["Results"]["case"]) == (3, "perf")
    assert given["read_hints"][1] == [infer.Config]


@pytest.mark.parametrize(("device_id", "card"), [(0, 1), (3, 3)])
def test_each_process_takes_the_card_of_its_own_number(did, monkeypatch, tmp_path, device_id, card):
    """Of its machine, unless one is named."""
    monkeypatch.setattr(infer, "shared_out", lambda inputs, evaluate: [evaluate(path) for path in inputs])
    run(monkeypatch, tmp_path, f"--device_id={device_id}", rank=5, world_size=8, local_rank=1)
    assert dict(did)["pick_device"] == ("auto", card)


@pytest.mark.parametrize("rank", [0, 1])
def test_the_first_process_alone_writes_the_results(did, monkeypatch, tmp_path, rank):
    monkeypatch.setattr(infer, "shared_out", lambda inputs, evaluate: [evaluate(path) for path in inputs])
    run(monkeypatch, tmp_path, rank=rank, world_size=2)
    names = [name for name, _ in did]
    assert names.count("evaluate") == 2 and names.index("stop") > names.index("evaluate")
    assert ("write_json" in names) == ("write_page" in names) == ("write" in names) == (rank == 0)
    assert rank == 1 or dict(did)["Results"]["rank_size"] == 2


def test_two_inputs_of_one_name_are_refused_before_anything_is_evaluated(did, monkeypatch, tmp_path):
    with pytest.raises(UserError, match=r"^x/a\.wav and a.wav would both become a_synthesis\.wav: rename one$"):
        run(monkeypatch, tmp_path, "x/a.wav")
    assert "evaluate" not in [name for name, _ in did]


@pytest.mark.parametrize("on_bad_clip", ["stop", "skip"])
def test_the_held_back_clips_that_can_be_used_are_evaluated(tmp_path, monkeypatch, on_bad_clip):
    """Looked at once, with their mels; what is wrong is written beside the results."""
    clips, looked = [tmp_path / f"{number:02}.wav" for number in range(30)], []
    found = lambda path, bad: bad.add("a line", 2) or clips  # noqa: E731
    monkeypatch.setattr(infer, "find_clips", found)

    def census(clips, config, bad, mels):
        looked.append((clips, config, mels))
        bad.add("clip 1 is cut off", 7, clips[1])

    monkeypatch.setattr(infer, "take_census", census)
    args = SimpleNamespace(data_path="data", on_bad_clip=on_bad_clip)
    vocoder = SimpleNamespace(config=SimpleNamespace(data_config="config"))
    if on_bad_clip == "skip":
        assert infer.find_held_back(args, vocoder, tmp_path, "mels") == [clips[0], clips[2]]
    else:
        with pytest.raises(UserError, match=r"1 of 3 clips cannot be used: clip 1 is cut off; a line \(all 2"):
            infer.find_held_back(args, vocoder, tmp_path, "mels")
    assert looked == [(clips[:3], "config", "mels")]
    assert (tmp_path / "bad_clips.txt").read_text() == "clip 1 is cut off\na line\n"


@pytest.mark.parametrize(
    "option", ["--sigma=-1", "--sigma=nan", "--chunk_frames=0", "--seed=-3", "--denoiser_strength=-1"]
)
def test_options_out_of_range_end_with_code_2(monkeypatch, tmp_path, option, capsys):
    with pytest.raises(SystemExit) as end:
        run(monkeypatch, tmp_path, option)
    assert end.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_without_anything_to_synthesize_the_program_ends_with_code_2(tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit) as end:
        monkeypatch.setattr("sys.argv", ["infer", "--pth_path=nowhere", f"--output_directory={tmp_path / 'out'}"])
        infer.main()
    assert end.value.code == 2 and not (tmp_path / "out").exists()
    assert "name wavs or mels, or give --data_path" in capsys.readouterr().err


def test_of_a_folder_the_wavs_are_inputs_and_files_are_what_they_are(corpus, tmp_path):
    (corpus / "wavs/._clip00.wav").write_bytes(b"macOS")
    (corpus / "wavs/notes.txt").write_text("no audio")
    (corpus / "wavs/clip02.wav").rename(corpus / "wavs/clip02.WAV")
    names = [f"clip{i:02}.{'WAV' if i == 2 else 'wav'}" for i in range(13)]
    given = [str(tmp_path / "b.pt"), str(corpus / "wavs"), "a.wav"]
    assert infer.find_inputs(given) == [tmp_path / "b.pt", *(corpus / "wavs" / name for name in names), Path("a.wav")]
