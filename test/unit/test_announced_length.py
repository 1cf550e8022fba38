"""How many bytes an audio file lacks, by headers that are put together here, byte by byte."""

import os

import pytest

from common.announced_length import OPEN, missing_bytes
from common.program import UserError


def little(number, length=4):
    return number.to_bytes(length, "little")


def big(number, length=4):
    return number.to_bytes(length, "big")


def wav(riff, data, samples=b"s" * 100, chunks=b"", form=b"RIFF", number=little):
    """With these sizes in the place of the true ones (None)."""
    name, kind = (b"data", b"WAVE") if form == b"RIFF" else (b"SSND", b"AIFF")
    body = kind + b"fmt " + number(16) + bytes(16) + chunks + name
    riff = len(body) + 4 + len(samples) if riff is None else riff
    return form + number(riff) + body + number(len(samples) if data is None else data) + samples


def aiff(riff, data, **parts):
    return wav(riff, data, form=b"FORM", number=big, **parts)


@pytest.fixture
def missing(tmp_path):
    def count(content):
        (tmp_path / "a").write_bytes(content)
        return missing_bytes(tmp_path / "a")

    return count


@pytest.mark.parametrize("make", [wav, aiff])
def test_of_the_size_of_the_file_and_that_of_its_samples_the_larger_counts(missing, make):
    whole = len(make(None, None)) - 8
    assert missing(make(None, None)) == 0
    assert missing(make(whole + 7, None)) == 7 and missing(make(None, 105)) == 5
    assert missing(make(whole + 7, 105)) == 7 and missing(make(whole + 7, 109)) == 9
    # What is behind the samples, such as a title, does not belong to them.
    assert missing(make(whole - 7, 90)) == 0
    assert missing(make(None, None)[:-3]) == 3


@pytest.mark.parametrize("make", [wav, aiff])
def test_sizes_that_were_not_known_say_nothing(missing, make):
    """0, or around the largest that 31 or 32 bits hold."""
    for unknown in (0, OPEN, 2**31 - 1, 2**32 - 1):
        assert missing(make(unknown, unknown)) == 0
        assert missing(make(unknown, 104)) == 4 and missing(make(None, unknown)) == 0
    size = len(make(None, None))
    assert missing(make(OPEN - 1, None)) == OPEN - 1 + 8 - size
    assert missing(make(None, OPEN - 1)) == OPEN - 1 - 100
    assert missing(make(1, 1)) == 0


@pytest.mark.parametrize(("make", "number"), [(wav, little), (aiff, big)])
def test_samples_are_looked_for_behind_other_chunks(missing, make, number):
    """Which are filled up to an even length."""
    for length in (0, 1, 4, 5):
        chunk = b"note" + number(length) + bytes(length + length % 2)
        assert missing(make(0, None, chunks=chunk)) == 0
        assert missing(make(0, 130, chunks=chunk)) == 30
    # A chunk that leads out of the file, and none at all.
    assert missing(make(0, None, chunks=b"note" + number(10**6))) == 0
    assert missing(make(0, 130, samples=b"")) == 130  # the file ends behind the size of the samples
    assert missing(make(0, 130, samples=b"")[:-1]) == 0


@pytest.mark.parametrize(("make", "number", "name"), [(wav, little, b"data"), (aiff, big, b"SSND")])
def test_samples_are_not_taken_for_a_chunk(missing, make, number, name):
    """Though their size was not known."""
    samples = name + number(10**6) + bytes(100)
    for size in (0, 2**32 - 1):
        assert missing(make(size, size, samples=samples)) == 0


def test_sizes_of_64_bits_are_read(missing):
    rest = b"WAVEds64" + little(28)
    for size in (10, 2**33):
        head = b"RF64" + b"\xff" * 4 + rest + little(size, 8) + bytes(20)
        assert missing(head) == max(0, 8 + size - len(head))
        head = b"riff" + bytes(12) + little(size, 8) + bytes(40)  # with its own head, unlike the others
        assert missing(head) == max(0, size - len(head))


def test_an_au_file_tells_the_size_of_its_head_and_its_samples(missing):
    for head, length in ((24, 100), (32, 100), (24, 0), (24, 111), (24, OPEN - 1)):
        content = b".snd" + big(head) + big(length) + bytes(112)
        assert missing(content) == max(0, head + length - 124)
    for length in (OPEN, 2**32 - 1):
        assert missing(b".snd" + big(24) + big(length) + bytes(4)) == 0


def page(segments, flags=0, content=None):
    content = bytes(sum(segments)) if content is None else content
    return b"OggS\0" + bytes([flags]) + bytes(20) + bytes([len(segments), *segments]) + content


def test_of_an_ogg_file_the_last_page_counts(missing):
    first, last = page([255, 30]), page([255, 255, 7], flags=4)
    assert missing(first + last) == 0
    for cut in (1, 7, 517):
        assert missing((first + last)[:-cut]) == cut
    assert missing(first) == 1 and missing(first[:-9]) == 9  # nor is it the stream's last
    assert missing(first + page([5], flags=2 | 1)) == 1 and missing(first + page([5], flags=4 | 1)) == 0
    for left in range(4, 28):  # a page whose own head is cut off
        assert missing(first + last[:left]) >= 1
    for left, lengths in ((28, 255), (29, 510), (30, 517)):  # with lengths of its parts, and none of these
        assert missing(first + last[:left]) == lengths
    # The largest page is looked at from its beginning.
    largest = page([255] * 255, flags=4)
    assert missing(first + largest) == 0 and missing((first + largest)[:-1]) == 1


@pytest.mark.parametrize("content", [b"", b"R", b"fLaC" + bytes(50), b"ID3" + bytes(50), b"RIFF", b".snd", b"FORM\0\0"])
def test_formats_that_do_not_show_it_and_stumps_lack_nothing(missing, content):
    assert missing(content) == 0


def test_what_is_no_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="pipe is a pipe: name a file"):
        missing_bytes(tmp_path / "pipe")
    with pytest.raises(FileNotFoundError):
        missing_bytes(tmp_path / "nowhere")
