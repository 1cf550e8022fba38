"""Shapes added to a list in a file: where they go, and that nothing else changes."""

import random
import re

import pytest

from common.program import UserError
from tbe_files import FIVE_2_FOUR, FORMS, FOUR_2_FIVE, SHAPES, TRANSPOSE, accepts, content
from tools.tbe import lists
from tools.tbe.lists import PLACES, add_shapes


def check_addition(name: str, text: str, shapes: list, *, dress=lambda text: text.encode(), **names) -> bytes:
    """Add to a list written as ``text`` and check every promise; returns the new text of the list."""
    head, _, tail = FORMS[name]
    before = dress(head + text + tail)
    result = add_shapes(before, name, shapes)
    old = eval(f"({text})", names)
    lacking = [shape for i, shape in enumerate(shapes) if shape not in old + shapes[:i]]
    assert result.added == lacking
    begin, end = len(dress(head)), len(before) - len(dress(head + text))
    assert result.data[:begin] == before[:begin]
    assert result.data[len(result.data) - end :] == before[len(before) - end :]
    new = result.data[begin : len(result.data) - end]
    assert eval(b"(" + new + b")", names) == old + lacking
    kept = iter(new)
    assert all(byte in kept for byte in before[begin : len(before) - end])  # each old byte, in the old order
    again = add_shapes(result.data, name, shapes)
    assert (again.data, again.added) == (result.data, [])
    return new


@pytest.mark.parametrize("name", PLACES)
def test_cann_s_own_form(name):
    head, text, tail = FORMS[name]
    new = check_addition(name, text, SHAPES[name]).decode()
    data = content(name, new)
    assert all(accepts(data, shape) for shape in SHAPES[name])
    assert not any(accepts(content(name), shape) for shape in SHAPES[name])
    assert not accepts(data, [24, 7, 2000, 1])
    # rows of several shapes, under the elements that were there
    rows = [line for line in (head + new + tail).splitlines() if line not in (head + text + tail).splitlines()][1:]
    assert 0 < len(rows) <= len(SHAPES[name]) / 2
    margin = 25 if name == TRANSPOSE else 56
    assert all(row.startswith(" " * margin + "[") for row in rows)
    assert new.splitlines()[-1].endswith("\n                       ]"[1:] if name == TRANSPOSE else "]]")


FORMS_OF_LISTS = {
    "empty": "[]",
    "empty, on lines": "[\n    ]",
    "empty, with a comment": "[  # none ]\n # yet ]\n]",
    "one line": "[[1, 2]]",
    "no blanks": "[[1,2],[3,4]]",
    "trailing comma": "[[1, 2], [3, 4],]",
    "trailing comma and blank": "[[1, 2], [3, 4], ]",
    "inner trailing comma": "[[160, 160, 3, 3,]]",
    "trailing comma, on lines": "[\n      [1, 2],\n      [3, 4],\n   ]",
    "tabs": "[\n\t\t[1,\t2],\t[3, 4]\n\t]",
    "comments inside": "[\n  #A NET [\n  [1, 2], # , ]\n  #END ]\n  [3, 4]\n ]",
    "comment behind the last": "[\n   [1, 2], [3, 4]  # the last, ]\n ]",
    "comment behind the comma": "[\n   [1, 2], [3, 4],  # the last, ]\n ]",
    "comments below the last": "[\n   [1, 2]\n   # a, ]\n\n   # b\n ]",
    "comma below the last": "[\n   [1, 2]  # a\n   ,  # b\n ]",
    "comment that is not ASCII": "[\n   [1, 2],  # 形状, é\n   [3, 4]  # 形状\n ]",
    "brackets around elements": "[([1, 2]), (([3, 4]  # a\n))  ]",
    "backslashes": "[[1, 2], \\\n [3, 4] \\\n ]",
    "element on many lines": "[[1,\n  2,\n  3], [4,\n 5]]",
    "row that begins in the last line of an element": "[[1,\n  2], [3, 4]]",
    "far to the right": "[" + " " * 200 + "[1, 2]]",
    "some there": "[[1, 2], [24,8,2000,1], [8,1,8,1],[24, 4096,\n2000, 1]]",
    "all there, other order, doubles": None,
    "negative, other types": "[[-1, 2], (24, 8, 2000, 1), None, 'a, [', [24.5]]",
    "elements that are no literals": "[[N, 1], [1, 2], *MORE, [i for i in MORE]]",
}  # fmt: skip


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize("form", FORMS_OF_LISTS)
def test_forms_of_lists(form, name):
    text = FORMS_OF_LISTS[form] or str(SHAPES[name][::-1] * 2)
    new = check_addition(name, text, SHAPES[name], N=7, MORE=[1]).decode()
    style = [re.sub(r"#.*|[\s\\]", "", line) for line in (text, new)]
    assert style[0].endswith(",]") == style[1].endswith(",]")
    if "# the last" in text:
        assert "[3, 4]," in new and new.index("# the last") < new.index("[24, ")
    if form == "tabs":  # in which the new rows are indented, too
        rows = new.splitlines()[2:-1]
        assert rows and all(re.match(r"\t\t\[\d", row) for row in rows)


@pytest.mark.parametrize(
    ("newline", "encoding", "cookie"),
    [
        ("\r\n", "utf-8", ""), ("\r", "utf-8", ""), ("\n", "utf-8-sig", ""), ("\r\n", "utf-8-sig", ""),
        ("\r\n", "gbk", "# -*- coding: gbk -*-\n"), ("\n", "gbk", "#!/usr/bin/python\n# coding=gbk\n"),
    ],
)  # fmt: skip
def test_line_ends_and_encodings(newline, encoding, cookie):
    # In UTF-8 the bytes of this character are no text in GBK.
    def dress(text):
        return f"{cookie}# 形\n{text}".replace("\n", newline).encode(encoding)

    for name in PLACES:
        head, _, tail = FORMS[name]
        before = dress(head + "[\n    [1, 2], # 形状\n    [3, 4]  # 形状\n    ]" + tail)
        result = add_shapes(before, name, SHAPES[name])
        assert result.data.startswith(dress(head))
        assert result.data.endswith(tail.replace("\n", newline).encode(encoding.removesuffix("-sig")))
        assert all(accepts(result.data, shape) for shape in SHAPES[name])
        # the new lines end as the old ones do
        rest = result.data.decode(encoding).replace(newline, "")
        assert "\r" not in rest and "\n" not in rest
        assert add_shapes(result.data, name, SHAPES[name]).added == []


def test_list_in_the_last_line_without_end():
    data = b"def _by_dynamic_static_union_version(): white_list_shape = [[1]]"
    result = add_shapes(data, TRANSPOSE, [[2]])
    assert result.data == data[:-1] + b",\n" + b" " * 60 + b"[2]]"


@pytest.mark.parametrize("before", ["[]", "[\n    ]", "[  # none\n ]"])
def test_rows_of_an_empty_list_stand_in_line(before):
    """The first shape stands behind the bracket, the rows that follow stand under it."""
    head = FORMS[TRANSPOSE][0].splitlines()[-1]
    new = head + check_addition(TRANSPOSE, before, [[1000 + i, 4096, 2000, 1] for i in range(20)]).decode()
    assert new.startswith(head + "[[1000, ")
    begins = [line.index("[1") for line in new.splitlines() if "[1" in line]
    assert begins == [len(head) + 1] * len(begins) and len(begins) > 2


@pytest.mark.parametrize("before", ["[]", "[[1, 2]]", "[\n      [1, 2]\n    ]"])
def test_rows_are_as_wide_as_cann_s(before):
    """Up to 120 columns, and not one less where the shapes fit."""
    head = FORMS[TRANSPOSE][0].splitlines()[-1]
    shapes = [[random.Random(i).randrange(10 ** (1 + i % 7))] for i in range(200)]
    rows = (head + check_addition(TRANSPOSE, before, shapes).decode()).splitlines()
    assert max(map(len, rows[:-1])) == 120  # the last one also has the bracket that closes the list


def random_list(rng: random.Random, shapes: list) -> str:
    """The shapes as somebody might have written them."""

    gaps = ["", "", " ", "  ", "\t", "\n", "\n    ", "\n\n\t", " # a, [b] ]\n", "  #\n", " \\\n", "\f", " # 形\n  "]

    def gap(usual: str = " ") -> str:
        return rng.choice(gaps) if rng.random() < 0.6 else usual

    def listed(items: list[str]) -> str:
        text = ",".join(gap() + item + gap("") for item in items)
        return "[" + text + ("," + gap("") if items and rng.random() < 0.3 else gap("")) + "]"

    def bracketed(item: str) -> str:
        return f"({gap('')}{item}{gap('')})" if rng.random() < 0.1 else item

    return listed([bracketed(listed([bracketed(str(size)) for size in shape])) for shape in shapes])


@pytest.mark.parametrize("seed", range(60))
def test_random_forms(seed):
    rng = random.Random(seed)
    for name in PLACES:
        others = [[rng.randint(-1, 300) for _ in range(rng.randint(1, 5))] for _ in range(rng.randint(0, 6))]
        there = others + rng.sample(SHAPES[name], rng.randint(0, 3))
        rng.shuffle(there)
        wanted = rng.choices(SHAPES[name], k=rng.randint(0, 7))
        bom = rng.choice(["utf-8", "utf-8-sig"])
        check_addition(name, random_list(rng, there), wanted, dress=lambda text: text.encode(bom))  # noqa: B023


@pytest.mark.parametrize("name", PLACES)
def test_users_own_edits_are_seen_by_value(name):
    """Lists without blanks, tabs, a print line: a second run adds nothing."""
    shapes = ",".join(str(shape).replace(" ", "") for shape in SHAPES[name])
    data = content(name, f"[[1,2],\n\t\t{shapes}]")
    data = data.replace(b"        return", b'        print("====", 1); return')
    assert add_shapes(data, name, SHAPES[name]).added == []


@pytest.mark.parametrize("name", PLACES)
def test_other_lists_are_not_taken(name):
    """With the place gone, all that looks like it is still there."""
    data = content(name)
    for there, instead in [
        (b"    white_list_shape = [\n    ", b"    white_list = [\n    "),
        (b' and dtype_input == "float16":\n        return "fast"', b':\n        return "fast"'),
        (b'"nchw" and dst_shape in [[2560', b'"nchw" and dtype and dst_shape in [[2560'),
    ]:
        data = data.replace(there, instead)
    assert data != content(name)
    assert add_shapes(data, name, SHAPES[name]) is None


@pytest.mark.parametrize("condition", ["{} or dtype", "not ({})", "({}) and dtype", "x if {} else y"])
def test_condition_must_be_the_exact_one(condition):
    old = 'dst_format.lower() == "nchw" and dst_shape in [[2560, 512, 4, 26]]'
    data = f"def five_2_four():\n    if {condition.format(old)}:\n        pass\n    {old}\n    return {old}\n"
    assert add_shapes(data.encode(), FIVE_2_FOUR, SHAPES[FIVE_2_FOUR]) is None


@pytest.mark.parametrize(
    ("name", "spoil", "message"),
    [
        (FIVE_2_FOUR, lambda text: text + "x = (\n", "is not Python"),
        (FOUR_2_FIVE, lambda text: text + "\0", "is not Python"),
        (FOUR_2_FIVE, lambda text: text + "# \udcff", "is not Python"),
        (FOUR_2_FIVE, lambda text: "# coding: klingon\n" + text, "is not Python"),
        (FOUR_2_FIVE, lambda text: "# coding: rot13\n" + text, "is not Python"),
        (FOUR_2_FIVE, lambda text: "# coding: utf-7\n# +ACE-\n" + text, "not the one form of its text in utf-7"),
        (TRANSPOSE, lambda text: text.replace("white_list_shape_lhisi =", "white_list_shape ="), "2 times"),
        (TRANSPOSE, lambda text: text + text, "defines the function _by_dynamic_static_union_version 2 times"),
        (FOUR_2_FIVE, lambda text: text.replace("NHWC", "NCHW"), "2 times in the function four_2_five: lines 10, 14"),
        (FIVE_2_FOUR, lambda text: text.replace("nhwc", "nchw"), "2 times"),
    ],
)
def test_doubtful_files_are_refused(name, spoil, message):
    data = spoil(content(name).decode()).encode(errors="surrogateescape")
    with pytest.raises(UserError, match=message):
        add_shapes(data, name, SHAPES[name])


MISTAKES = {
    "nothing added": lambda source, edited: source,
    "a number of the old ones changed": lambda source, edited: edited.replace(b"[1100]", b"[1101]"),
    "an old one gone": lambda source, edited: edited.replace(b"[1100],", b""),
    "a new one twice": lambda source, edited: edited.replace(b"[7, 8]", b"[7, 8], [7, 8]"),
    "another number than wanted": lambda source, edited: edited.replace(b"[7, 8]", b"[7, 9]"),
    "text in front": lambda source, edited: b"# new\n" + edited,
    "text in front changed": lambda source, edited: edited.replace(b"[[1, 24, 3, 20]]", b"[[1, 24, 3, 21]]"),
    "text behind": lambda source, edited: edited + b"# new\n",
    "text behind changed": lambda source, edited: edited.replace(b"4, 8732", b"4, 8733"),
    "no such list any more": lambda source, edited: edited.replace(b"    white_list_shape = [", b"    other = ["),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_wrong_edit_is_not_handed_out(monkeypatch, mistake):
    """What is written to CANN is looked at once more, whatever wrote it."""
    genuine = lists._append
    spoiled = []

    def append(source, found, shapes):
        edited = genuine(source, found, shapes)
        spoiled.append(MISTAKES[mistake](source, edited))
        assert spoiled[0] != edited
        return spoiled[0]

    monkeypatch.setattr(lists, "_append", append)
    with pytest.raises(UserError, match=r"cannot be edited safely: its list in line \d+ is written in an unknown way"):
        add_shapes(content(TRANSPOSE), TRANSPOSE, [[7, 8]])
    assert spoiled


def test_invalid_escapes_of_old_files_are_not_reported(recwarn):
    data = b'PATTERN = "\\d"\n' + content(TRANSPOSE)
    assert add_shapes(data, TRANSPOSE, SHAPES[TRANSPOSE]).added
    assert not list(recwarn)


def test_elements_without_a_value_are_let_be():
    """A name, a call, and a literal that Python cannot evaluate stay where they are; shapes go behind them."""
    head, _, tail = FORMS[TRANSPOSE]
    before = f"{head}[[1, 2], shape, list(range(3)), {{[1]: 2}}]{tail}"
    result = add_shapes(before.encode(), TRANSPOSE, [[1, 2], [7, 8]])
    assert result.added == [[7, 8]]
    assert b"{[1]: 2}" in result.data and b"[7, 8]" in result.data
