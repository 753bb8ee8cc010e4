"""Answer spaces by name, with their settings behind a colon."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache

from adaptive_ttc.answers.spaces.base import AnswerSpace
from adaptive_ttc.answers.spaces.choice import ChoiceSpace
from adaptive_ttc.answers.spaces.json_value import JsonSpace
from adaptive_ttc.answers.spaces.mathematics import MATH, MathSpace
from adaptive_ttc.answers.spaces.number import NumberSpace
from adaptive_ttc.answers.spaces.patterns import RegexSpace, TextSpace
from adaptive_ttc.answers.spaces.python_code import CodeSpace
from adaptive_ttc.errors import ConfigError

_SPACES: Mapping[str, Callable[[str], AnswerSpace]] = {
    "math": lambda rest: MathSpace(tuple(part.strip() for part in rest.split(","))),
    "regex": RegexSpace,
    "json": JsonSpace,
    "code": CodeSpace.of,
}
_WITHOUT_SETTINGS: Mapping[str, Callable[[], AnswerSpace]] = {
    "math": lambda: MATH,
    "number": NumberSpace,
    "choice": ChoiceSpace,
    "json": JsonSpace,
    "text": TextSpace,
    "code": CodeSpace,
}

SPELLINGS = (
    "math",
    "math:the_answer_is,hashes,last_number",
    "number",
    "choice",
    "regex:PATTERN",
    "json:a.b[0]",
    "text",
    "code",
)
"""The spaces as they are spelled."""


@lru_cache(maxsize=256)
def parse_space(text: str) -> AnswerSpace:
    """The space that a text such as ``number`` or ``json:result.value`` names. ConfigError: there is none."""
    name, colon, rest = text.partition(":")
    if not rest and name.strip() in _WITHOUT_SETTINGS:
        return _WITHOUT_SETTINGS[name.strip()]()
    if name.strip() not in _SPACES:
        known = "takes no settings" if name.strip() in _WITHOUT_SETTINGS else "is no answer space"
        raise ConfigError(f"answers={text!r} {known}; known are {', '.join(SPELLINGS)}")
    if not colon:
        raise ConfigError(f"answers={text!r} needs settings: {', '.join(SPELLINGS)}")
    return _SPACES[name.strip()](rest)


def space_of(answers: str | AnswerSpace | None, default: AnswerSpace = MATH) -> AnswerSpace:
    """A space from its name or itself; None is the default. ConfigError: it is none."""
    if answers is None:
        return default
    if isinstance(answers, AnswerSpace):
        if not answers.name:
            raise ConfigError(f"{type(answers).__name__} has no name: set one, by which checkpoints know it again")
        return answers
    if not isinstance(answers, str):
        raise ConfigError(f"answers is a name such as {', '.join(SPELLINGS)}, or an AnswerSpace; got {answers!r:.80}")
    return parse_space(answers)
