"""Where the thinking of a reasoning model stands in its tokens, so that answers are read after it only.

Tags are matched as token ids where they are tokens of their own: decoding drops special ones. Tags that a tokenizer
spells with ordinary tokens, which vary with what is around them, are matched in the text. It knows no tokenizer.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

Decode = Callable[[Sequence[int]], str]
Whole = TypeVar("Whole", str, tuple[int, ...])  # a solution as text, or as tokens


@dataclass(frozen=True, slots=True)
class Thought:
    """The thinking in a solution's tokens; by default none."""

    tokens: int = 0  # of it, tags included
    answer_at: int | None = 0  # characters before the answer; None while the thought has not ended
    close: int | None = field(default=None, compare=False)  # tokens before the tag that ended it; None where none did


@dataclass(frozen=True, slots=True, kw_only=True)
class ThinkingTags:
    """How a policy marks its thoughts.

    Attributes:
        opening: token ids that begin a thought.
        closing: token ids after which the answer begins.
        forced: token ids that end a thought in its midst: the closing tag and what usually stands around it.
        texts: the two tags where they are to be found in the text, None where their ids are.
        begun: whether prompts end with the opening tag, so that solutions begin in a thought.
        wait: token ids that make the model go on thinking, in place of the closing tag; empty where it knows none.
    """

    opening: tuple[int, ...]
    closing: tuple[int, ...]
    forced: tuple[int, ...]
    texts: tuple[str, str] | None = None
    begun: bool = False
    wait: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.opening or not self.closing or not self.forced or (self.texts and not all(self.texts)):
            raise ValueError("a thinking tag is not empty")

    def thought(self, token_ids: Sequence[int], text: str, decode: Decode) -> Thought:
        """The thinking in a solution so far; ``text`` is what its ids are decoded to.

        A closing tag without an opening one ends a thought that began with the solution, as where a server took the
        opening tag away. A thought that begins after an answer takes that answer back.
        """
        if self.texts is None:
            ids = tuple(token_ids)
            spans, answer = _spans(ids, self.opening, self.closing, self.begun, _find)
            at = None if answer is None else len(decode(ids[:answer])) if answer else 0
            close = answer - len(self.closing) if answer and spans else None
            return Thought(sum(end - start for start, end in spans), at, close)
        spans, at = _spans(text, *self.texts, self.begun, str.find)

        def token_at(place: int) -> int:
            """Tokens that the first ``place`` characters take."""
            whole = range(len(token_ids) + 1)
            return bisect_left(whole, True, key=lambda n: place <= 0 or len(decode(token_ids[:n])) >= place)

        last = len(token_ids) if at is None else None  # an open thought reaches to the end, EOS included
        ends = [last if last is not None and end == len(text) else token_at(end) for _, end in spans]
        close = token_at(at - len(self.texts[1]) + 1) - 1 if at and spans else None
        return Thought(sum(end - token_at(start) for (start, _), end in zip(spans, ends, strict=True)), at, close)

    def may_open(self, token_ids: Sequence[int], text: str) -> bool:
        """Whether a solution so short that it has no thought yet may begin with one."""
        begun = tuple(token_ids[: len(self.opening)])
        if self.texts is None:
            return begun == self.opening[: len(begun)] or not text.strip()
        return self.texts[0].startswith(text.strip())

    def ends_thought(self) -> int | None:
        """The token that ends a thought; None where no single one does."""
        return self.closing[0] if self.texts is None and len(self.closing) == 1 else None


def thinking_of(policy: object) -> ThinkingTags | None:
    """How a policy marks its thoughts; None for one that does not think, or does not tell."""
    tags: ThinkingTags | None = getattr(policy, "thinking", None)
    return tags


def _spans(
    whole: Whole, opening: Whole, closing: Whole, begun: bool, find: Callable[[Whole, Whole, int], int]
) -> tuple[list[tuple[int, int]], int | None]:
    """Begin and end of every thought, and where the answer begins; None while the last thought is open."""
    spans: list[tuple[int, int]] = []
    start, answer = (0, None) if begun else (None, 0)
    while True:
        place = start if start is not None else answer or 0
        close = find(whole, closing, place)
        if start is None:
            opens = find(whole, opening, place)
            if opens >= 0 and (close < 0 or opens < close):
                start = opens
                continue
            if close < 0:
                return spans, answer
            start = place  # its opening tag is missing
        if close < 0:
            return [*spans, (start, len(whole))], None
        answer = close + len(closing)
        spans.append((start, answer))
        start = None


def _find(ids: tuple[int, ...], tag: tuple[int, ...], begin: int) -> int:
    """The first place of ``tag`` from ``begin`` on; -1 where there is none."""
    while True:
        try:
            begin = ids.index(tag[0], begin)
        except ValueError:
            return -1
        if ids[begin : begin + len(tag)] == tag:
            return begin
        begin += 1


KNOWN: tuple[tuple[str, str], ...] = (
    ("<think>", "</think>"),
    ("<seed:think>", "</seed:think>"),
    ("[THINK]", "[/THINK]"),
    ("<|channel|>analysis<|message|>", "<|channel|>final<|message|>"),
)
"""Opening and closing tags in use: most models, Seed, Magistral, gpt-oss."""


def tags_in(texts: Iterable[str]) -> ThinkingTags | None:
    """The tags in solutions that were recorded as text; None where none of them holds any."""
    seen = list(texts)
    for opening, closing in KNOWN:
        if any(closing in text or text.lstrip().startswith(opening) for text in seen):
            return ThinkingTags(opening=(0,), closing=(0,), forced=(0,), texts=(opening, closing))
    return None


def after_thought(text: str) -> str:
    """What follows the thinking in a recorded text: all of it where it holds no tag, nothing of an open thought."""
    tags = tags_in([text])
    at = 0 if tags is None else tags.thought((), text, lambda ids: "").answer_at
    return "" if at is None else text[at:]
