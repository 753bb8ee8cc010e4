r"""Equations and inequalities: ``x=5``, ``y=2x+3``, ``2+3=5``, ``x\ge 3``, ``-2\le x<7``, ``x\in[-2,7)``."""

from __future__ import annotations

import math
import re
from dataclasses import replace

from adaptive_ttc.answers.forms import scalar
from adaptive_ttc.answers.forms.expression import whole
from adaptive_ttc.answers.forms.form import Form, Reader, Reading, set_of
from adaptive_ttc.answers.forms.polynomial import ONE, Monomial, Polynomial
from adaptive_ttc.answers.forms.regions import all_but, all_of
from adaptive_ttc.answers.forms.scalar import Scalar, of_constant, same
from adaptive_ttc.answers.forms.splitting import Parts, sides
from adaptive_ttc.answers.forms.tokens import UnreadError, is_word

_NAME = re.compile(
    r"(?:\\frac\{d[A-Za-z]\}\{d[A-Za-z]\}|"
    r"(?:\\(?:angle|triangle|overline|vec|hat|bar|mathbf|overrightarrow|measuredangle) ?|m ?(?=\\angle))*"
    r"(?:[A-Za-z]+|\{[A-Za-z]+\}|\\(?!sqrt|frac|infty|pi(?![A-Za-z]))[A-Za-z]+|\\text ?\{[^{}]*\}"
    r"|\\mathcal\{[A-Z]\}|\|[A-Za-z]{1,3}\|)"
    r"(?:_(?:\w|\{[^{}]*\})|'|\^\{?(?:-1|\\circ|\*)\}?)*(?:\([^()=<>]*\))?(?:_(?:\w|\{[^{}]*\}))?)"
)
_NAMES = re.compile(r"[A-Za-z](?: ?: ?[A-Za-z])+|\([A-Za-z](?:_\w)?(?:, ?[A-Za-z](?:_\w)?)+\)")
_STRICT = {"<": -1, ">": 1}
_LOOSE = {r"\le": -1, "<=": -1, r"\ge": 1, ">=": 1}
_APPROXIMATE = (r"\approx", r"\sim", r"\cong")
_BARS = re.compile(r"\|([^|]+)\|")
_INFINITY = re.compile(r"[-+]? ?\\infty")
_OF_AN_ANGLE = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![A-Za-z])(?![ ({]*[0-9.]).*")
_UNEQUAL = (r"\ne", "!=")


def relation(text: str, read: Reader) -> Reading | None:
    """An equation, an inequality, or a statement of where something lies."""
    found = sides(text)
    if len(found.signs) == 1 and not found.texts[0] and found.signs[0] in ("=", *_APPROXIMATE):
        return read(found.texts[1])
    if not found.signs or "" in found.texts:
        return None
    if any(sign in _APPROXIMATE for sign in found.signs):
        return _approximate(text, read)
    if set(found.signs) == {"="}:
        return _equation(text, found.texts, read)
    if found.signs == (r"\in",):
        return _membership(found.texts, read)
    if len(found.signs) == 1 and found.signs[0] in _UNEQUAL:
        return _exclusion(found.texts, read)
    if len(found.signs) <= 2 and all(sign in _STRICT or sign in _LOOSE for sign in found.signs):
        return _of_absolute_value(found, read) or _inequality(*_without_infinity(found))
    return None


def assignment(text: str, read: Reader) -> tuple[str, Reading] | None:
    """The name and the value of ``x=5``; None for anything else."""
    found = sides(text)
    if found.signs != ("=",) or not _is_name(found.texts[0]):
        return None
    value = read(found.texts[1])
    return None if value is None or _mentions(value.form, found.texts[0]) else (_plain(found.texts[0]), value)


def _approximate(text: str, read: Reader) -> Reading | None:
    """What stands before the sign; the decimal behind it may be meant."""
    before, _, behind = re.split(r"(\\(?:approx|sim|cong))", text, maxsplit=1)
    first, second = read(before.strip()), read(behind.strip())
    if first is None or second is None:
        return None
    return Reading(first.form, (*first.also, second.form))


def _equation(text: str, texts: tuple[str, ...], read: Reader) -> Reading | None:
    first, last = texts[0], texts[-1]
    if len(texts) == 2 and _is_name(last) and not _is_name(first):
        first, last = last, first
    between = texts[1:-1] if len(texts) > 2 else ()
    names = _is_name(first) or bool(_NAMES.fullmatch(first))
    value = read(last)
    if value is None:
        return None
    if not all(_consistent(part, value, read) for part in between):
        return _statement(text)
    if names and not _mentions(value.form, first):
        return Reading(_assigned(first, last, value), (value.form, *value.also))
    try:
        left, right = whole(first), whole(last)
    except UnreadError:
        return _statement(text)
    difference = _difference(left, right)
    if difference is None:
        return _statement(text)
    return Reading(Form("equation", (_monic(difference),)), (value.form,) if _asks_for(first, left, right) else ())


def _asks_for(text: str, left: Scalar, right: Scalar) -> bool:
    r"""Whether an equation may say what an expression of several variables is: ``a+b=5``, where a+b is asked for.

    So it may of a function of an angle, ``\tan\theta=2``. An equation of coordinates, such as ``x^2+y^2=4``, is a
    curve, but for a sum or product of them.
    """
    mine, others = _variables(left), _variables(right)
    if _OF_AN_ANGLE.fullmatch(text) and len(left.top) == 1 and not others:
        return True
    if len(mine) < 2 or mine & others:
        return False
    plain = all(exponent == 1 for monomial in left.top for _, exponent in monomial) and set(left.top.values()) == {1}
    return plain or not mine <= {"@x", "@y", "@z"}


def _variables(value: Scalar) -> set[str]:
    return {name for monomial in (*value.top, *value.bottom) for name, _ in monomial if name.startswith("@")}


def _assigned(name: str, value_text: str, value: Reading) -> Form:
    if isinstance(value.form, Scalar):
        try:
            difference = _difference(whole(name), value.form)
        except UnreadError:
            difference = None
        if difference is not None:
            return Form("equation", (_monic(difference),))
    return Form("member", (value.form,), _plain(name))


def _statement(text: str) -> Reading:
    """It answers nothing but itself."""
    return Reading(Form("statement", tag=text.replace(" ", "")))


def _consistent(part: str, value: Reading, read: Reader) -> bool:
    """Whether a side in the middle of a chain may be what its end is."""
    middle = read(part)
    if middle is None or not isinstance(middle.form, Scalar) or not isinstance(value.form, Scalar):
        return middle is not None and middle.form == value.form
    return same(middle.form, value.form) is not False


def _difference(left: Scalar, right: Scalar) -> Scalar | None:
    """The left side less the right one, where variables stand in it."""
    found = scalar.plus(left, scalar.minus(right))
    return found if found.has_variables else None


def _monic(value: Scalar) -> Scalar:
    """The numerator, with 1 as the coefficient of its leading term, as 0 is the same for both."""
    leading = _leading(value.top)
    if leading is None:
        return replace(value, exact=False)
    number = Scalar(leading, ONE, (complex("nan"),) * 2)
    return replace(scalar.over(Scalar(value.top, ONE, value.values, value.exact), number), values=(complex("nan"),) * 2)


def _leading(top: Polynomial) -> Polynomial | None:
    """The coefficient of the greatest product of variables, with the roots in it."""

    def variables(monomial: Monomial) -> Monomial:
        return tuple(factor for factor in monomial if "@" in factor[0])

    greatest = max(map(variables, top))
    return {
        tuple(factor for factor in monomial if "@" not in factor[0]): coefficient
        for monomial, coefficient in top.items()
        if variables(monomial) == greatest
    }


def _membership(texts: tuple[str, ...], read: Reader) -> Reading | None:
    region = read(texts[1])
    if region is None or not isinstance(region.form, Form) or not _is_name(texts[0]):
        return None
    return Reading(Form("member", (region.form,), _plain(texts[0])), (region.form,))


def _exclusion(texts: tuple[str, ...], read: Reader) -> Reading | None:
    bound = None if r"\pm" in texts[1] else _bound(texts[0], texts[1])
    if bound is not None:
        name, holes = bound[0], set_of((bound[1],))
    else:
        several = read(texts[1])  # such as \pm 1
        if several is None or not isinstance(several.form, Form) or not _is_name(texts[0]):
            return None
        name, holes = _plain(texts[0]), several.form
    region = all_but(holes)
    return None if region is None else Reading(Form("member", (region,), name), (region,))


def _of_absolute_value(found: Parts, read: Reader) -> Reading | None:
    """``|x-1|<2``: one or two bounds of what stands between the bars."""
    left, right = found.texts[0], found.texts[1]
    below = (_STRICT.get(found.signs[0]) or _LOOSE[found.signs[0]]) < 0
    if right.startswith("|"):
        left, right, below = right, left, not below
    match = _BARS.fullmatch(left)
    if len(found.signs) > 1 or match is None or "|" in right:
        return None
    sign = ("<" if below else ">") if found.signs[0] in _STRICT else ("\\le" if below else "\\ge")
    against = {"<": ">", ">": "<", "\\le": "\\ge", "\\ge": "\\le"}[sign]
    both = "and" if below else "or"
    bounds = _bound(match[1], right)
    if bounds is None or not bounds[1].values[0].real > -math.inf or whole(right).values[0].real <= 0:
        return None
    return read(f"{match[1]}{sign} {right}\\text{{{both}}}{match[1]}{against} -({right})")


def _without_infinity(found: Parts) -> tuple[tuple[str, ...], tuple[str, ...]]:
    r"""Sides and signs of an inequality without an end that says nothing: ``-\infty<x<3``."""
    texts, signs = found.texts, found.signs
    if len(signs) == 2 and signs[0] in _STRICT and _INFINITY.fullmatch(texts[0]):
        return texts[1:], signs[1:]
    if len(signs) == 2 and signs[1] in _STRICT and _INFINITY.fullmatch(texts[2]):
        return texts[:2], signs[:1]
    return texts, signs


def _inequality(texts: tuple[str, ...], signs: tuple[str, ...]) -> Reading | None:
    regions = []
    for left, sign, right in zip(texts, signs, texts[1:], strict=False):
        bound = _bound(left, right)
        if bound is None:
            return _general(left, sign, right) if len(signs) == 1 else None
        name, at, direction = bound
        below = direction * (_STRICT.get(sign) or _LOOSE[sign]) < 0
        infinity, closed = of_constant("$oo"), sign in _LOOSE
        ends = (scalar.minus(infinity), at) if below else (at, infinity)
        tag = (not below and closed, below and closed)
        regions.append((name, Form("interval", ends, tag) if closed else Form("tuple", ends)))
    if len({name for name, _ in regions}) > 1:
        return None
    region = all_of([region for _, region in regions])
    return None if region is None else Reading(Form("member", (region,), regions[0][0]), (region,))


def _bound(left: str, right: str) -> tuple[str, Scalar, int] | None:
    """The one variable of two sides, where they meet, and 1 where the left one is above beyond, else -1."""
    try:
        difference = _difference(whole(left), whole(right))
    except UnreadError:
        return None
    if difference is None or not difference.exact or difference.bottom != ONE:
        return None
    terms = [monomial for monomial in difference.top if any("@" in name for name, _ in monomial)]
    if len(terms) != 1 or len(terms[0]) != 1 or terms[0][0][1] != 1 or terms[0][0][0][0] != "@":
        return None
    slope = difference.top[terms[0]]
    rest = {monomial: -coefficient / slope for monomial, coefficient in difference.top.items() if monomial != terms[0]}
    unknown = scalar.of_variable(terms[0][0][0][1:])
    worth = difference.values[0] - float(slope) * unknown.values[0]
    value = -worth / float(slope) if rest else 0j
    return terms[0][0][0][1:], Scalar(rest, ONE, (complex(value),) * 2), 1 if slope > 0 else -1


def _general(left: str, sign: str, right: str) -> Reading | None:
    """An inequality that is no bound of one variable, as what is above 0, or not below it."""
    try:
        difference = _difference(whole(left), whole(right))
    except UnreadError:
        return None
    if difference is None or difference.bottom != ONE:
        return None
    if (_STRICT.get(sign) or _LOOSE[sign]) < 0:
        difference = scalar.minus(difference)
    factor = scalar.of_number(abs(max(difference.top.items())[1]))
    return Reading(Form("inequality", (scalar.over(difference, factor),), sign in _LOOSE))


def _is_name(text: str) -> bool:
    return bool(_NAME.fullmatch(text)) or (text.isalpha() and is_word(text))


def _plain(name: str) -> str:
    return re.sub(r"\\text ?|[{} ]", "", name).casefold() if "\\text" in name else re.sub(r"[{} ]", "", name)


def _mentions(form: Form | Scalar, name: str) -> bool:
    """Whether a variable of this name stands in a value."""
    if isinstance(form, Form):
        return any(_mentions(part, name) for part in form.parts)
    atom = f"@{_plain(name)}"
    return any(atom == name_ or atom + "^" in name_ for monomial in (*form.top, *form.bottom) for name_, _ in monomial)
