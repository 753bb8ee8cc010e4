"""A server's text in the tokens of the tokenizer in the model's folder, and where each of them ends in it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from adaptive_ttc.policies.openai.protocol import exact_text


@dataclass(frozen=True, slots=True)
class Written:
    """A text in tokens.

    Attributes:
        ids: its tokens.
        exact: whether they decode to it; tokenizers that normalise (NFC in Qwen's) write some texts otherwise.
    """

    tokenizer: Any
    source: str
    ids: list[int]
    exact: bool

    def spoken(self) -> tuple[str, list[int]]:
        """The text as it came, special tokens left out, and the characters of it that the first 1, 2, ... tokens take.

        What the tokenizer passes over counts with the token behind it, at the end with the last one.
        """
        special, pieces, at = set(self.tokenizer.all_special_ids), [], 0
        for token, (start, end) in zip(self.ids, self._spans(), strict=True):
            pieces.append(self.source[at : start if token in special else end])
            at = max(at, end)
        rest = self.source[at:]
        text = "".join(pieces) + rest
        return text, [*accumulate(map(len, pieces[:-1])), len(text)] if pieces else []

    def _spans(self) -> Iterable[tuple[int, int]]:
        """Where the tokens begin and end in the text; evenly spread where the tokenizer does not tell."""
        if self.tokenizer.is_fast:
            told = self.tokenizer(self.source, add_special_tokens=False, return_offsets_mapping=True)
            spans: list[tuple[int, int]] = told["offset_mapping"]
            return spans
        places = [len(self.source) * number // len(self.ids) for number in range(1, len(self.ids) + 1)]
        return zip(places, places, strict=True)


def written(tokenizer: Any, text: str) -> Written:
    """The text in the tokenizer's own tokens; half characters (surrogates) are joined, lone ones replaced."""
    if not text:
        return Written(tokenizer, text, [], exact=True)
    text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
    return Written(tokenizer, text, ids, exact=exact_text(tokenizer, ids) == text)
