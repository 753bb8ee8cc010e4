"""What an HTTP failure means for its request: tried again elsewhere or later, in another form, or never.

``UnavailableError`` is tried again, at another replica or after a rest, as nothing was generated; ``FailedError`` once,
as the request itself may be at fault; ``MisfitError`` in another form, if there is one. ``EngineError`` is for the run
to decide (`driver/health.py`), as what was generated has to be paid for. The loop is ``OpenAIPolicy.sample``'s.
"""

from __future__ import annotations

import math
from email.utils import parsedate_to_datetime

from adaptive_ttc.errors import EngineError
from adaptive_ttc.policies.openai.fleet import FailedError, Replica, UnavailableError

# What servers answer that have no room now (529: Anthropic and gateways to it).
NOT_NOW = frozenset({429, 503, 529})
# What TGI answers when its generation fails.
_GENERATION_FAILED = frozenset({424})
# What servers answer to a request whose form they do not take.
_MISFIT = frozenset({400, 404, 405, 413, 415, 422, 501})


class MisfitError(Exception):
    """A server does not take requests of this form; it generated nothing."""


def refusal(replica: Replica, path: str, status: int, said: str, rest: float | None = None) -> Exception:
    """The error for a status other than 200, of a whole answer or in place of a stream's first event."""
    if status in NOT_NOW:
        return UnavailableError(f"says {status}: {said}", retry_after=rest)
    if status in _MISFIT:
        return MisfitError(f"answers {path} with {status}: {said}")
    if status == 500:
        return FailedError(f"{replica.url} failed with {status}: {said}")
    if status > 500 or status in _GENERATION_FAILED:  # a server behind a router may have generated before it failed
        return EngineError(f"{replica.url} failed with {status}: {said}", retryable=True)
    refused = f"{replica.url} refuses with {status}: {said}; check the URL and the API key"
    return EngineError(refused, generated=False)


def seconds_of_rest(retry_after: str | None, date: str | None) -> float | None:
    """Seconds of rest that a server asks for, up to a minute: it names them, or a date, which its own clock tells."""
    try:
        rest = float(retry_after or "")
    except ValueError:
        try:
            rest = (parsedate_to_datetime(retry_after or "") - parsedate_to_datetime(date or "")).total_seconds()
        except (ValueError, TypeError):
            return None
    return min(max(rest, 0.0), 60.0) if math.isfinite(rest) else None
