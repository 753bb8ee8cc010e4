"""Finds stop strings in the text of new tokens, across token and request seams; it knows no engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence

Decode = Callable[[Sequence[int]], str]
"""The text of token ids, special tokens left out."""

_REPLACEMENT = "\ufffd"  # what a decoder writes for half a character


class TokenTexts:
    """What one token adds to a text, remembered.

    Args:
        decode: the tokenizer's decoder.
        anchor: an ordinary token before which the others are decoded, because some decoders strip a
            leading blank; its text must not be empty.
    """

    def __init__(self, decode: Decode, anchor: int) -> None:
        self._decode = decode
        self._anchor = anchor
        self._before = decode([anchor])
        self._texts: dict[int, str] = {}

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of several tokens."""
        return self._decode(token_ids)

    def __getitem__(self, token: int) -> str:
        text = self._texts.get(token)
        if text is None:
            text = self._texts[token] = self._decode([self._anchor, token])[len(self._before) :]
        return text


class StopRule:
    """Tells at which token a sample met one of its stop strings.

    Only a token that holds some stop string's last character can complete it (or half a character, of
    which nothing can be said), so that the text is looked at for few tokens.
    """

    def __init__(self, stop: Sequence[str], texts: TokenTexts) -> None:
        self._stop = tuple(stop)
        self._texts = texts
        self._last = {string[-1] for string in stop} | {_REPLACEMENT}
        # a character is at least one token's worth of bytes; four more cover a split character on either side
        self._reach = max((len(string.encode()) for string in stop), default=0) + 4
        self._may_end: dict[int, bool] = {}

    def met(self, context: str, tokens: Sequence[int]) -> bool:
        """Whether the last of the new tokens completes a stop string.

        Args:
            context: text directly before the new tokens; a stop string may begin in it, not end in it.
            tokens: all new tokens of the sample; it is asked after each, so that earlier ones completed none.
        """
        if not self._stop or not self._completes(tokens[-1]):
            return False
        tail = self._texts.decode(tokens[-self._reach :])
        before = context if len(tokens) <= self._reach else ""
        return any((before + tail).find(string, max(0, len(before) - len(string) + 1)) >= 0 for string in self._stop)

    def _completes(self, token: int) -> bool:
        known = self._may_end.get(token)
        if known is None:
            known = self._may_end[token] = not self._last.isdisjoint(self._texts[token])
        return known
