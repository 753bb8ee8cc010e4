"""Finds how a model marks its thoughts: in its chat template, among its tokens, or as the caller says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from adaptive_ttc.answers.thinking import KNOWN, ThinkingTags
from adaptive_ttc.errors import ConfigError

Thinking = str | Sequence[str] | None
"""``auto``; None for a model that does not think; an opening tag in use (``<think>``); or a pair of tags."""

AUTO = "auto"
# What stands around the closing tag where models write it themselves; others get it alone.
_FORCED = {
    "</think>": "\n</think>\n\n",
    "<|channel|>final<|message|>": "<|end|><|start|>assistant<|channel|>final<|message|>",
}


@dataclass(frozen=True, slots=True)
class Rendering:
    """What a chat template shows of itself: its source, and what it puts where a solution begins."""

    source: str
    opening: str


def thinking_tags(tokenizer: Any, rendering: Rendering, asked: Thinking) -> ThinkingTags | None:
    """The tags of a model; None where it has none. ConfigError: ``asked`` names none.

    ``auto`` takes the tags in use that the chat template names, or that are tokens of the model's own.
    """
    if asked is None:
        return None
    if asked == AUTO:
        tokens = tokenizer.get_added_vocab()
        texts = next((pair for pair in KNOWN if _named(pair, rendering, tokens)), None)
    else:
        texts = _told(asked)
    return None if texts is None else _tags(tokenizer, rendering, *texts)


def _named(pair: tuple[str, str], rendering: Rendering, tokens: dict[str, int]) -> bool:
    opening, closing = pair
    return closing in rendering.source or rendering.opening.rstrip().endswith(opening) or set(pair) <= set(tokens)


def _told(asked: str | Sequence[str]) -> tuple[str, str]:
    if isinstance(asked, str):
        found = next((pair for pair in KNOWN if pair[0] == asked), None)
        if found is None:
            known = ", ".join(opening for opening, _ in KNOWN)
            raise ConfigError(
                f"thinking={asked!r} is no opening tag in use ({known}); give both tags, as in "
                "thinking=('<thought>', '</thought>'), 'auto', or None for a model that does not think"
            )
        return found
    if len(asked) != 2 or not all(isinstance(tag, str) and tag for tag in asked):
        raise ConfigError(f"thinking is an opening and a closing tag; got {asked!r}")
    return asked[0], asked[1]


def _tags(tokenizer: Any, rendering: Rendering, opening: str, closing: str) -> ThinkingTags:
    def ids(text: str) -> tuple[int, ...]:
        return tuple(tokenizer.encode(text, add_special_tokens=False))

    tokens = set(tokenizer.get_added_vocab().values())
    tags = ids(opening), ids(closing)
    # between tokens of its own a tag is always spelled alike; any other melts into what is around it
    own = all(tag[0] in tokens and tag[-1] in tokens for tag in tags)
    return ThinkingTags(
        opening=tags[0],
        closing=tags[1],
        forced=ids(_FORCED.get(closing, closing)),
        texts=None if own else (opening, closing),
        begun=rendering.opening.rstrip().endswith(opening),
        wait=ids("Wait"),
    )
