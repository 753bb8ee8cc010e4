"""Units and starts as JSON texts, and back, bit for bit; it knows no file and no engine.

A number that is not known (nan) is ``null``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any, TypeVar

from adaptive_ttc.calibration.units import Start, Work
from adaptive_ttc.errors import CalibrationError
from adaptive_ttc.estimate.features import NAN, Attempt, FirstStep
from adaptive_ttc.types import Prefix

T = TypeVar("T")


def attempts_to_text(attempts: tuple[Attempt, ...]) -> str:
    """A list of ``[answer, scores, tokens, logprob, finish]``."""
    return _dump([[one.answer, one.scores, one.tokens, _known(one.logprob), one.finish] for one in attempts])


def attempts_of(text: str) -> list[Attempt]:
    """What :func:`attempts_to_text` wrote."""
    return _read(
        text,
        lambda rows: [
            Attempt(answer, tuple(scores), tokens, NAN if logprob is None else logprob, finish)
            for answer, scores, tokens, logprob, finish in rows
        ],
    )


def steps_to_text(steps: tuple[FirstStep, ...]) -> str:
    """A list of ``[score, tokens, logprob]``."""
    return _dump([[_known(one.score), one.tokens, _known(one.logprob)] for one in steps])


def steps_of(text: str) -> tuple[FirstStep, ...]:
    """What :func:`steps_to_text` wrote."""
    return _read(
        text,
        lambda rows: tuple(
            FirstStep(NAN if score is None else score, tokens, NAN if logprob is None else logprob)
            for score, tokens, logprob in rows
        ),
    )


def start_to_text(start: Start) -> str:
    """A sample's first step and the whole of it, with their tokens, texts and costs."""
    parts = ((start.first, start.first_work), (start.whole, start.whole_work))
    return _dump([[*_prefix_row(prefix), *_work_row(work)] for prefix, work in parts])


def start_of(text: str) -> Start:
    """What :func:`start_to_text` wrote."""

    def parsed(rows: list[list[Any]]) -> Start:
        (first, first_work), (whole, whole_work) = ((_prefix_of(row[:6]), Work(*row[6:])) for row in rows)
        return Start(first, first_work, whole, whole_work)

    return _read(text, parsed)


def _prefix_row(prefix: Prefix) -> list[Any]:
    return [prefix.token_ids, prefix.text, prefix.scores, prefix.logprob, prefix.finish, prefix.path]


def _prefix_of(row: list[Any]) -> Prefix:
    token_ids, text, scores, logprob, finish, path = row
    return Prefix(tuple(token_ids), text, tuple(scores), logprob, finish, tuple(path))


def _work_row(work: Work) -> list[Any]:
    return [work.generated, work.prm, work.prompt_tokens, work.flops]


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _dump(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _read(text: str, make: Callable[[Any], T]) -> T:
    try:
        return make(json.loads(text))
    except (ValueError, TypeError) as error:
        raise CalibrationError(
            f"an entry of the store is damaged ({error}): collect into a new file, or restore this one from a copy"
        ) from error
