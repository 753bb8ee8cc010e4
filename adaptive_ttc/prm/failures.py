"""Tells what went wrong in a model and says it in this library's errors; it knows no model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from adaptive_ttc.errors import AdaptiveTTCError, EngineError


def is_out_of_memory(error: BaseException) -> bool:
    """Tell a lack of memory from other failures, whatever library raised it."""
    if isinstance(error, MemoryError) or any(cls.__name__ == "OutOfMemoryError" for cls in type(error).__mro__):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(
        phrase in text for phrase in ("out of memory", "not enough memory", "can't allocate memory")
    )


@contextmanager
def engine_errors(name: str) -> Iterator[None]:
    """Raise :class:`EngineError` for any failure inside that is not this library's own error already."""
    try:
        yield
    except AdaptiveTTCError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            message = f"{name} ran out of memory on a single solution; lower max_tokens, or use a smaller dtype"
        else:
            message = f"{name} failed: {type(error).__name__}: {error}"
        raise EngineError(message, retryable=is_out_of_memory(error)) from error
