"""One sample in the making: its parent, its tokens so far, whether it ended."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import count
from operator import add

from adaptive_ttc.answers.confidence import answer_logprob
from adaptive_ttc.answers.spaces.base import AnswerSpace
from adaptive_ttc.answers.spaces.mathematics import MATH
from adaptive_ttc.answers.thinking import ThinkingTags, Thought
from adaptive_ttc.driver.step_ends import step_ends
from adaptive_ttc.policy import Sampled, SampleRequest, Spare
from adaptive_ttc.prm.base import TokenLogprobs
from adaptive_ttc.strategies.requests import Expand
from adaptive_ttc.types import Finish, Message, Prefix, split_steps

ANSWER_TOKENS = 256
"""Most tokens that are kept for the answer behind a thought; a quarter of a solution where that is less."""

_REQUESTS = count()


@dataclass(frozen=True, slots=True)
class _Ends:
    """Tokens and strings that end a request."""

    ids: tuple[int, ...] = ()
    texts: tuple[str, ...] = ()


class Sample:
    """A child of ``parent``, grown by one or several requests to the policy, all with its path's ``seed``."""

    # fmt: off
    __slots__ = (
        "_answers", "_closed", "_decode", "_messages", "_prompt_ids", "_request", "_seeded", "_steps",
        "_stops_at_close", "_told", "answer_logprob", "attempts", "ended", "logprob", "logprobs", "logprobs_wanted",
        "parent", "path", "remaining", "rivals", "scores", "seed", "tags", "text", "thought", "token_ids",
        "top_logprobs", "top_wanted", "waits",
    )
    # fmt: on

    def __init__(
        self,
        *,
        parent: Prefix,
        path: tuple[int, ...],
        seed: int,
        seeded: bool = True,
        request: Expand,
        prompt_ids: tuple[int, ...],
        max_context: int,
        decode: Callable[[Sequence[int]], str],
        messages: tuple[Message, ...] = (),
        answers: AnswerSpace = MATH,
        logprobs_wanted: bool = True,
        top_wanted: int = 0,
        tags: ThinkingTags | None = None,
    ) -> None:
        if parent.finished:
            raise ValueError(f"the solution at path {parent.path} has ended: it cannot be expanded")
        self.parent = parent
        self.path = path
        self.seed = seed
        self.token_ids = parent.token_ids
        self.text = parent.text
        self.logprob = parent.logprob
        self.logprobs = parent.logprobs
        self.top_logprobs = parent.top_logprobs
        self.logprobs_wanted = logprobs_wanted
        self.top_wanted = top_wanted
        self.rivals: tuple[tuple[str, ...], ...] = ()  # the steps of solutions that it is compared with
        self.answer_logprob = parent.answer_logprob
        self._told: float | None = None
        self._steps: tuple[str, tuple[str, ...]] | None = None  # a text of its own, and its steps
        self.scores = parent.scores if request.score else ()
        self.attempts = 0
        self._request = request
        self._seeded = seeded
        self._prompt_ids = prompt_ids
        self._decode = decode
        self._messages = messages
        self._answers = answers
        self.tags = tags
        self.waits = parent.waits
        self._stops_at_close = False  # whether the request in flight ends with the thought
        self._closed = False  # whether the driver ended its thought
        self.thought = Thought(parent.thought, parent.answer_at)
        if tags is not None and tags.begun and not self.token_ids:
            self.thought = Thought(0, None)
        self.remaining = max(0, min(request.max_tokens, max_context - len(prompt_ids)) - len(parent.token_ids))
        self.ended: Finish | None = None if self.remaining else "length"

    @property
    def asked(self) -> Expand:
        """The request that it is a part of."""
        return self._request

    @property
    def thinks(self) -> bool:
        """Whether it is in a thought, or may still begin with one."""
        if self.thought.answer_at is None or self.tags is None or self.thought.tokens:
            return self.thought.answer_at is None
        return self.tags.may_open(self.token_ids, self.text)

    @property
    def answer_room(self) -> int:
        """Tokens that are kept for the answer behind a thought."""
        return min(ANSWER_TOKENS, (len(self.token_ids) + self.remaining) // 4)

    @property
    def may_wait(self) -> bool:
        """Whether its thought is made to go on if it ends now."""
        asked, tags = self._request, self.tags
        if self._closed or tags is None or self.waits >= asked.waits:
            return False
        if not 0 < len(tags.wait) < self.remaining - self.answer_room:
            return False
        limits = [one for one in (asked.min_think_tokens, asked.think_tokens) if one is not None]
        return self.thought.tokens < min(limits, default=self.thought.tokens + 1)

    @property
    def grown(self) -> int:
        """Tokens that it has beyond its parent."""
        return len(self.token_ids) - len(self.parent.token_ids)

    @property
    def length(self) -> int:
        """Tokens that count for its kind: those of the step if a stop string ends it, else of the whole solution."""
        return self.grown if self._request.stop else len(self.token_ids)

    @property
    def steps(self) -> tuple[str, ...]:
        """The non-empty steps so far."""
        if self._steps is None or self._steps[0] is not self.text:
            self._steps = self.text, split_steps(self.text)
        return self._steps[1]

    @property
    def new_text(self) -> str:
        """Its text beyond its parent's."""
        return self.text[len(self.parent.text) :]

    def ask(self, tokens: int, priority: int, spare: Spare | None = None) -> SampleRequest:
        """The request for its next ``tokens`` tokens, from exactly the ids that it has."""
        request, ends = self._request, self._ends_of_thought()
        stop, self._stops_at_close = (*request.stop, *ends.texts), bool(ends.texts or ends.ids)
        name = ".".join(map(str, self.path))
        return SampleRequest(
            id=f"{name}@{len(self.token_ids)}#{next(_REQUESTS)}",
            prompt_ids=self._prompt_ids + self.token_ids,
            max_tokens=tokens,
            seed=self.seed,
            seeded=self._seeded,
            temperature=request.temperature,
            top_p=request.top_p,
            stop=stop,
            stop_context=self._seam(stop),
            stop_ids=ends.ids,
            think_tokens=request.think_tokens,
            priority=priority,
            path=self.path,
            logprobs=self.logprobs_wanted,
            top_logprobs=self.top_wanted,
            messages=() if self.token_ids else self._messages,
            spare=spare,
        )

    def absorb(self, sampled: Sampled, granted: int, *, late: bool = False) -> None:
        """Add what a request delivered; it has ended unless only the lease did, or the request was aborted as ``late``.

        EngineError: the policy cannot decode it; nothing is added then.
        """
        if not self.token_ids:
            self._decode = sampled.decoder(self._decode)
        if sampled.token_ids:
            self.text = self._decode(self.token_ids + sampled.token_ids)
            self.scores = ()
        self.token_ids += sampled.token_ids
        self.logprob = reduce(add, sampled.logprobs, self.logprob)  # the same however a solution was leased
        self.logprobs += sampled.logprobs
        self.top_logprobs += sampled.top_logprobs
        before, self.thought = self.thought, self._thought_after(sampled)
        self._told = sampled.answer_logprob
        self.remaining -= len(sampled.token_ids)
        if self._goes_on_after(sampled, before) or (late and self.remaining > 0):
            self.ended = None
        elif sampled.finish == "length" and len(sampled.token_ids) == granted and self.remaining > 0:
            self.ended = None  # only the lease ended
        elif sampled.finish == "stop" and self.remaining == 0:
            self.ended = "length"  # its step is complete, but the solution may not go on
        else:
            self.ended = sampled.finish

    def _thought_after(self, sampled: Sampled) -> Thought:
        """The thinking in all tokens, the delivered ones included: as the engine tells, or by the policy's tags."""
        if sampled.thought is None:
            return self.thought if self.tags is None else self.tags.thought(self.token_ids, self.text, self._decode)
        grown, before = len(sampled.token_ids), len(self.token_ids) - len(sampled.token_ids)
        open_before = self.thought.answer_at is None or not before
        if sampled.thought == grown and open_before:
            return Thought(self.thought.tokens + grown, None)
        end = before + sampled.thought
        at = len(self._decode(self.token_ids[:end])) if open_before else self.thought.answer_at
        return Thought(self.thought.tokens + sampled.thought, at)

    def write(self, kept: int, ids: tuple[int, ...]) -> None:
        """Put ``ids`` in place of all but the first ``kept`` tokens; they were not drawn, and so are certain.

        EngineError: the policy cannot decode them; nothing is changed then.
        """
        assert self.tags is not None
        token_ids = self.token_ids[:kept] + ids
        text = self._decode(token_ids)
        thought = self.tags.thought(token_ids, text, self._decode)
        if len(self.logprobs) == len(self.token_ids):
            self.logprobs = self.logprobs[:kept] + (0.0,) * len(ids)
            self.logprob = reduce(add, self.logprobs, 0.0)
        if self.top_logprobs and len(self.top_logprobs) == len(self.token_ids):
            self.top_logprobs = self.top_logprobs[:kept] + self.top_logprobs[max(0, kept - 1) :][:1] * len(ids)
        if kept < len(self.token_ids):
            self.waits += 1
        else:
            self._closed = True
        self.remaining += len(self.token_ids) - len(token_ids)
        self.token_ids, self.text, self.thought, self.scores = token_ids, text, thought, ()
        self.ended = None if self.remaining > 0 else "length"

    def _ends_of_thought(self) -> _Ends:
        """What ends a request with the thought, which may have to go on then."""
        if self.tags is None or not self.may_wait or not self.thinks:
            return _Ends()
        token = self.tags.ends_thought()
        return _Ends(() if token is None else (token,), () if self.tags.texts is None else self.tags.texts[1:])

    def _goes_on_after(self, sampled: Sampled, before: Thought) -> bool:
        """Whether a request ended with its thought, and not the solution."""
        closed = self.thought.close is not None and self.thought.close != before.close
        if not closed or sampled.finish == "abort":
            return False
        return self.may_wait or (self._stops_at_close and sampled.finish == "stop" and self.remaining > 0)

    def end(self, finish: Finish) -> None:
        """Note that it has ended, and how sure the policy was of its answer, if it holds one."""
        self.ended = finish
        if self._told is not None:
            self.answer_logprob = self._told
        elif finish != "stop" and len(self.logprobs) == len(self.token_ids):
            ids = self.token_ids
            space, begin = self._answers.after(finish), self.thought.answer_at
            self.answer_logprob = answer_logprob(
                self.text, self.logprobs, lambda n: len(self._decode(ids[:n])), space, begin
            )

    def child(self) -> Prefix:
        """The prefix that the strategy is sent."""
        return Prefix(
            token_ids=self.token_ids,
            text=self.text,
            scores=self.scores,
            logprob=self.logprob,
            finish=self.ended,
            path=self.path,
            attempts=self.parent.attempts,
            logprobs=self.logprobs if len(self.logprobs) == len(self.token_ids) else (),
            top_logprobs=self.top_logprobs,
            answer_logprob=self.answer_logprob,
            answer_at=self.thought.answer_at,
            thought=self.thought.tokens,
            waits=self.waits,
        )

    def token_logprobs(self) -> TokenLogprobs:
        """How probable its tokens were to the policy, as far as that is known of all of them."""
        known = [some if len(some) == len(self.token_ids) else () for some in (self.logprobs, self.top_logprobs)]
        return TokenLogprobs(known[0], known[1], step_ends(self.text, self.token_ids, self._decode))

    def _seam(self, stop: Sequence[str]) -> str:
        """The end of this step's text, too short to hold a whole stop string."""
        longest = max(map(len, stop), default=0)
        begun = self.new_text if self.parent.finish == "stop" else self.text
        return begun[max(0, len(begun) - longest + 1) :] if longest > 1 else ""
