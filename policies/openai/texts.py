"""Gives text from servers that name no tokens a cut into tokens; it knows no server.

The number of tokens is the server's and the text is the server's; only where one token ends and the next begins is
this tokenizer's choice, which is nearly always the model's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from adaptive_ttc.errors import ConfigError, EngineError


class Cutter:
    """Cuts text into tokens of a Hugging Face tokenizer.

    Args:
        tokenizer: of the model that is served.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._vocabulary: dict[str, int] = tokenizer.get_vocab()
        self._special = frozenset(tokenizer.all_special_ids)

    def cut(self, text: str) -> list[int]:
        """The tokenizer's own cut.

        Raises:
            ConfigError: it cannot write the text.
        """
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False)
        if self._text(ids) != text:
            raise ConfigError(
                f"the tokenizer cannot write {text[-80:]!r} as it came, and the server names no token ids; "
                "serve the model with an engine that does (vLLM: return_token_ids)"
            )
        return ids

    def cut_into(self, text: str, count: int) -> list[int]:
        """A cut into at least ``count`` tokens: the tokenizer's own, with tokens split where it has fewer.

        A model may write a word in more pieces than its tokenizer would; more than the server counted come out
        only where the server counts otherwise, and then too many are charged, never too few.

        Raises:
            ConfigError: the tokenizer cannot write the text.
            EngineError: nothing is left to split; retryable, so that the call is charged in full.
        """
        ids = self.cut(text)
        place = len(ids) - 1
        while len(ids) < count:
            if place < 0:
                raise EngineError(f"the server counted {count} tokens in {text!r}: more than can be", retryable=True)
            pieces = self._split(ids[place])
            ids[place : place + 1] = pieces
            place += len(pieces) - 1 if len(pieces) > 1 else -1
        if self._text(ids) != text:
            raise EngineError(f"the {count} tokens of {text!r} cannot be told apart", retryable=True)
        return ids

    def _split(self, token: int) -> list[int]:
        piece: str = self._tokenizer.convert_ids_to_tokens(token)
        # <0x0A> is a byte, not six letters
        if token not in self._special and not (piece.startswith("<") and piece.endswith(">")):
            for at in range(len(piece) - 1, 0, -1):
                left, right = self._vocabulary.get(piece[:at]), self._vocabulary.get(piece[at:])
                if left is not None and right is not None:
                    return [left, right]
        return [token]

    def _text(self, ids: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return text
