"""What was decided about answers, remembered within a number of entries and of bytes; it holds nothing undecided."""

from __future__ import annotations

import sys
import threading
from collections import OrderedDict

Question = str | tuple[str, str]

_ENTRY = 200  # bytes of an entry apart from its texts, about


class Outcomes:
    """The outcomes of the most recently used questions; thread-safe."""

    def __init__(self, entries: int, size: int) -> None:
        self._entries = entries
        self._size = size  # bytes
        self._held: OrderedDict[Question, bool] = OrderedDict()
        self._mutex = threading.Lock()
        self.bytes = 0  # held now, about

    def get(self, question: Question) -> bool | None:
        """The outcome, or None if it is not remembered."""
        with self._mutex:
            outcome = self._held.get(question)
            if outcome is not None:
                self._held.move_to_end(question)
            return outcome

    def put(self, question: Question, outcome: bool) -> None:
        """Remember an outcome, and forget the least recently used ones that there is no room for."""
        with self._mutex:
            if question not in self._held:
                self.bytes += _bytes(question)
            self._held[question] = outcome
            while len(self._held) > self._entries or self.bytes > self._size:
                self.bytes -= _bytes(self._held.popitem(last=False)[0])


def _bytes(question: Question) -> int:
    texts = (question,) if isinstance(question, str) else question
    return _ENTRY + sum(map(sys.getsizeof, texts))
