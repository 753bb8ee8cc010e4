"""Runs one batch and halves it where memory runs out; it knows no model and no event loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from adaptive_ttc.prm.failures import is_out_of_memory

T = TypeVar("T")
R = TypeVar("R")


@dataclass(slots=True)
class Outcome(Generic[R]):
    """A result or an error; the error is raised in the caller's task, so that no future keeps one unread."""

    result: R | None = None
    error: BaseException | None = None

    def unwrap(self) -> R:
        """Return the result, or raise the error."""
        if self.error is not None:
            raise self.error
        return self.result  # type: ignore[return-value]


def run_halving(run: Callable[[Sequence[T]], Sequence[R]], items: Sequence[T]) -> tuple[list[Outcome[R]], int]:
    """Run a batch; where memory runs out, run its halves, down to single items.

    Returns:
        One outcome an item, in order, and how many times a batch was halved.
    """
    try:
        results = run(items)
        if len(results) != len(items):
            raise RuntimeError(f"the batch function returned {len(results)} results for {len(items)} items")
        return [Outcome(result=result) for result in results], 0
    except BaseException as error:
        if not is_out_of_memory(error):
            return [Outcome(error=error) for _ in items], 0
        if len(items) == 1:
            # Its traceback would keep the frames, and with them the tensors, of the failed attempt alive.
            return [Outcome(error=error.with_traceback(None))], 0
    # Outside the handler, for the same reason: the failed attempt is freed before its halves run.
    half = len(items) // 2
    first, first_splits = run_halving(run, items[:half])
    second, second_splits = run_halving(run, items[half:])
    return first + second, 1 + first_splits + second_splits
