r"""Multiple choice: one letter from A to J, however it is spelled: ``(B)``, ``**B**``, ``Answer: b``, ``B) 17``."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from adaptive_ttc.answers.spaces import phrases
from adaptive_ttc.answers.spaces.base import GuessingSpace, Span

# What may stand before a letter and after it. Repetitions are bounded, so that no text is searched for long.
_OPEN = r"(?:[\s*_`\"'$(\[{]|\\(?:text(?:bf|rm|it)?|mathrm|mathbf|boxed|fbox)\s?\{|\\[(\[]){0,12}"
_NAMED = r"(?i:(?:the|option|choice|letter|answer)\b[\s:*_]{0,8}){0,3}"
_END = r"(?![A-Za-z0-9'\u2019_^+=<>-])"
_NO_ARTICLE = r"(?!(?<=[AaI])\s+(?!(?:because|since|as|and|or|for|so|which|with|is)\b)[a-z])"
_BEFORE = _OPEN + _NAMED + _OPEN

_CAPITAL = re.compile(rf"{_BEFORE}(?P<letter>[A-J]){_END}{_NO_ARTICLE}")
_SMALL = re.compile(rf"{_BEFORE}(?P<letter>[a-j])(?:(?=\))|[\s*_`\"')\]}}.:,;$]{{0,8}}(?:\n|\Z))")
_ALONE = re.compile(rf"{_BEFORE}(?P<letter>[A-Ja-j])(?=[\s*_`\"')\]}}.:;$]{{0,8}}\Z|\\?[).:}}\]])")
_CORRECT = re.compile(
    r"(?<![A-Za-z0-9])(?P<letter>[A-J])[)*.:]{0,4}\s{1,3}is\s{1,3}(?:the\s{1,3})?(?:correct|right|true|best)\b"
)
_CHOSEN = re.compile(r"(?i)\b(?:correct|right|best)\s(?:option|choice)\b[^.\n:=]{0,20}?(?:\bis\b|:)[ \t:*_]{0,8}")
_CALLED = re.compile(rf"(?i:\b(?:option|choice)\s{{1,3}})[(*]{{0,3}}(?P<letter>[A-J]){_END}{_NO_ARTICLE}")
_MARKED = re.compile(r"(?:\(|\*\*)(?P<letter>[A-J])(?:\)|[.:)]?\*\*)")


@dataclass(frozen=True, repr=False)
class ChoiceSpace(GuessingSpace):
    r"""One letter from A to J.

    Looked for in this order: in the last box; after the last "the answer is" and the like; and in the last line, as
    "B is correct", as the one letter that is called an option, before a bracket or full stop, or as the one letter that
    is marked.

    Args:
        last: whether the last line counts.
    """

    name: str = field(default="choice", init=False)
    form: str = field(default="a letter from A to J", init=False)
    asks: str = field(default='End with a line "Answer: X", where X is the letter of the right choice.', init=False)

    def span(self, text: str) -> Span | None:
        """Where the letter stands."""
        return _boxed(text) or _said(text) or (_in_last_line(text) if self.last else None)

    def canonical(self, answer: str) -> str:
        """The letter alone, as a capital; of ``B) 17`` too. Empty where the text begins with none."""
        match = _CAPITAL.match(answer) or _SMALL.match(answer)
        return "" if match is None else match["letter"].upper()

    def read_gold(self, text: str) -> str:
        """The letter, alone or before a bracket, full stop or colon. ValueError: it is another text."""
        match = _ALONE.match(text.strip())
        if match is None:
            raise ValueError(f"{text!r:.80} is no letter from A to J")
        return match["letter"].upper()


def _boxed(text: str) -> Span | None:
    span = phrases.boxed(text)
    match = (_CAPITAL.match(text, *span) or _SMALL.match(text, *span)) if span else None
    return match.span("letter") if match else None


def _said(text: str) -> Span | None:
    chosen = (match.end() for match in reversed(list(_CHOSEN.finditer(text))))
    for start in (*phrases.said(text), *chosen):
        if match := _CAPITAL.match(text, start) or _SMALL.match(text, start):
            return match.span("letter")
    return None


def _in_last_line(text: str) -> Span | None:
    kept = phrases.last_line(text)
    if kept is None:
        return None
    end = text.find("\n", kept[1])
    line = text.rfind("\n", 0, kept[0]) + 1, len(text) if end < 0 else end  # with its marks
    correct = [match.span("letter") for match in _CORRECT.finditer(text, *line)]
    if correct:
        return correct[-1]
    called = [match.span("letter") for match in _CALLED.finditer(text, *line)]
    begins = [match.span("letter")] if (match := _ALONE.match(text, *line)) else []
    marked = [match.span("letter") for match in _MARKED.finditer(text, *line)]
    return next((spans[-1] for spans in (called, begins, marked) if _is_one(spans, text)), None)


def _is_one(spans: list[Span], text: str) -> bool:
    """Whether they are all of one letter."""
    return len({text[slice(*span)] for span in spans}) == 1
