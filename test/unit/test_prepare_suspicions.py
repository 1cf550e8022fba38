"""tools/prepare_data.py: what is suspected of clips and of texts, on both sides of every limit; order and words."""

import numpy as np
import pytest

from common.audio import ClipError, Fault
from tacotron2.config import DataConfig
from tools.prepare.figures import Figures
from tools.prepare.problems import Kind, Problem, of_error, printable, worst_first
from tools.prepare.sources import Item
from tools.prepare.suspicions import expect_seconds, find_same_audio, judge_clips, judge_pace
from tools.prepare.texts import count_symbols, find_signs, judge_texts

RATE = 22050


def good(**others):
    values = {"rate": RATE, "seconds": 3.0, "level": -20.0, "noise_floor": -60.0, "fingerprint": "80" * 256}
    return Figures(**(values | others))


@pytest.mark.parametrize(
    ("kind", "name", "at", "beyond", "said", "degree"),
    [
        (Kind.CLIPPED, "clipped", 10, 11, "11 samples were cut off at full scale", 11),
        (Kind.NOISE, "noise_floor", -45.0, -44.9, "the noise is only 25 dB below the speech", 0.1),
        (Kind.PAUSE, "longest_pause", 1.0, 1.01, "a pause of 1.0 s", 1.01),
        (Kind.QUIET, "gain", 20.0, 20.1, "had to be made 20 dB louder", 20.1),
        (Kind.DIGITAL_SILENCE, "digital_silence", 0.05, 0.06, "6% is digital silence", 0.06),
        (Kind.BAND, "rate", RATE, 16000, "recorded with 16000 Hz: nothing above 8000 Hz", RATE - 16000),
        (Kind.BAND, "rate", 44100, 22049, "recorded with 22049 Hz: nothing above 11024 Hz", 1),
    ],
)
def test_each_suspicion_has_its_limit(kind, name, at, beyond, said, degree):
    assert judge_clips({"a": good(**{name: at})}, {}, RATE) == []
    (problem,) = judge_clips({"a": good(**{name: beyond})}, {}, RATE)
    assert problem == Problem(kind, f"a: {said}", "a", pytest.approx(degree)) and not problem.left_out


def pace_of(**clips):
    """Of few clips, each with its seconds and symbols."""
    found = judge_pace({n: s for n, (s, _) in clips.items()}, {n: c for n, (_, c) in clips.items()})
    return {problem.name: problem for problem in found}


def test_among_few_clips_only_what_nobody_can_speak_is_suspicious():
    found = pace_of(
        quick=(1.0, 35), too_quick=(1.0, 36), quicker=(1.0, 70), slow=(10.0, 30), too_slow=(10.0, 29), word=(1.0, 2),
        wordy=(1.01, 2), flash=(0.1, 4), letter=(0.8, 1),
    )  # fmt: skip
    assert found.keys() == {"too_quick", "quicker", "too_slow", "wordy", "flash"}
    assert found["too_quick"].message == "too_quick: 36.0 symbols a second, which nobody speaks"
    assert found["quicker"].degree > found["too_quick"].degree
    assert found["quicker"].degree == pytest.approx(np.log(70 / 15) / 10)
    assert found["wordy"].degree > found["too_slow"].degree > 0


def many(count=40):
    """Clips of an even pace, 0.5 s and a fifteenth for each symbol."""
    symbols = {f"c{i:02}": 20 + 3 * i for i in range(count)}
    return symbols, {name: 0.5 + number / 15 for name, number in symbols.items()}


@pytest.mark.parametrize(("factor", "suspicious"), [(1.49, False), (1.51, True), (1 / 1.49, False), (1 / 1.51, True)])
def test_a_clip_may_take_half_as_long_again_as_its_text_suggests(factor, suspicious):
    symbols, seconds = many()
    usual = seconds["c20"]
    seconds["c20"] *= factor
    found = judge_pace(seconds, symbols)
    assert [problem.name for problem in found] == ["c20"] * suspicious
    if suspicious:
        said = f"c20: {usual * factor:.1f} s of audio, and a text of 80 symbols for about {usual:.1f} s"
        assert found == [Problem(Kind.MISMATCH, said, "c20", pytest.approx(abs(np.log(factor)), abs=0.01))]


def test_from_20_clips_on_a_data_set_has_a_pace_of_its_own():
    """Which may be slower than any at which a few clips are suspicious."""
    for count, found in ((19, 0), (20, 1)):
        symbols, seconds = many(count)
        seconds["c05"] *= 1.9
        assert len(judge_pace(seconds, symbols)) == found


def test_the_worst_mismatch_is_that_of_the_whole_data_set_and_not_of_speed():
    symbols, seconds = many()
    seconds["c10"], seconds["c30"] = seconds["c10"] * 2, 0.5 * symbols["c30"]  # 2 symbols a second
    assert [p.name for p in worst_first(judge_pace(seconds, symbols))] == ["c30", "c10"]


def test_only_clips_with_a_text_have_a_pace():
    symbols, seconds = many()
    clips = {name: good(seconds=length) for name, length in seconds.items()}
    for place, clip in enumerate(clips.values()):
        clip.spoken_seconds = 1.1**place
    clips["mute"] = good(seconds=900.0)
    assert judge_clips(clips, symbols | {"gone": 5}, RATE) == []


def test_the_pace_of_a_data_set_is_that_of_most_clips():
    symbols, seconds = (np.array([*values.values()], dtype=float) for values in many())
    expected, limit = expect_seconds(symbols, seconds)
    np.testing.assert_allclose(expected, seconds, rtol=1e-9)
    assert limit == pytest.approx(np.log(1.5))
    wrong = seconds.copy()
    wrong[::10] *= 3
    np.testing.assert_allclose(expect_seconds(symbols, wrong)[0], seconds, rtol=0.02)
    spread = np.exp(0.2 * np.random.default_rng(0).standard_normal(400))
    symbols = np.resize(symbols, 400)
    expected, limit = expect_seconds(symbols, symbols / 15 * spread)
    assert limit == pytest.approx(4 * 0.2, rel=0.15)
    few = np.array([3.0, 1.0])
    assert expect_seconds(few, few[::-1])[0].tolist() == [1, 3] and expect_seconds(few, few)[1] == 0


def test_at_most_a_second_of_a_clip_does_not_depend_on_its_text():
    symbols = np.arange(20.0, 60)
    expected, _ = expect_seconds(symbols, 3 + symbols / 15)
    slope = (expected[-1] - expected[0]) / (symbols[-1] - symbols[0])
    assert expected[0] - slope * symbols[0] == pytest.approx(1.0, abs=0.01)
    expected, _ = expect_seconds(symbols, symbols / 15 - 0.4)
    assert expected[0] / symbols[0] == pytest.approx(expected[-1] / symbols[-1])  # and none is below zero
    same = np.full(30, 50.0)
    np.testing.assert_allclose(expect_seconds(same, np.full(30, 2.0))[0], 2.0)


def test_longer_texts_of_shorter_clips_have_no_line():
    """Durations that fall with the text: what is expected grows with it all the same."""
    symbols = np.arange(20.0, 60)
    seconds = 0.9 - symbols / 100
    expected, _ = expect_seconds(symbols, seconds)
    np.testing.assert_allclose(expected, np.median(seconds / symbols) * symbols)


def test_texts_that_cannot_belong_to_their_audio_are_found_also_where_a_tenth_is_wrong():
    rng = np.random.default_rng(0)
    symbols = {f"c{i}": int(n) for i, n in enumerate(rng.integers(10, 160, 200))}
    seconds = {name: (0.4 + count / 15) * float(np.exp(0.1 * rng.standard_normal())) for name, count in symbols.items()}
    assert judge_pace(seconds, symbols) == []
    seconds["c3"] *= 2
    seconds["c5"] /= 3
    assert [problem.name for problem in worst_first(judge_pace(seconds, symbols))] == ["c5", "c3"]
    # Also where a tenth of all is wrong.
    for i in range(20, 40):
        seconds[f"c{i}"] *= 3
    assert {problem.name for problem in judge_pace(seconds, symbols)} == {"c3", "c5", *(f"c{i}" for i in range(20, 40))}


def test_short_clips_are_judged_rightly_among_few():
    # Of 22 clips of LJ Speech; the wrong texts of two let the line begin at 5.7 s.
    symbols = [4, 25, 25, 30, 65, 69, 69, 75, 86, 89, 95, 99, 105, 110, 110, 119, 124, 132, 139, 143, 151, 155]
    tenths = [57, 84, 18, 19, 88, 59, 76, 53, 61, 50, 69, 79, 71, 64, 89, 79, 64, 84, 96, 81, 97, 97]
    names = [f"c{i}" for i in range(len(symbols))]
    found = judge_pace({name: n / 10 for name, n in zip(names, tenths)}, dict(zip(names, symbols)))
    assert {problem.name for problem in found} == {"c0", "c1"}


# ---- the same audio ----


def with_print(angle, **others):
    """A clip whose fingerprint has this correlation with the one of angle 1."""
    a, b = np.zeros(256), np.zeros(256)
    a[::2], b[1::2] = 1, 1
    print_ = np.clip(np.round(90 * (angle * a + np.sqrt(1 - angle**2) * b)) + 128, 0, 255).astype(np.uint8)
    return good(fingerprint=print_.tobytes().hex(), **others)


@pytest.mark.parametrize(("alike", "found"), [(0.91, 1), (0.89, 0)])
def test_sounds_are_the_same_from_a_likeness_on(alike, found):
    problems = find_same_audio({"b": with_print(alike, spoken_seconds=2.0), "a": with_print(1, spoken_seconds=2.0)})
    assert [(p.kind, p.name) for p in problems] == [(Kind.SAME_AUDIO, "b")] * found
    assert [p.degree for p in problems] == pytest.approx([alike] * found, abs=0.01)


@pytest.mark.parametrize(("seconds", "found"), [(2.1, 1), (2.11, 0)])
def test_sounds_are_the_same_only_if_about_as_long(seconds, found):
    clips = {"a": with_print(1, spoken_seconds=seconds), "b": with_print(1, spoken_seconds=2.0)}
    assert len(find_same_audio(clips)) == found


def test_of_three_that_are_the_same_two_are_told():
    clips = {name: with_print(1, spoken_seconds=2.0, sha256=sha) for name, sha in (("b", "1"), ("a", "2"), ("c", "2"))}
    said = {problem.message for problem in find_same_audio(clips)}
    assert said == {"b: sounds like the audio of a", "c: is the audio of a"}
    assert find_same_audio({}) == []


# ---- texts ----


def items(*texts):
    return [Item(None, text, f"line {i}", name=str(i)) for i, text in enumerate(texts)]


def test_texts_that_cannot_be_spoken_and_why():
    long = "☃" * 60
    counts, problems = count_symbols(items("Yes.", "", long, None, "{HH AH1} no", "?!"), DataConfig())
    assert counts == {"0": 4, "4": 5}
    assert problems == [
        Problem(Kind.TEXT, "line 1: its text is empty", "1"),
        Problem(Kind.TEXT, f"line 2: of its text {long[:50]!r} nothing is left to speak", "2"),
        Problem(Kind.TEXT, "line 5: of its text '?!' nothing is left to speak", "5"),
    ]


def test_signs_stand_by_their_number_and_tell_how_they_are_read():
    signs = find_signs(["Bab é% {HH}", "aab"], DataConfig())
    assert list(signs) == ["a", "H", "b", "%", "B", "é"]
    assert [(sign.count, sign.read_as, sign.lost) for sign in signs.values()] == [
        (3, "a", False), (2, "h", False), (2, "b", False), (1, "%", True), (1, "b", False), (1, "e", False),
    ]  # fmt: skip


def test_a_sign_that_is_learned_is_not_lost_where_a_number_takes_it():
    """Nor is one that some text needs to be read rightly; one that any text loses is."""
    signs = find_signs(["It has 1,000 parts.", "It costs $5."], DataConfig())
    assert not any(sign.lost for sign in signs.values())
    assert find_signs(["It costs $5.", "In US$, too."], DataConfig())["$"].lost
    for others, lost in ((19, True), (20, False)):  # of so many texts
        assert find_signs([*["It costs $5."] * others, "In US$, too."], DataConfig())["$"].lost == lost


def judged(*texts):
    found = judge_texts(items(*texts), find_signs([text for text in texts if text], DataConfig()), DataConfig())
    return [(problem.kind, problem.name, problem.message, problem.degree) for problem in found]


def test_numbers_lost_signs_and_the_same_text_are_odd():
    assert judged("One text.", None, "", "“Yes” – ‘no’… it’s", "Another.") == []
    assert judged("In 1905, on May 2nd.") == [
        (Kind.NUMBERS, "0", "line 0: '1905, 2nd.' is read 'nineteen oh five, second.'", 2)
    ]
    assert judged("5% of #1 %")[0] == (Kind.LOST, "0", "line 0: not learned of its text: # %", 2)
    beginning = "Equal from the beginning on to "
    assert judged(beginning + "here.", beginning + "there.") == []
    same = judged("No.", "STRASSE aus.", "Straße aus.", "no.")
    assert same == [
        (Kind.SAME_TEXT, "2", "line 2: has the text of line 1: 'Straße aus.'", 11),
        (Kind.SAME_TEXT, "3", "line 3: has the text of line 0: 'no.'", 3),
    ]


def test_signs_that_are_lost_are_told_and_each_text_with_them():
    texts = ["It costs $5.", "50% off #1", 'He said "no" to 日本', "A ☃ melts"]
    signs = find_signs(texts, DataConfig())
    assert {character for character, sign in signs.items() if sign.lost} == {"%", "#", '"', "☃"}
    assert signs["日"].read_as.strip() == "ri" and signs["s"].count == 4 and not signs["$"].lost
    problems = judge_texts(items(*texts), signs, DataConfig())
    assert [p.name for p in problems if p.kind is Kind.LOST] == ["1", "3"]
    assert next(p.message for p in problems if p.kind is Kind.NUMBERS) == "line 0: '$5.' is read 'five dollars.'"
    assert find_signs(["It costs $5.", "US$ alone"], DataConfig())["$"].lost  # of the second one
    lost = {
        c for c, sign in find_signs(["Grüße an 5"], DataConfig(text_cleaners=["basic_cleaners"])).items() if sign.lost
    }
    assert lost == {"ü", "ß", "5"}


def test_texts_are_read_with_the_symbols_of_the_configuration():
    config = DataConfig(symbols=["_", *"абвгд5 ."], text_cleaners=["basic_cleaners"])
    counts, problems = count_symbols(items("Баг 5.", "abc 5."), config)
    assert list(counts.values()) == [len("баг 5.")]
    assert len(problems) == 1
    lost = {sign for sign, found in find_signs(["Баг 5.", "abc"], config).items() if found.lost}
    assert lost == set("abc")


# ---- problems ----


def test_the_worst_kind_is_first_in_it_the_worst_degree_and_then_the_message():
    problems = [
        Problem(Kind.PAUSE, "b", degree=1), Problem(Kind.PAUSE, "a", degree=1), Problem(Kind.PAUSE, "c", degree=2),
        Problem(Kind.NUMBERS, "d", degree=9), Problem(Kind.UNREADABLE, "e\udcfc"),
    ]  # fmt: skip
    assert [problem.message for problem in worst_first(problems)] == ["e\\udcfc", "c", "a", "b", "d"]
    assert printable("ü\udcfc") == "ü\\udcfc"


@pytest.mark.parametrize("fault", sorted(set(Fault) - {Fault.MEL}), ids=str)  # which is of training
def test_each_fault_of_audio_has_its_kind(fault):
    own = {Fault.SHORT: Kind.LENGTH, Fault.SCALED: Kind.FORMAT}
    expected = own.get(fault) or Kind[fault.name]
    assert of_error(ClipError("a is bad", fault), "clip") == Problem(expected, "a is bad", "clip", 0.0)
    assert of_error(ClipError("a is bad", fault), "clip").left_out
