"""An OpenAI-compatible server whose completions are solved within a token budget; needs the extra ``serve``.

::

    adaptive-ttc serve --policy MODEL --prm MODEL --default-budget 4000

``service`` answers requests, ``asked`` reads them, ``reply`` writes what comes of them, ``accounts`` keeps the budgets,
``live`` tells what is at work, which ``page`` shows, ``clients`` notices those that leave, and ``description``
is the OpenAPI document.
"""

from __future__ import annotations

from adaptive_ttc.serve.accounts import Key, read_keys
from adaptive_ttc.serve.config import ServeConfig
from adaptive_ttc.serve.service import Service

__all__ = ["Key", "ServeConfig", "Service", "read_keys"]
