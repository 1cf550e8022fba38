"""The patcher of CANN's white lists, on files written here in the forms that CANN's have."""

import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

from common.program import UserError
from conftest import ROOT, write_config
from tools import find_cann, patch_tbe
from tools.tbe_lists import PLACES, add_shapes

TRANSPOSE, FOUR_2_FIVE, FIVE_2_FOUR = PLACES
TRANS_DATA = (FOUR_2_FIVE, FIVE_2_FOUR)
SHAPES = json.loads((ROOT / "configs/tbe_whitelist.json").read_text())
OLD, NEW = "op_impl/built-in/ai_core/tbe/impl", "built-in/op_impl/ai_core/tbe/impl"

# (what stands before the list, the list, what stands behind it) of each file
FORMS = {
    TRANSPOSE: (
        '''"""
transpose
"""
from functools import reduce


def _fuzzy_match(shape_t):
    white_list_shape_fuzzy =  [
                               #A NET
                               [-1, 12, 197, 64], [-1, 1, 1, 256]
                              ]
    white_list_shape = [[77, 77]]
    return shape_t in white_list_shape or shape_t in white_list_shape_fuzzy


class Other:
    def _by_dynamic_static_union_version(self, shape, core_num):
        white_list_shape = [[55, 55]]
        return shape in white_list_shape


def _by_dynamic_static_union_version(shape, core_num):
    """
    temporary function, for dynamic & static union version not fully verified
    white_list_shape = [[66, 66]]
    """
    if core_num == 1:
        white_list_shape_lhisi = [[1, 24, 3, 20]]
        shape_t_lhisi = list(shape)
        if shape_t_lhisi in white_list_shape_lhisi:
            return True
        return False

    white_list_shape = ''',
        """[
                         [2, 512, 1024], [1024, 91], [2, 512, 1024],  [256, 784, 91],
                         [160, 160, 3, 3,], [1100], \x20
                         [3, 256, 16, 64], [8, 3, 20, 20, 85]
                       ]""",
        """
    shape_t = list(shape)
    if shape_t in white_list_shape:
        return True
    black_list_shape = [[4, 8732]]
    return _fuzzy_match(shape_t)


def use(shape):
    return _by_dynamic_static_union_version(shape, 32)
""",
    ),
    FOUR_2_FIVE: (
        '''"""
four_2_five
"""


def four_2_five(src, dst, src_format, dst_format, kernel_name="four_2_five"):
    """if src_format.upper() == "NCHW" and shape_input in [[1]] and dtype_input == "float16":"""
    shape_input = list(src.get("shape"))
    dtype_input = src.get("dtype").lower()
    if src_format.upper() == "NHWC" and shape_input in [[8, 640, 640, 3]] and dtype_input == "float16":
        return "tc"
    if src_format.upper() == "NCHW" and shape_input in [[9, 9]]:
        return "tc"
    if src_format.upper() == "NCHW" and shape_input in ''',
        """[[16, 240, 7, 7], [16, 120, 14, 14],
                                                        [1, 1, 480, 720]]""",
        """ and dtype_input == "float16":
        return "fast"
    if src_format.upper() == "NCHW" and shape_input in [[5, 5]] and dtype_input == "float32":
        return "tc"
    return "slow"


def use(shape):
    return four_2_five({"shape": shape, "dtype": "float16"}, {}, "NCHW", "NC1HWC0") == "fast"
""",
    ),
    FIVE_2_FOUR: (
        '''"""
five_2_four
"""


def five_2_four(src, dst, src_format, dst_format, kernel_name='five_2_four'):
    src_shape = list(src.get("shape"))
    dst_shape = list(dst.get("shape"))
    dtype = src.get("dtype")
    if dst_format.lower() == "nchw" and \\
            dtype == "int8":
        return "v200"
    elif dst_format.lower() == "nhwc" and dst_shape in [[10000, 63, 63, 1], [10000, 127, 127, 1],
                                                        [16, 3, 3, 324]]:
        return "tc"
    # Notes: vbi only supported by 1951
    elif dst_format.lower() == "nchw" and dst_shape in ''',
        """[[2560, 512, 4, 26], [2560, 512, 1, 26], [2560, 256, 8, 25]]""",
        """:
        return "fast"
    elif dst_format.lower() == "nchw" and dtype == "float32" and dst_shape in [[200, 1, 10, 26]] and \\
            len(dst_shape) == 4:
        return "ntc"
    elif dst_format.lower() == "nchw" and \\
            src_shape in [[1, 4, 65, 65, 16], [1, 8, 33, 33, 16]] and \\
            dst_shape in [[1, 58, 65, 65], [1, 116, 33, 33]]:
        return "chw"
    else:
        return "slow"


def use(shape):
    return five_2_four({"shape": [1], "dtype": "float16"}, {"shape": shape}, "NC1HWC0", "NCHW") == "fast"
""",
    ),
}


def content(name: str, text: str | None = None) -> bytes:
    head, own, tail = FORMS[name]
    return (head + (own if text is None else text) + tail).encode()


def accepts(data: bytes, shape: list[int]) -> bool:
    """Whether the operator takes its fast way for the shape."""
    scope = {}
    exec(compile(data, "operator", "exec"), scope)
    return scope["use"](shape)


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
    assert not accepts(data, [24, 5, 2000, 1])
    # rows of several shapes, under the elements that were there
    rows = [line for line in (head + new + tail).splitlines() if line not in (head + text + tail).splitlines()][1:]
    assert len(rows) <= len(SHAPES[name]) / 2
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


@pytest.mark.parametrize(
    ("newline", "encoding", "cookie"),
    [
        ("\r\n", "utf-8", ""), ("\r", "utf-8", ""), ("\n", "utf-8-sig", ""), ("\r\n", "utf-8-sig", ""),
        ("\r\n", "gbk", "# -*- coding: gbk -*-\n"), ("\n", "gbk", "#!/usr/bin/python\n# coding=gbk\n"),
    ],
)  # fmt: skip
def test_line_ends_and_encodings(newline, encoding, cookie):
    def dress(text):
        return f"{cookie}# 形状\n{text}".replace("\n", newline).encode(encoding)

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


def test_invalid_escapes_of_old_files_are_not_reported(recwarn):
    data = b'PATTERN = "\\d"\n' + content(TRANSPOSE)
    assert add_shapes(data, TRANSPOSE, SHAPES[TRANSPOSE]).added
    assert not list(recwarn)


# Shapes


def test_shipped_shapes_are_those_of_the_shipped_configuration():
    computed = patch_tbe.computed_shapes(str(ROOT / "configs/waveglow.json"))
    assert computed == SHAPES == patch_tbe.read_shapes(patch_tbe.SHIPPED_SHAPES)
    assert list(computed) == list(PLACES)


def test_shapes_of_another_configuration(tmp_path):
    values = {
        "train_config": {"batch_size": 5},
        "data_config": {"segment_length": 4007},
        "waveglow_config": {
            "n_mel_channels": 20, "n_flows": 5, "n_group": 16, "n_early_every": 2, "n_early_size": 4,
            "WN_config": {"n_layers": 3, "n_channels": 64},
        },
    }  # fmt: skip
    shapes = patch_tbe.computed_shapes(str(write_config(tmp_path / "c.json", values)))
    assert shapes[TRANSPOSE] == [
        [16, 1, 16, 1], [12, 1, 12, 1], [8, 1, 8, 1],
        [5, 20, 250, 16], [5, 250, 16, 1], [5, 250, 320, 1], [5, 20, 16, 250],
    ]  # fmt: skip
    sizes = {16, 12, 8, 6, 4, 320, 64, 128, 384}
    for name in TRANS_DATA:
        assert sorted(shapes[name]) == [[5, size, 250, 1] for size in sorted(sizes)]


def test_impossible_configuration_is_named(tmp_path):
    path = write_config(tmp_path / "c.json", {"waveglow_config": {"n_flows": 40}})
    with pytest.raises(UserError, match="leaves flow 16 no channels"):
        patch_tbe.computed_shapes(str(path))


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"four_2_five.py": []}', *(json.dumps(SHAPES | {TRANSPOSE: s}) for s in (3, [3], [[0]]))]
)
def test_bad_file_of_shapes_is_named(tmp_path, text):
    path = tmp_path / "shapes.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"shapes\.json"):
        patch_tbe.read_shapes(path)


# Finding CANN


@pytest.fixture
def nowhere(monkeypatch, tmp_path):
    """A machine without CANN."""
    monkeypatch.delenv("ASCEND_OPP_PATH", raising=False)
    monkeypatch.setattr(find_cann, "INSTALL_INFO", tmp_path / "etc/ascend_cann_install.info")
    monkeypatch.setattr(find_cann, "DEFAULT_ROOT", tmp_path / "usr local/Ascend")
    monkeypatch.setattr(os, "fsync", lambda file: None)  # slow, and nothing here cuts the power
    return tmp_path


def make_cann(opp: Path, layout: str = OLD, names=PLACES) -> Path:
    """A folder opp with the operators; returns its folder impl."""
    impl = opp / layout
    (impl / "dynamic").mkdir(parents=True)
    for name in names:
        (impl / name).write_bytes(content(name))
    return impl


@pytest.mark.parametrize("layout", [OLD, NEW])
@pytest.mark.parametrize(
    "opp", ["opp", "ascend-toolkit/5.0.3/arm64-linux/opp", "ascend-toolkit/5.0.3/x86_64-linux/opp", "nnae/5.0/opp"]
)
def test_cann_is_found(nowhere, monkeypatch, opp, layout):
    root = nowhere / "usr local/Ascend"
    impl = make_cann(root / opp, layout)
    # a sample of an operator, as CANN ships it, and a custom one
    make_cann(root / "ascend-toolkit/5.0.3/tools/template/sample/tbe", "impl")
    make_cann(impl.parents[4] / "vendors/custom", "op_impl/ai_core/tbe/impl")
    assert find_cann.find_impl(None) == impl
    for above in [root / opp, *(root / opp).parents][: len(Path(opp).parts) + 1]:
        assert find_cann.find_impl(str(above)) == impl
    monkeypatch.chdir(root)
    assert find_cann.find_impl(opp) == impl


def test_order_of_places(nowhere, monkeypatch):
    places = [nowhere / f"{i}/opp" for i in range(3)] + [nowhere / "usr local/Ascend/opp"]
    argument, variable, noted, default = [make_cann(opp) for opp in places]
    assert find_cann.find_impl(None) == default
    find_cann.INSTALL_INFO.parent.mkdir()
    find_cann.INSTALL_INFO.write_text(f"UserName=root\nInstall_Path={nowhere / '2'} \n")
    assert find_cann.find_impl(None) == noted
    monkeypatch.setenv("ASCEND_OPP_PATH", str(places[1]))
    assert find_cann.find_impl(None) == variable
    assert find_cann.find_impl(str(places[0])) == argument
    monkeypatch.setenv("ASCEND_OPP_PATH", str(nowhere / "gone"))
    with pytest.raises(UserError, match="gone"):  # not another CANN than the one in use
        find_cann.find_impl(None)


def test_stale_note_of_the_installer(nowhere):
    find_cann.INSTALL_INFO.parent.mkdir()
    find_cann.INSTALL_INFO.write_text("Install_Path=/gone\r\nInstall_Path=\nUserName=opp\n")
    impl = make_cann(find_cann.DEFAULT_ROOT / "cann-8.5/opp", NEW)
    assert find_cann.find_impl(None) == impl


def test_no_cann(nowhere):
    with pytest.raises(UserError, match=r"no operators of CANN in .*Ascend: name its folder with --opp_path"):
        find_cann.find_impl(None)


def test_links_name_one_installation(nowhere):
    toolkit = find_cann.DEFAULT_ROOT / "ascend-toolkit"
    impl = make_cann(toolkit / "5.0.3/x86_64-linux/opp")
    (toolkit / "latest").symlink_to("5.0.3")
    (toolkit / "5.0.3/opp").symlink_to("x86_64-linux/opp")
    (nowhere / "usr local/link").symlink_to("Ascend")
    assert find_cann.find_impl(None) == impl
    assert find_cann.find_impl(str(nowhere / "usr local/link/ascend-toolkit/latest/opp")) == impl
    # newer CANN: latest is a folder of links
    (toolkit / "latest").unlink()
    (toolkit / "latest").mkdir()
    (toolkit / "latest/opp").symlink_to("../5.0.3/x86_64-linux/opp")
    assert find_cann.find_impl(None) == impl


def test_several_installations_are_listed(nowhere):
    toolkit = find_cann.DEFAULT_ROOT / "ascend-toolkit"
    impls = [make_cann(toolkit / "5.0.2/arm64-linux/opp"), make_cann(toolkit / "8.1.RC1/opp", NEW)]
    (toolkit / "latest").symlink_to("8.1.RC1")
    with pytest.raises(UserError, match="2 installations") as error:
        find_cann.find_impl(None)
    offered = re.findall(r"--opp_path=(.+?)(?= or |$)", str(error.value))
    assert [find_cann.find_impl(path) for path in offered] == impls


# The program


@pytest.fixture
def cann(nowhere):
    """A CANN 5.0.3: its folder impl."""
    return make_cann(find_cann.DEFAULT_ROOT / "ascend-toolkit/5.0.3/arm64-linux/opp")


def state(folder: Path) -> dict[str, tuple]:
    """All that a user could see of the files."""
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mode, path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def contents(folder: Path) -> dict[str, bytes]:
    return {name: seen[0] for name, seen in state(folder).items()}


@pytest.fixture
def patch(monkeypatch, capsys):
    """Run the program; returns its exit code and what it says."""

    def run(*options):
        monkeypatch.setattr(sys, "argv", ["patch_tbe.py", *map(str, options)])
        try:
            patch_tbe.main()
            code = 0
        except SystemExit as end:
            code = end.code
        return code, capsys.readouterr().out

    return run


def test_check_apply_check_restore(cann, patch):
    for mode, name in ((0o640, TRANSPOSE), (0o550, FOUR_2_FIVE), (0o444, FIVE_2_FOUR)):
        (cann / name).chmod(mode)
    original = state(cann)

    for options in ([], ["--check"]):
        code, said = patch(*options)
        assert (code, state(cann)) == (3, original)
        assert said.splitlines() == [
            f"CANN's operators in {cann}", f"{TRANSPOSE}: not patched (7 lacking)",
            f"{FOUR_2_FIVE}: not patched (9 lacking)", f"{FIVE_2_FOUR}: not patched (9 lacking)",
            "--apply adds what is missing",
        ]  # fmt: skip

    code, said = patch("--apply")
    assert code == 0
    assert said.splitlines()[1:] == [
        f"{TRANSPOSE}: patched (7 added)", f"{FOUR_2_FIVE}: patched (9 added)", f"{FIVE_2_FOUR}: patched (9 added)",
    ]  # fmt: skip
    patched = state(cann)
    for name in PLACES:
        assert all(accepts(patched[name][0], shape) for shape in SHAPES[name])
        assert patched[name][1] == original[name][1]
    backups = {name: seen for name, seen in patched.items() if name not in PLACES}
    assert sorted(seen[:2] for seen in backups.values()) == sorted(seen[:2] for seen in original.values())

    for options, expected in (["--apply"], 0), (["--check"], 0):
        code, said = patch(*options)
        assert (code, state(cann)) == (expected, patched)
        assert said.splitlines()[1:] == [f"{name}: already there" for name in PLACES]

    code, said = patch("--restore")
    assert code == 0
    assert said.splitlines()[1:] == [f"{name}: restored" for name in PLACES]
    assert {name: seen[:2] for name, seen in state(cann).items()} == {n: seen[:2] for n, seen in original.items()}
    again = state(cann)
    code, said = patch("--restore")
    assert (code, state(cann)) == (0, again)
    assert said.splitlines()[1:] == [f"{name}: nothing to restore" for name in PLACES]


def test_owner_is_kept(cann, patch):
    if os.geteuid():
        pytest.skip("only root can give files away")
    for name in PLACES:
        os.chown(cann / name, 1234, 4321)
    patch("--apply")
    owners = {(path.stat().st_uid, path.stat().st_gid) for path in cann.rglob("*.py*")}
    assert owners == {(1234, 4321)}
    patch("--restore")
    assert [(path.stat().st_uid, path.stat().st_gid) for path in cann.rglob("*.py*")] == [(1234, 4321)] * 3


def test_only_what_is_missing_is_written(cann, patch):
    (cann / FOUR_2_FIVE).write_bytes(content(FOUR_2_FIVE, str(SHAPES[FOUR_2_FIVE])))
    (cann / FIVE_2_FOUR).write_bytes(content(FIVE_2_FOUR, str(SHAPES[FIVE_2_FOUR][:-1])))
    before = state(cann)
    assert f"{FOUR_2_FIVE}: already there\n{FIVE_2_FOUR}: patched (1 added)" in patch("--apply")[1]
    assert state(cann)[FOUR_2_FIVE] == before[FOUR_2_FIVE]
    assert not list(cann.glob(f"{FOUR_2_FIVE}?*"))


def test_second_configuration_keeps_the_first_original(cann, patch, tmp_path):
    original = contents(cann)
    patch("--apply")
    config = write_config(tmp_path / "c.json", {"train_config": {"batch_size": 3}})
    code, said = patch("--config", config)
    assert code == 3 and f"{TRANSPOSE}: not patched (4 lacking)" in said
    assert patch("--apply", f"--config={config}")[0] == 0
    data = contents(cann)
    assert len(data) == 6
    assert accepts(data[FOUR_2_FIVE], [24, 8, 2000, 1]) and accepts(data[FOUR_2_FIVE], [3, 8, 2000, 1])
    assert patch("--restore")[0] == 0
    assert contents(cann) == original


@pytest.mark.parametrize("name", PLACES)
def test_restore_leaves_files_alone_that_somebody_changed(cann, patch, name):
    patch("--apply")
    path = cann / name
    path.write_bytes(path.read_bytes().replace(b"2000", b"2001", 1))
    before = state(cann)
    with pytest.raises(UserError, match=f"{name} was changed after --apply.*original is .*{name}.before_patch_tbe"):
        patch("--restore")
    assert state(cann) == before


def test_edits_after_apply_are_never_lost(cann, patch):
    """A file that was changed after --apply, be it by a new CANN, gets a backup of its own."""
    patch("--apply")
    changed = content(FOUR_2_FIVE, "[[1, 2]]")
    (cann / FOUR_2_FIVE).write_bytes(changed)
    assert f"{FOUR_2_FIVE}: patched (9 added)" in patch("--apply")[1]
    patch("--restore")
    assert (cann / FOUR_2_FIVE).read_bytes() == changed
    assert [path.read_bytes() for path in cann.glob(f"{FOUR_2_FIVE}?*")] == [content(FOUR_2_FIVE)]


def test_backup_is_never_overwritten(cann, patch):
    """Not even when --apply makes the same of what somebody has left of its work."""
    patch("--apply")
    lines = (cann / FOUR_2_FIVE).read_bytes().splitlines(keepends=True)
    row = next(i for i, line in enumerate(lines) if b"4096" in line)
    lines[row - 1 : row + 1] = [lines[row - 1].rstrip(b",\n") + lines[row][lines[row].index(b"4096") + 14 :]]
    (cann / FOUR_2_FIVE).write_bytes(b"".join(lines))
    assert f"{FOUR_2_FIVE}: patched (3 added)" in patch("--apply")[1]
    patch("--restore")
    assert contents(cann) == {name: content(name) for name in PLACES}


def test_apply_after_a_crash(cann, patch):
    """Backups are written first; the program may have ended right behind that."""
    original = contents(cann)
    patch("--apply")
    for name in PLACES:
        (cann / name).write_bytes(original[name])
    assert f"{FOUR_2_FIVE}: nothing to restore" in patch("--restore")[1]
    assert patch("--apply")[0] == 0
    assert len(contents(cann)) == 6
    patch("--restore")
    assert contents(cann) == original


@pytest.mark.parametrize("mode", ["--check", "--apply"])
@pytest.mark.parametrize("name", PLACES)
def test_one_bad_file_stops_all(cann, patch, name, mode):
    (cann / name).write_bytes(content(name) + b"x = (\n")
    before = state(cann)
    with pytest.raises(UserError, match=rf"{name} is not Python"):
        patch(mode)
    assert state(cann) == before


@pytest.mark.parametrize("mode", ["--check", "--apply", "--restore"])
@pytest.mark.parametrize("link", [TRANSPOSE, FIVE_2_FOUR, "dynamic", "."])
def test_links_out_of_cann_are_refused(cann, patch, tmp_path, link, mode):
    outside = tmp_path / "outside"
    (cann / link).rename(outside)
    (cann / link).symlink_to(outside)
    before = state(cann), state(tmp_path)
    with pytest.raises(UserError, match=r"is a link out of .*outside"):
        patch(mode)
    assert (state(cann), state(tmp_path)) == before


def test_links_inside_of_cann_are_followed(cann, patch):
    (cann / FIVE_2_FOUR).rename(cann / "dynamic/real.py")
    (cann / FIVE_2_FOUR).symlink_to("dynamic/real.py")
    original = contents(cann)
    assert patch("--apply")[0] == 0
    assert (cann / FIVE_2_FOUR).is_symlink() and (cann / "dynamic/real.py").read_bytes() != original["dynamic/real.py"]
    patch("--restore")
    assert contents(cann) == original and (cann / FIVE_2_FOUR).is_symlink()


@pytest.mark.parametrize("loop", [FIVE_2_FOUR, "dynamic"])
def test_file_that_is_none_is_named(cann, patch, loop):
    (cann / loop).rename(cann / "other")
    (cann / loop).symlink_to(loop)
    with pytest.raises(UserError, match=f"cannot read or write .*{loop}"):
        patch("--apply")


@pytest.mark.parametrize("failing", PLACES)
@pytest.mark.parametrize(("mode", "backup"), [("--apply", False), ("--apply", True), ("--restore", False)])
def test_failure_half_way_puts_all_back(cann, patch, monkeypatch, failing, mode, backup):
    """Whether it is a file that cannot be written or its backup."""
    if mode == "--restore":
        patch("--apply")
    before = contents(cann)
    genuine = patch_tbe.write_like
    failed = []

    def write_like(model, path, data):
        if model == cann / failing and (path != model) == backup and not failed:
            failed.append(path)
            raise OSError(28, "No space left on device", str(path))
        genuine(model, path, data)

    monkeypatch.setattr(patch_tbe, "write_like", write_like)
    with pytest.raises(UserError, match=rf"cannot read or write .*{failing}.*: No space left on device"):
        patch(mode)
    assert failed
    assert contents(cann) == before


def test_putting_back_spares_what_somebody_else_wrote(cann, patch, monkeypatch):
    genuine = patch_tbe.write_like

    def write_like(model, path, data):
        if path == cann / FIVE_2_FOUR:
            (cann / TRANSPOSE).write_bytes(b"# mine\n")
            raise OSError(28, "No space left on device", str(path))
        genuine(model, path, data)

    monkeypatch.setattr(patch_tbe, "write_like", write_like)
    with pytest.raises(UserError, match="No space left"):
        patch("--apply")
    left = contents(cann)
    assert left.pop(TRANSPOSE) == b"# mine\n"
    assert [left.pop(name) for name in TRANS_DATA] == [content(name) for name in TRANS_DATA]
    assert list(left.values()) == [content(TRANSPOSE)]  # the original is not lost


def test_failure_to_put_back_is_said(cann, patch, monkeypatch):
    genuine = patch_tbe.write_like

    def write_like(model, path, data):
        if (cann / FOUR_2_FIVE).read_bytes() != content(FOUR_2_FIVE):
            raise OSError(5, "Input/output error", str(path))
        genuine(model, path, data)

    monkeypatch.setattr(patch_tbe, "write_like", write_like)
    with pytest.raises(UserError, match=f"putting back {cann / TRANSPOSE}, {cann / FOUR_2_FIVE}"):
        patch("--apply")
    monkeypatch.setattr(patch_tbe, "write_like", genuine)
    patch("--restore")
    assert contents(cann) == {name: content(name) for name in PLACES}


@pytest.mark.parametrize(
    ("changed", "hook"),
    [
        # before the first is written, also a file in which there is nothing to add; before the last is
        (TRANSPOSE, "require_writable"), (FOUR_2_FIVE, "require_writable"), (FIVE_2_FOUR, "require_writable"),
        (FIVE_2_FOUR, "write_like"),
    ],
)  # fmt: skip
def test_change_between_reading_and_writing(cann, patch, monkeypatch, changed, hook):
    (cann / FOUR_2_FIVE).write_bytes(content(FOUR_2_FIVE, str(SHAPES[FOUR_2_FIVE])))
    before = contents(cann)
    genuine = getattr(patch_tbe, hook)

    def meanwhile(*args):
        (cann / changed).write_bytes(b"# mine\n")
        genuine(*args)

    monkeypatch.setattr(patch_tbe, hook, meanwhile)
    with pytest.raises(UserError, match=f"{changed} was changed by somebody else"):
        patch("--apply")
    assert contents(cann) == before | {changed: b"# mine\n"}


def test_cann_of_somebody_else(cann, patch, monkeypatch):
    before = state(cann)
    with monkeypatch.context() as as_user:
        as_user.setattr(os, "geteuid", lambda: (cann / FIVE_2_FOUR).stat().st_uid + 1)
        with pytest.raises(UserError, match=r"cannot write to .*: run this as root"):
            patch("--apply")
    with monkeypatch.context() as read_only:
        read_only.setattr(os, "access", lambda path, mode: not mode & os.W_OK)
        with pytest.raises(UserError, match=r"cannot write to .*: run this as root"):
            patch("--apply")
        assert patch("--check")[0] == 3
    assert state(cann) == before


@pytest.mark.parametrize(
    ("there", "outcomes"),
    [
        # 8.1.RC1; a CANN still to come
        ({TRANSPOSE: True}, ["patched (7 added)", "no loss: TransData", "no loss: TransData"]),
        ({}, ["no loss: Transpose takes any shape", "no loss: TransData", "no loss: TransData"]),
        ({TRANSPOSE: False}, ["no loss: Transpose takes any shape", "no loss: TransData", "no loss: TransData"]),
        # April 2021; February 2021; 2020
        ({TRANSPOSE: True, FOUR_2_FIVE: False, FIVE_2_FOUR: False}, ["patched (7 added)", "a loss", "a loss"]),
        ({TRANSPOSE: False, FOUR_2_FIVE: False, FIVE_2_FOUR: False}, ["a loss", "a loss", "a loss"]),
        ({FOUR_2_FIVE: False, FIVE_2_FOUR: False}, ["a loss", "a loss", "a loss"]),
        ({FIVE_2_FOUR: False}, ["a loss", "no loss: TransData", "a loss"]),
    ],
)
def test_other_versions_of_cann(nowhere, patch, there, outcomes):
    impl = make_cann(find_cann.DEFAULT_ROOT / "opp", NEW, names=[])
    for name, has_list in there.items():
        (impl / name).write_bytes(content(name) if has_list else b"def five_2_four():\n    pass\n")
    code, said = patch("--apply")
    assert code == 0
    for name, outcome, line in zip(PLACES, outcomes, said.splitlines()[1:]):
        patched = outcome.startswith("patched")
        assert line.startswith(f"{name}: {outcome}" if patched else f"{name}: not in this CANN, {outcome}")
    assert patch("--check")[0] == 0


def script(*options: str, cwd: Path = ROOT, **variables: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "tools/patch_tbe.py"), *options]
    environment = {"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1", **variables}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=60)


def test_as_a_script(cann):
    """From any folder; codes and errors as a shell sees them."""
    opp = str(cann.parents[4])
    done = script(cwd=cann, ASCEND_OPP_PATH=opp)
    assert (done.returncode, done.stderr) == (3, "")
    assert script("--apply", f"--opp_path={opp}").returncode == 0
    assert script("--check", cwd=cann.parents[4].parent, ASCEND_OPP_PATH="opp").returncode == 0
    (cann / FIVE_2_FOUR).write_text("x = (")
    done = script("--apply", "--opp_path", opp)
    assert done.returncode == 1
    assert done.stderr == f"error: {cann / FIVE_2_FOUR} is not Python: '(' was never closed (five_2_four.py, line 1)\n"
    done = script("--apply", "--restore", "--opp_path", opp)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1


def test_help_tells_the_exit_codes():
    said = script("--help").stdout
    assert "exit codes: 0" in said and all(f"--{mode} " in said for mode in ("check", "apply", "restore"))


def test_needs_no_torch_without_config(cann):
    """Root's Python may lack it."""
    code = (
        "import sys; sys.modules['torch'] = None; sys.argv[1:] = sys.argv[2:]\n"
        f"sys.path.insert(0, {str(ROOT)!r})\nfrom common import program; from tools import patch_tbe\n"
        "program.run(patch_tbe.main)"
    )
    command = [sys.executable, "-c", code, "x", f"--opp_path={cann.parents[4]}"]
    assert subprocess.run(command, capture_output=True, text=True, timeout=60).returncode == 3
    done = subprocess.run([*command, "--config=c"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and done.stderr.startswith("error: --config needs the Python environment")
