"""Gathers a streamed answer into a sample, and sees where it ends; it knows no connection and no replica.

Where the number of tokens comes from, in this order:

1. The server names every token's id (vLLM's and SGLang's ``return_token_ids``, ``token_id:`` names, llama.cpp's ids
   beside its log-probabilities), and as many as it counts. They are delivered as they are.
2. It counts the tokens of its answer (``usage``, with ``continuous_usage_stats`` also of one that is cut short;
   llama.cpp's ``timings``). The ids come from the model's own tokenizer, cut into as many pieces.
3. It does neither. A whole answer is then refused, since no budget could hold; of an answer that was cut short the
   tokens of its text are taken, or the number of its events if that is larger.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Literal

from adaptive_ttc.errors import EngineError
from adaptive_ttc.policies.openai.chunks import Chunk
from adaptive_ttc.policies.openai.texts import Cutter
from adaptive_ttc.policies.requests import StopRule
from adaptive_ttc.policy import Sampled, SampleRequest

Finish = Literal["eos", "stop", "length", "abort"]


class Answer:
    """One answer as it arrives.

    Args:
        request: what was asked.
        limit: tokens that were asked for.
        rule: of the request's stop strings.
        cutter: for text without token ids.
        eos: tokens that end a solution.
    """

    def __init__(self, request: SampleRequest, limit: int, rule: StopRule, cutter: Cutter, eos: Iterable[int]) -> None:
        self._request = request
        self._limit = limit
        self._rule = rule
        self._cutter = cutter
        self._eos = tuple(eos)
        self._ids: list[int] | None = []
        self._logprobs: list[float] = []
        self._text = ""
        self._events = 0
        self._latest = Chunk()
        self._server_finish: str | None = None
        self._server_stop: str | None = None
        self._stop_token: int | None = None  # so many tokens up to the stop string's end
        self._stop_letter: int | None = None  # so many letters, where no tokens are named
        self.asked = False

    @property
    def met_stop(self) -> bool:
        """Whether a stop string is complete, so that no more of the answer is wanted."""
        return self._stop_token is not None or self._stop_letter is not None

    @property
    def read(self) -> int | None:
        """Prompt tokens that the server read, or None where it does not say."""
        return self._latest.prompt_tokens

    @property
    def counted(self) -> bool:
        """Whether the number of tokens is known."""
        return self._ids is not None or self._latest.completion_tokens is not None

    @property
    def complete(self) -> bool:
        """Whether the server has said why the answer ended."""
        return self._server_finish is not None

    def take(self, chunk: Chunk) -> None:
        """Take the next event."""
        known = {name: getattr(chunk, name) for name in ("prompt_tokens", "cached_tokens", "completion_tokens")}
        self._latest = replace(self._latest, **{name: value for name, value in known.items() if value is not None})
        self._server_finish = chunk.finish or self._server_finish
        self._server_stop = chunk.stop or self._server_stop
        if chunk.text or chunk.token_ids:
            self._events += 1
        if chunk.token_ids is not None and self._ids is not None:
            self._take_ids(chunk)
        elif chunk.text:
            self._ids = None
        self._logprobs += chunk.logprobs
        self._text += chunk.text
        if self._ids is None:
            self._look_for_stop(len(chunk.text))

    def sampled(self) -> Sampled:
        """The sample of an answer that has ended, by itself or at a stop string.

        Raises:
            EngineError: the server does not say how many tokens it generated; or (retryable) it ended without a
                reason, or for one that is no end of a sample.
        """
        return self._made(self._finish())

    def aborted(self) -> Sampled:
        """The sample of an answer that was cut short: exactly what was delivered."""
        return self._made("abort")

    def _take_ids(self, chunk: Chunk) -> None:
        assert self._ids is not None
        for token in chunk.token_ids or ():
            self._ids.append(token)
            if self._stop_token is None and self._rule.met(self._request.stop_context, self._ids):
                self._stop_token = len(self._ids)

    def _look_for_stop(self, new: int) -> None:
        if self.met_stop:
            return
        context = self._request.stop_context
        text = context + self._text
        for stop in self._request.stop:
            # one that ended before the new text does not count
            at = text.find(stop, max(0, len(text) - new - len(stop) + 1, len(context) - len(stop) + 1))
            if at >= 0:
                end = at + len(stop) - len(context)
                self._stop_letter = end if self._stop_letter is None else min(end, self._stop_letter)

    def _finish(self) -> Finish:
        if self.met_stop:
            return "stop"
        if self._server_finish == "length":
            return "length"
        if self._server_finish == "stop":
            return "stop" if self._server_stop in self._request.stop else "eos"
        raise EngineError(f"the server ended its answer with {self._server_finish or 'no reason'}", retryable=True)

    def _made(self, finish: Finish) -> Sampled:
        counted = self._latest.completion_tokens
        ids = self._named(counted, finish)
        if ids is None:
            ids = self._cut(counted, finish)
        delivered = ids[: min(self._limit, self._stop_token or len(ids))]
        read = self.read if self.read is not None else len(self._request.prompt_ids) * self.asked
        cached = self._latest.cached_tokens or 0
        logprobs = tuple(self._logprobs[: len(delivered)])
        return Sampled(
            token_ids=tuple(delivered),
            finish=finish,
            logprobs=logprobs if len(logprobs) == len(delivered) else (),
            prompt_tokens=read - cached,
            cached_tokens=cached,
            discarded_tokens=max(len(ids), counted or 0) - len(delivered),
        )

    def _named(self, counted: int | None, finish: Finish) -> list[int] | None:
        """The ids that the server named, if they are all; None if not."""
        if self._ids is None:
            return None
        missing = (counted or 0) - len(self._ids)
        if missing == 1 and finish == "eos" and self._eos and self._ids[-1:] != [self._eos[0]]:
            return [*self._ids, self._eos[0]]  # counted and not named
        return None if missing > 0 and not self.met_stop else self._ids

    def _cut(self, counted: int | None, finish: Finish) -> list[int]:
        """Ids for the text, as many as were counted."""
        text = self._text
        if self._stop_letter is not None:
            text = text[: self._stop_letter]
        elif finish == "stop" and self._server_stop and not text.endswith(self._server_stop):
            text += self._server_stop  # trimmed by the server
        end = [self._eos[0]] if finish == "eos" and self._eos else []
        if counted is None:
            if finish not in ("abort", "stop"):
                raise EngineError(
                    "the server tells neither token ids nor how many tokens it generated, so that no budget can hold; "
                    "take one that knows return_token_ids or stream_options.include_usage"
                )
            counted = max(self._events, len(self._cutter.cut(text)))
        return [*self._cutter.cut_into(text, max(0, min(counted, self._limit) - len(end))), *end]
