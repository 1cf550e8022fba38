"""The white lists in CANN's operator files: found by syntax tree, shapes added at their ends.

Bytes in, bytes out: nothing here opens a file, and nothing needs more than Python 3.7. Line numbers differ in every
release of CANN, and the same text stands in other places of the same files, so a list is known by the function it is in
and by the exact form of the statement around it.
"""

from __future__ import annotations

import ast
import io
import re
import textwrap
import tokenize
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from common.program import UserError

if TYPE_CHECKING:
    Shape = list[int]

LINE_WIDTH = 120
"CANN's own."
SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
MARKS = re.compile(
    rb"""#[^\r\n]*|\"{3}(?:[^\\]|\\.)*?\"{3}|'{3}(?:[^\\]|\\.)*?'{3}|"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|\w+|[^\s\\]""",
    re.DOTALL,
)
"Comments, strings, words and anything else that is not blank."
OPENING, CLOSING = (b"(", b"[", b"{"), (b")", b"]", b"}")


@dataclass(frozen=True)
class Place:
    """Where a list stands."""

    function: str
    "A function of the module, not of a class or of another function."
    form: str
    "The assignment, or the whole condition of an if or elif, with ... in the place of the list."


PLACES = {
    "dynamic/transpose.py": Place("_by_dynamic_static_union_version", "white_list_shape = ..."),
    "four_2_five.py": Place(
        "four_2_five", 'src_format.upper() == "NCHW" and shape_input in ... and dtype_input == "float16"'
    ),
    "five_2_four.py": Place("five_2_four", 'dst_format.lower() == "nchw" and dst_shape in ...'),
}
"The files, named from CANN's folder impl."
TRANSPOSE, FOUR_2_FIVE, FIVE_2_FOUR = PLACES


@dataclass(frozen=True)
class Addition:
    """A file's new contents."""

    data: bytes
    "The whole file."
    added: list[Shape]
    "The shapes that its list lacked, in their order."


def add_shapes(data: bytes, name: str, shapes: list[Shape]) -> Addition | None:
    """Add to the list of the file ``name`` what it lacks; None if the file has no such list.

    Raises UserError if the file is not Python, has the place twice or cannot be edited safely.
    """
    source, encoding = _as_utf8(data)
    found = _find_list(source, name)
    if found is None:
        return None
    present = [_value(element) for element in found.elts]
    lacking = [shape for i, shape in enumerate(shapes) if shape not in present and shape not in shapes[:i]]
    if not lacking:
        return Addition(data, [])
    edited = _append(source, found, lacking)
    _verify(source, found, edited, _find_list(edited, name), lacking)
    return Addition(edited.decode().encode(encoding), lacking)


def _as_utf8(data: bytes) -> tuple[bytes, str]:
    """The source in UTF-8, in whose bytes the syntax tree counts columns, and its own encoding."""
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
        text = data.decode(encoding)
        if text.encode(encoding) != data:
            raise UserError(f"cannot be edited safely: it is not the one form of its text in {encoding}")
        return text.encode(), encoding
    except (SyntaxError, ValueError, LookupError) as error:
        raise UserError(f"is not Python: {error}") from error


def _find_list(source: bytes, name: str) -> ast.List | None:
    """The node of the list in the file ``name``."""
    place = PLACES[name]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old operators' invalid escape sequences
            # Text, not bytes: the encoding that the file declares is no longer that of the source.
            tree = ast.parse(source.decode(), name)
    except (SyntaxError, ValueError, RecursionError) as error:
        raise UserError(f"is not Python: {error}") from error
    form = ast.parse(place.form).body[0]
    functions = [n for n in _own_nodes(tree) if isinstance(n, ast.FunctionDef) and n.name == place.function]
    if len(functions) > 1:
        raise UserError(f"defines the function {place.function} {len(functions)} times")
    found = [hit for function in functions for node in _own_nodes(function) for hit in _lists_in(node, form)]
    if len(found) > 1:
        lines = ", ".join(str(line) for line in sorted(hit.lineno for hit in found))
        raise UserError(f"has its list {len(found)} times in the function {place.function}: lines {lines}")
    return found[0] if found else None


def _own_nodes(scope: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a module or function, without those inside of functions and classes in it."""
    nodes = list(ast.iter_child_nodes(scope))
    while nodes:
        node = nodes.pop()
        yield node
        if not isinstance(node, SCOPES):
            nodes.extend(ast.iter_child_nodes(node))


def _lists_in(node: ast.AST, form: ast.AST) -> list[ast.List]:
    """The list in the place of the ... if the node is an assignment, or an if, of this form."""
    if isinstance(form, ast.Expr):
        if not isinstance(node, ast.If):
            return []
        node, form = node.test, form.value
    if type(node) is not type(form):
        return []
    dump, hole = ast.dump(node), ast.dump(ast.parse("...", mode="eval").body)
    lists = (inner for inner in ast.walk(node) if isinstance(inner, ast.List))
    return [inner for inner in lists if dump.replace(ast.dump(inner), hole) == ast.dump(form)]


def _value(element: ast.expr) -> Any:
    """The element's value; None if it is not a literal."""
    try:
        return ast.literal_eval(element)
    except (ValueError, TypeError):  # TypeError: {[1]: 2} is written with literals alone and has no value
        return None


def _append(source: bytes, found: ast.List, shapes: list[Shape]) -> bytes:
    """Write the shapes behind the last element, in rows that begin where its row begins."""
    begin, extent = _extent(source, found)
    lines = source.splitlines(keepends=True)
    end_of_line = re.search(rb"\r\n|\r|\n", source[extent.last :])
    newline = end_of_line[0] if end_of_line else b"\n"
    if not found.elts:
        rows = _rows(shapes, lines[found.lineno - 1][: found.col_offset + 1], newline).lstrip()
        return source[: begin + 1] + rows + source[begin + 1 :]
    first = next(element for element in found.elts if element.lineno == found.elts[-1].lineno)
    rows = _rows(shapes, lines[first.lineno - 1][: first.col_offset], newline)

    comma_at = extent.comma or extent.last
    # A comment stays on the line of the element that it is about.
    comment = re.match(rb"[ \t\f]*#[^\r\n]*", source[comma_at : extent.end - 1])
    rows_at = comma_at + (comment.end() if comment else 0)
    before, after = (b"", b",") if extent.comma else (b",", b"")
    return source[:comma_at] + before + source[comma_at:rows_at] + rows + after + source[rows_at:]


def _rows(shapes: list[Shape], margin: bytes, newline: bytes) -> bytes:
    """Rows of shapes, each on a new line, indented by the width of ``margin`` with its tabs kept."""
    indent = re.sub(r"[^\t]", " ", margin.decode())
    # No row breaks inside of a shape.
    words = ", ".join(str(shape).replace(" ", "\xa0") for shape in shapes)
    rows = textwrap.wrap(words, LINE_WIDTH, initial_indent=indent, subsequent_indent=indent, break_long_words=False)
    return b"".join(newline + row.replace("\xa0", " ").encode() for row in rows)


@dataclass(frozen=True)
class Extent:
    """Where the parts of a list end in the source."""

    last: int
    "Behind the last element and brackets around it; behind the opening bracket of a list without elements."
    comma: int | None
    "Behind the comma that follows the last element, if one does."
    end: int
    "Behind the closing bracket."


def _extent(source: bytes, found: ast.List) -> tuple[int, Extent]:
    """Where the list begins, and its extent: Python 3.7 says of a node only where it begins."""
    # Of bytes, splitlines knows the three line ends of Python's grammar; of text it knows more.
    begin = sum(map(len, source.splitlines(keepends=True)[: found.lineno - 1])) + found.col_offset
    last, comma, depth = begin + 1, None, 0
    for match in MARKS.finditer(source, begin):
        mark = match[0]
        depth += (mark in OPENING) - (mark in CLOSING)
        if depth == 0:
            return begin, Extent(last, comma, match.end())
        if mark == b",":  # inside of an element, too, whose end takes it back
            comma = match.end()
        elif match.start() > begin and not mark.startswith(b"#"):
            last, comma = match.end(), None
    raise UserError(f"cannot be edited safely: its list in line {found.lineno} has no end")


def _verify(source: bytes, old: ast.List, edited: bytes, new: ast.List | None, shapes: list[Shape]) -> None:
    """Make sure that the list has gained the shapes and that nothing else differs."""
    expected = [ast.dump(element) for element in old.elts]
    expected += [ast.dump(ast.parse(str(shape), mode="eval").body) for shape in shapes]
    same = False
    if new is not None and [ast.dump(element) for element in new.elts] == expected:
        (old_begin, old_extent), (new_begin, new_extent) = _extent(source, old), _extent(edited, new)
        same = source[:old_begin] == edited[:new_begin] and source[old_extent.end :] == edited[new_extent.end :]
    if not same:
        raise UserError(f"cannot be edited safely: its list in line {old.lineno} is written in an unknown way")
