"""Servers' words: why an answer ended, and the counts of ``usage``, as the servers and APIs that are in use write them.

vLLM, SGLang, llama.cpp, Ollama and LM Studio end with ``stop`` and ``length`` (LM Studio's own API with ``eosFound``,
``stopStringFound``, ``maxPredictedTokensReached``), TGI's completions with ``eos_token`` and ``stop_sequence``,
Anthropic and gateways to it with ``end_turn`` and ``max_tokens``, Together with ``eos``, Mistral with ``model_length``,
Gemini and Cohere in capitals.
"""

from __future__ import annotations

from typing import Literal

Ending = Literal["end", "stop", "length"]
"""``end``: the model ended its answer, or a stop string did; ``stop``: a stop string did; ``length``: a limit did."""

_ENDINGS: dict[str, Ending] = {
    # ``stop`` says that nothing cut the answer short, not which of the two ended it
    **dict.fromkeys(("stop", "stopped", "eos", "eostoken", "eosfound", "endturn", "endoftext"), "end"),
    **dict.fromkeys(("endofturn", "endofsequence", "stoptoken", "complete", "completed", "finished"), "end"),
    **dict.fromkeys(("stopsequence", "stopstring", "stopstringfound", "stopword", "stopcriteria"), "stop"),
    **dict.fromkeys(("length", "maxtokens", "maxlength", "maxnewtokens", "maxoutputtokens", "limit"), "length"),
    **dict.fromkeys(("modellength", "tokenlimit", "maxcontextlength", "modelcontextwindowexceeded"), "length"),
    **dict.fromkeys(("maxpredictedtokensreached", "contextlengthreached"), "length"),
}


def ending(word: str | None) -> Ending | None:
    """What a server's word for the end says; None where it tells of no sound end (``abort``, ``content_filter``)."""
    return _ENDINGS.get("".join(filter(str.isalnum, word or "")).lower())


def count(value: object) -> int | None:
    """A count of tokens; None where a server wrote something else in its place."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return int(number) if 0 <= number < 2**53 and number == int(number) else None


_UNSEEN = 16  # tokens without a text that an answer may have whatever its length


def fits(counted: int, received: int) -> bool:
    """Whether a server's count of an answer's tokens can be true, where ``received`` are the tokenizer's own for it.

    A text may be cut into tokens in several ways, and some tokens have no text; so a count is believed between half and
    twice of what came.
    """
    return received // 2 <= counted <= 2 * received + _UNSEEN
