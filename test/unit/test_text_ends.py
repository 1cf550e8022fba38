"""What is spoken is spoken as a sentence."""

import pytest

from tacotron2.text.ends import with_end


@pytest.mark.parametrize(
    "text",
    ["Yes.", "No!", "Why?", "Well…", "Really?!", 'He said "yes."', "(So he did.)", "你好。", "{HH AH0} is next.", ""],
)
def test_a_sentence_stays_as_it_is(text):
    assert with_end(text) == text


@pytest.mark.parametrize(
    "text, spoken",
    [
        ("a title", "a title."),
        ("a sentence.  ", "a sentence."),
        ("a question? -- ", "a question?"),
        ("a part of a sentence,", "a part of a sentence."),
        ("as follows: ", "as follows."),
        ("and then --", "and then."),
        ("five p.m.,", "five p.m."),
        ('the word "yes"', 'the word "yes".'),
        ("say {HH AH0}", "say {HH AH0}."),
        ("你好，", "你好."),
    ],
)
def test_another_text_gets_an_end(text, spoken):
    assert with_end(text) == spoken
    assert with_end(spoken) == spoken


@pytest.mark.parametrize("text", ["", " ", ",", "--", ": "])
def test_there_is_nothing_to_end(text):
    assert with_end(text) == text


@pytest.mark.parametrize("end", list(".!?…。！？؟۔।"))
def test_every_sign_that_ends_a_sentence(end):
    for closing in ("", *"\"'”’»)]」』", '")'):
        assert with_end(f"So{end}{closing}") == f"So{end}{closing}"
        assert with_end(f"So{end}{closing} so") == f"So{end}{closing} so."
    assert with_end(f"So{end}(") == f"So{end}(."


@pytest.mark.parametrize("sign", list(" \t\n,;:、，；：،؛–—-"))
def test_every_sign_that_leaves_a_sentence_open(sign):
    assert with_end(f"So{sign}{sign}") == "So."
    assert with_end(f"So!{sign}") == "So!"
    assert with_end(f"So{sign}so") == f"So{sign}so."
