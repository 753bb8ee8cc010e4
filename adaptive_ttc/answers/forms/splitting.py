r"""Parts of a text that signs outside of all brackets part: entries of a list, sides of an equation."""

from __future__ import annotations

import re
from dataclasses import dataclass

_BRACKETS = {
    "(": 1, "[": 1, "{": 1, r"\{": 1, r"\langle": 1, r"\lfloor": 1, r"\lceil": 1,
    ")": -1, "]": -1, "}": -1, r"\}": -1, r"\rangle": -1, r"\rfloor": -1, r"\rceil": -1,
}  # fmt: skip
_TOKEN = re.compile(r"\\text ?\{[^{}]*\}|\\begin ?\{[^{}]*\}|\\end ?\{[^{}]*\}|\\[A-Za-z]+|\\.|<=|>=|!=|[A-Za-z]+|.")
_SEPARATOR = re.compile(r"\\text ?\{ ?,? ?(and|or) ?\}|(and|or)|[,;]")
_RELATION = re.compile(r"\\(?:le|ge|ne|in|notin|approx|equiv|sim|to|cong|subset|subseteq)|<=|>=|!=|[<>=]")


@dataclass(frozen=True, slots=True)
class Parts:
    """Texts, and the signs between them."""

    texts: tuple[str, ...]
    signs: tuple[str, ...]


def split(text: str, separator: re.Pattern[str]) -> Parts:
    """What signs that match part; a text without one is its only part."""
    if not separator.search(text):
        return Parts((text,), ())
    texts, signs, depth, begun = [], [], 0, 0
    for match in _TOKEN.finditer(text):
        token = match[0]
        depth += _BRACKETS.get(token, 0)
        depth += token.startswith(r"\begin") - token.startswith(r"\end")
        if depth == 0 and separator.fullmatch(token):
            texts.append(text[begun : match.start()].strip())
            signs.append(token)
            begun = match.end()
    texts.append(text[begun:].strip())
    return Parts(tuple(texts), tuple(signs))


def entries(text: str) -> Parts:
    """Entries that commas, semicolons, "and" and "or" part; an empty one behind a comma, as in ", and", is left out."""
    found = split(text, _SEPARATOR)
    kept = [place for place, part in enumerate(found.texts) if part or place in (0, len(found.texts) - 1)]
    signs = ["or" if "or" in sign else "and" if "and" in sign else "," for sign in found.signs]
    return Parts(tuple(found.texts[place] for place in kept), tuple(signs[place - 1] for place in kept[1:]))


def sides(text: str) -> Parts:
    """Sides of equations and inequalities."""
    return split(text, _RELATION)


def within(text: str, opening: str, closing: str) -> str | None:
    """What one pair of brackets around all of a text holds; None where there is no such pair."""
    if not (text.startswith(opening) and text.endswith(closing)) or len(text) < len(opening) + len(closing):
        return None
    depth = 0
    for match in _TOKEN.finditer(text):
        depth += _BRACKETS.get(match[0], 0)
        if depth == 0 and match.end() < len(text):
            return None
    return text[len(opening) : len(text) - len(closing)].strip() if depth == 0 else None
