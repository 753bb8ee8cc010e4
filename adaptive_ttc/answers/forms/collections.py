r"""Sets, tuples, intervals, unions, vectors, matrices, and lists without brackets."""

from __future__ import annotations

import re
from collections.abc import Sequence

from adaptive_ttc.answers.forms import scalar
from adaptive_ttc.answers.forms.expression import whole
from adaptive_ttc.answers.forms.form import Form, Reader, Reading, listed, set_of
from adaptive_ttc.answers.forms.polynomial import TooLargeError
from adaptive_ttc.answers.forms.regions import all_but, all_of, reals, union_of
from adaptive_ttc.answers.forms.relations import assignment
from adaptive_ttc.answers.forms.scalar import Scalar
from adaptive_ttc.answers.forms.splitting import entries, split, within
from adaptive_ttc.answers.forms.tokens import UnreadError
from adaptive_ttc.answers.forms.words import words

_MATRIX = re.compile(r"\\begin ?\{([pbBvV]?matrix|smallmatrix|array)\}(?:\{[clr| ]*\})?(.*)\\end ?\{\1\}")
_ARRAY = re.compile(r"^[(\[](\\begin ?\{array\}.*\\end ?\{array\})[)\]]$")
_ROWS = re.compile(r" ?\\\\(?:\[[0-9.]+ ?[a-z]+\])? ?")
_CUP = re.compile(r"\\cup|\\text ?\{ ?U ?\}|U")
_WITHOUT = re.compile(r"\\setminus")
_LETTERS = re.compile(r"\\text ?\{ ?([A-Z](?:(?: ?, ?(?:and |or )?| and | or )[A-Z])+) ?\}")
_TOLD = re.compile(r"\\text ?\{([A-Za-z ,;'-]+)\}")
_SUCH_THAT = re.compile(
    r"(?P<name>[A-Za-z]) ?(?:\\in ?(?:\\mathbb ?\{R\}|R))? ?(?::|\||\\mid(?![A-Za-z])) ?(?P<condition>.+)"
)
_TRANSPOSED = re.compile(r"(.+)\^\{?(?:T|\\top|\\intercal|\\text\{T\})\}?")
_PLUS_MINUS = re.compile(r"\\(?:pm|mp)(?![A-Za-z])")
_NUMBER_SETS = {rf"\mathbb{{{letter}}}": letter for letter in "ZQNC"}
_ALL_EXCEPT = re.compile(r"(?i:\\text ?\{ ?all real(?: number)?s ?(?:except|but)(?: for| at)? ?\}) ?([^{}].*)")
_EVERYTHING = {r"\mathbb{R}", r"\text{all real numbers}", r"\text{all reals}", r"\text{All real numbers}"}


def number_set(text: str, read: Reader) -> Reading | None:
    r"""``\emptyset``, ``\mathbb{R}`` and the like."""
    if text in (r"\emptyset", r"\{\}", r"\text{empty set}", r"\text{the empty set}", r"\text{Empty set}"):
        return Reading(Form("set", ordered=False))
    if text in _EVERYTHING:
        return Reading(reals())
    if match := _ALL_EXCEPT.fullmatch(text):
        holes = read(match[1])
        region = None if holes is None else all_but(_values(holes))
        return None if region is None else Reading(region)
    if text in _NUMBER_SETS:
        return Reading(Form("numbers", tag=_NUMBER_SETS[text]))
    return None


def two_valued(text: str, read: Reader) -> Reading | None:
    r"""``1\pm\sqrt{2}``: both values."""
    if not _PLUS_MINUS.search(text):
        return None
    try:
        upper, lower = whole(text), whole(text, upper=False)
    except UnreadError:
        return None
    return Reading(set_of((upper, lower)))


def enumerated(text: str, read: Reader) -> Reading | None:
    """Entries without brackets, whose order does not count; equations and inequalities are joined."""
    letters = _LETTERS.fullmatch(text)
    told = _TOLD.fullmatch(text) if letters is None else letters
    found = entries(text if told is None else told[1])
    if len(found.texts) < 2 or "" in found.texts:
        return None
    joined = _assigned(found.texts, read)
    if joined is not None:
        return joined
    forms: list[Form | Scalar] = []
    readings: list[Reading] = []
    for part in found.texts:
        reading = read(part if told is None or told is letters else f"\\text{{{part}}}")
        if reading is None:
            return None
        readings.append(reading)
        forms += _entries_of(part, reading.form)
    regions = _regions(forms, "or" in found.signs)
    if regions is not None:
        return regions
    if all(isinstance(form, Form) and form.kind == "words" for form in forms):
        said = words(text, read)
        return Reading(listed(forms), () if said is None else (said.form,))
    bare = tuple(reading.also[0] if reading.also else reading.form for reading in readings)
    return Reading(listed(forms), (listed(bare),) if any(reading.also for reading in readings) else ())


def _entries_of(text: str, form: Form | Scalar) -> tuple[Form | Scalar, ...]:
    """Both values of a plus-minus, else the form alone."""
    both = isinstance(form, Form) and form.kind == "set" and _PLUS_MINUS.search(text)
    return form.parts if isinstance(form, Form) and both else (form,)


def _assigned(texts: Sequence[str], read: Reader) -> Reading | None:
    """Values of one variable (``x=1`` or ``x=2``, ``x=1,2``), or of one each (``x=1, y=2``)."""
    found = [assignment(part, read) for part in texts]
    if found[0] is None:
        return None
    names = [one[0] if one is not None else found[0][0] for one in found]
    values: list[Form | Scalar] = []
    for part, one in zip(texts, found, strict=True):
        value = one[1] if one is not None else read(part)
        if value is None:
            return None
        values += value.form.parts if isinstance(value.form, Form) and value.form.kind == "set" else (value.form,)
    if len(set(names)) == 1:
        together: Form = set_of(values)
        return Reading(Form("member", (together,), names[0]), (together,))
    if None in found or len(set(names)) < len(names) or len(values) != len(names):
        return None
    order = sorted(range(len(names)), key=names.__getitem__)
    point = Form("tuple", tuple(values[place] for place in order))
    also = (point, listed(values)) if len({re.split("[_0-9]", name)[0] for name in names}) == 1 else (point,)
    return Reading(Form("member", (point,), f"({','.join(names[place] for place in order)})"), also)


def _regions(forms: Sequence[Form | Scalar], either: bool) -> Reading | None:
    """Inequalities of one variable: where one of them holds, or all where that is anywhere."""
    members = [form for form in forms if isinstance(form, Form) and form.kind == "member"]
    if len(members) < len(forms) or len({form.tag for form in members}) > 1:
        return None
    pieces = [form.parts[0] for form in members]
    region = None if either else all_of(pieces)
    region = union_of(pieces) if region is None else region
    return None if region is None else Reading(Form("member", (region,), members[0].tag), (region,))


def union(text: str, read: Reader) -> Reading | None:
    r"""``(-\infty,1)\cup[2,\infty)``, ``\mathbb{R}\setminus\{1\}``."""
    whole_and_holes = split(text, _WITHOUT).texts
    if len(whole_and_holes) == 2 and whole_and_holes[0] in _EVERYTHING:
        holes = read(whole_and_holes[1])
        region = None if holes is None else all_but(holes.form)
        return None if region is None else Reading(region)
    texts = split(text, _CUP).texts
    if len(texts) < 2:
        return None
    pieces = []
    for part in texts:
        reading = read(part)
        if reading is None or not isinstance(reading.form, Form):
            return None
        pieces.append(reading.form)
    region = union_of(pieces)
    return None if region is None else Reading(region)


def _values(reading: Reading) -> Form | Scalar:
    """What an equation such as ``x=3`` says of its variable; else what a reading says."""
    named = isinstance(reading.form, Form) and reading.form.kind in ("equation", "member") and reading.also
    return reading.also[0] if named else reading.form


def bracketed(text: str, read: Reader) -> Reading | None:
    r"""``\{1,2\}``, ``(1,2)``, ``[1,2)``, ``\langle 1,2\rangle``; an open interval and a pair are written alike."""
    inside = within(text, r"\{", r"\}")
    if inside is not None and (match := _SUCH_THAT.fullmatch(inside)):
        return _described(match["name"], read(match["condition"]))
    if inside is not None:
        parts = _parts(inside, read)
        if parts is None:
            return None
        alone = len(parts) == 1 and (isinstance(parts[0], Scalar) or parts[0].kind == "tuple")
        return Reading(set_of(parts), parts if alone else ())
    inside = within(text, r"\langle", r"\rangle")
    if inside is None and text.startswith("<") and text.endswith(">") and "," in text:
        inside = text[1:-1]
    if inside is not None:
        parts = _parts(inside, read)
        return None if parts is None else _vector(parts)
    if match := re.fullmatch(r"\](.+)([\[\]])|\[(.+)\[", text):  # French intervals
        opening, closing = ("(" if text[0] == "]" else "["), ("]" if text[-1] == "]" else ")")
        text = opening + (match[1] or match[3]) + closing
    if not (text[:1] in "([" and text[-1:] in ")]") or within(text, text[:1], text[-1:]) is None:
        return None
    parts = _parts(text[1:-1].strip(), read)
    if parts is None or len(parts) < 2:
        return None
    if text[0] + text[-1] == "()":
        return Reading(Form("tuple", parts))
    if len(parts) == 2 and not _of_rows(parts):
        return Reading(Form("interval", parts, (text[0] == "[", text[-1] == "]")))
    return Reading(Form("row", parts), _of_rows(parts)) if text[0] + text[-1] == "[]" else None


def _of_rows(parts: Sequence[Form | Scalar]) -> tuple[Form, ...]:
    """The matrix that rows in brackets may be: ``[[1,2],[3,4]]``."""
    rows = [part for part in parts if isinstance(part, Form) and (part.kind == "row" or part.tag == (True, True))]
    if not rows or len(rows) < len(parts) or len({len(row.parts) for row in rows}) > 1:
        return ()
    return (Form("matrix", tuple(cell for row in rows for cell in row.parts), (len(rows), len(rows[0].parts))),)


def _described(name: str, condition: Reading | None) -> Reading | None:
    r"""A set such as ``\{x : x > 2\}``."""
    form = None if condition is None else condition.form
    return Reading(form.parts[0]) if isinstance(form, Form) and form.kind == "member" and form.tag == name else None


def transposed(text: str, read: Reader) -> Reading | None:
    r"""``(1,2)^T``, a column."""
    match = _TRANSPOSED.fullmatch(text)
    said = None if match is None else read(match[1])
    if said is None or not isinstance(said.form, Form):
        return None
    if said.form.kind == "tuple" or (said.form.kind == "matrix" and said.form.tag == (1, len(said.form.parts))):
        return _vector(said.form.parts)
    return None


def matrix(text: str, read: Reader) -> Reading | None:
    r"""Matrices, whatever their brackets, and determinants, which are values. A row or column may stand for a tuple."""
    match = _MATRIX.fullmatch(_ARRAY.sub(r"\1", text))
    if match is None or match[1] == "Vmatrix":
        return None
    texts = [[cell.strip() for cell in row.split("&")] for row in _ROWS.split(match[2].strip()) if row.strip()]
    if not texts or len({len(row) for row in texts}) > 1:
        return None
    try:
        cells = [whole(cell) for row in texts for cell in row]
    except UnreadError:
        return None
    shape = len(texts), len(texts[0])
    if match[1] == "vmatrix":
        return Reading(_determinant([cells[i : i + shape[1]] for i in range(0, len(cells), shape[1])]))
    return _vector(cells) if shape[1] == 1 else Reading(Form("matrix", tuple(cells), shape), _as_tuple(cells, shape))


def _determinant(rows: list[list[Scalar]]) -> Scalar:
    """By the first row. TooLargeError: of more than four rows, or no square."""
    if len(rows) > 4 or len(rows[0]) != len(rows):
        raise TooLargeError
    if len(rows) == 1:
        return rows[0][0]
    total = scalar.of_number(0)
    for column, cell in enumerate(rows[0]):
        minor = _determinant([row[:column] + row[column + 1 :] for row in rows[1:]])
        term = scalar.times(cell, minor)
        total = scalar.plus(total, scalar.minus(term) if column % 2 else term)
    return total


def _vector(parts: Sequence[Form | Scalar]) -> Reading:
    shape = len(parts), 1
    return Reading(Form("matrix", tuple(parts), shape), _as_tuple(parts, shape))


def _as_tuple(parts: Sequence[Form | Scalar], shape: tuple[int, int]) -> tuple[Form, ...]:
    return (Form("tuple", tuple(parts)),) if 1 in shape and len(parts) > 1 else ()


def _parts(inside: str, read: Reader) -> tuple[Form | Scalar, ...] | None:
    """Forms of the entries within brackets; none within empty ones."""
    if not inside:
        return ()
    texts = split(inside, re.compile("[,;]")).texts
    found: list[Form | Scalar] = []
    for part in texts:
        reading = read(part) if part else None
        if reading is None:
            return None
        found += _entries_of(part, reading.form)
    return tuple(found)
