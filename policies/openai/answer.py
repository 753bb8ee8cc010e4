"""An answer as it arrives, and the sample made of it.

An answer's tokens are counted from, in this order:

1. The ids that the server names (vLLM's and SGLang's ``return_token_ids``, ``token_id:`` names, llama.cpp's ids beside
   its log-probabilities), if they are as many as it counts. They are delivered as they are.
2. Its own count (``usage``, with ``continuous_usage_stats`` also of an answer that is cut short; llama.cpp's
   ``timings``), if it fits what came. The ids come from the model's own tokenizer; tokens without a text of their own
   are charged as EOS.
3. What came: the tokens of its text, or where nothing is counted its events if they are more.

An answer never has fewer tokens than came, and never more than were asked for, whatever a server says. Where ids are a
count only, a text that the tokenizer writes otherwise is kept as it came (:attr:`~adaptive_ttc.policy.Sampled.text`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from adaptive_ttc.errors import ConfigError, EngineError
from adaptive_ttc.policies.chat_model import ChatModel
from adaptive_ttc.policies.openai.config import REMEDY
from adaptive_ttc.policies.openai.protocol import Chunk
from adaptive_ttc.policies.openai.words import ending, fits
from adaptive_ttc.policies.openai.written import Written, written
from adaptive_ttc.policies.requests import StopRule, mean_logprob
from adaptive_ttc.policy import Sampled, SampleFinish, SampleRequest

_COUNTS = ("prompt_tokens", "cached_tokens", "completion_tokens", "reasoning_tokens")
# Chat templates may differ by a date, a begin-of-sequence token, a line break; a system prompt or a turn is more.
_PROMPT_SLACK = 8


class Answer:
    """One streamed answer as it arrives, made into a sample.

    ``limit``: most tokens asked for; ``rule``: of the request's stop strings; ``model``: its tokenizer gives ids to
    text without any; ``whole``: the answer is a whole solution, which is not continued; ``rendered``: its prompt went
    out rendered, so that the server has no template to apply; ``context``: most tokens of prompt and answer.

    Attributes:
        doubts: what the server says that cannot be, a sentence for each kind of it.
    """

    def __init__(
        self, request: SampleRequest, limit: int, rule: StopRule, model: ChatModel, *, whole: bool,
        rendered: bool = False, context: int | None = None,
    ) -> None:  # fmt: skip
        self._request, self._limit, self._rule, self._whole = request, limit, rule, whole
        self._rendered, self._context = rendered, context or len(request.prompt_ids) + limit
        self._tokenizer = model.chat.tokenizer
        own = self._tokenizer.eos_token_id
        self._ends = model.eos
        self._eos = sorted(model.eos, key=lambda one: (one != own, one))[:1]
        self._ids: list[int] = []
        self._named = not whole  # whether every piece of text came with its ids
        self._logprobs: list[float] = []
        self._top_logprobs: list[float] = []
        self._text = self._reasoning = ""
        self._thought: int | None = None  # tokens of thinking, where the server told it from the answer
        self._kept: tuple[str, list[int]] | None = None  # the text as it came, and where its tokens end in it
        self._events = 0
        self._latest = Chunk()
        self._server_finish: str | None = None
        self._server_stop: str | None = None
        self._stop_end: int | None = None  # number of tokens up to the stop string's end
        self._eos_end: int | None = None  # and up to the end token, if the text names it
        self.doubts: dict[str, str] = {}

    @property
    def met_stop(self) -> bool:
        """Whether a stop string is complete, so that no more of the answer is wanted."""
        return self._stop_end is not None

    @property
    def overrun(self) -> bool:
        """Whether more tokens have come than were asked for; those are dropped, and no more are waited for."""
        # what the server counts, or sends in pieces, only calls for a look at what came
        likely = max(self._latest.completion_tokens or 0, self._events, len(self._ids)) > self._limit
        return likely and self._came > self._limit

    @property
    def complete(self) -> bool:
        """Whether the server has said that the answer ended, and as a rule why."""
        return self._server_finish is not None or self._latest.done

    @property
    def counted(self) -> bool:
        """Whether the number of tokens is known."""
        return self._named or self._latest.completion_tokens is not None

    def take(self, chunk: Chunk) -> None:
        """Add the next event; ConfigError if a server does not name tokens that have to be named."""
        known = {name: getattr(chunk, name) for name in _COUNTS}
        known = {name: value for name, value in known.items() if value is not None}
        self._latest = replace(self._latest, **known, done=chunk.done)
        self._server_finish = chunk.finish or self._server_finish
        self._server_stop = chunk.stop or self._server_stop
        self._events += bool(chunk.text or chunk.reasoning or chunk.token_ids)
        self._logprobs += chunk.logprobs
        if most := self._request.top_logprobs:
            top = [sorted(one, reverse=True)[:most] for one in chunk.top_logprobs if one]
            self._top_logprobs += map(mean_logprob, top)
        self._text += chunk.text
        self._reasoning += chunk.reasoning
        if not self._whole and chunk.text and chunk.token_ids is None:
            if not self._ids:
                raise ConfigError(f"the server names no token ids, without which no step can be gone on from; {REMEDY}")
            self._named = False
        for token in chunk.token_ids or ():
            self._ids.append(token)
            if self.met_stop:
                continue
            if token in self._request.stop_ids or self._rule.met(self._request.stop_context, self._ids):
                self._stop_end = len(self._ids)

    def sampled(self) -> Sampled:
        """The sample of an answer that has ended, by itself or at a stop string.

        Raises:
            ConfigError: the server does not take the prompt as it was sent.
            EngineError: the server neither names nor counts its tokens, where a search goes on from them; or
                (retryable) it ended without a reason, or abnormally.
        """
        self._check_prompt()
        if self.met_stop:
            return self._made("stop")
        how = ending(self._server_finish)
        if how == "length" or (self.overrun and not self.complete):
            return self._made("length")
        if self._server_finish is None and self._latest.done and self._came:
            self._doubt("end", "it does not say why its answers end; those shorter than they may be count as ended")
            return self._made("eos" if self._came < self._limit else "length")
        if how is None:
            raise EngineError(f"the server ended its answer with {self._server_finish or 'no reason'}", retryable=True)
        return self._made("stop" if self._at_stop else "eos")

    def aborted(self) -> Sampled:
        """The sample of an answer that was cut short: exactly what was delivered."""
        return self._made("abort")

    @property
    def _at_stop(self) -> bool:
        """Whether the server says that one of the request's stop strings ended the answer."""
        named = ending(self._server_finish) == "stop" and self._server_stop is None
        return bool(self._request.stop) and (named or self._server_stop in self._request.stop)

    def _doubt(self, kind: str, sentence: str) -> None:
        self.doubts.setdefault(kind, sentence)

    def _check_prompt(self) -> None:
        """ConfigError, or a doubt, where the server read another prompt than was sent."""
        read, sent = self._latest.prompt_tokens, len(self._request.prompt_ids)
        if read is None or abs(read - sent) <= (_PROMPT_SLACK if self._whole else 0):
            return
        found = f"read {read} prompt tokens where {sent} were sent"
        if not self._whole:
            raise ConfigError(f"the server {found}; it does not take token ids as such: {REMEDY}")
        if read < sent:
            found += ": it cuts prompts short (Ollama: num_ctx), leaves cached tokens out, or has another chat template"
        elif self._rendered:
            raise ConfigError(f"the server {found}: it puts a template around prompts that have one; use api='chat'")
        else:
            found += ": it has another chat template than the model's folder, or puts one on top of another"
        self._doubt("prompt", f"it {found}")

    def _made(self, finish: SampleFinish) -> Sampled:
        ids, generated = self._token_ids(finish)
        end = self._stop_end or self._eos_end
        if finish != "abort":
            finish = "stop" if self.met_stop else "eos" if self._eos_end else finish
            if (end or len(ids) * self._named) > self._limit:
                finish = "length"  # what ended it comes after the last token that was asked for
        delivered = ids[: min(self._limit, end or len(ids))]
        kept, ends = self._kept or (None, [])
        prompt = self._prompt()
        cached = min(self._latest.cached_tokens or 0, prompt)
        return Sampled(
            token_ids=tuple(delivered),
            finish=finish,
            logprobs=_of_all(self._logprobs, len(delivered)),
            top_logprobs=_of_all(self._top_logprobs, len(delivered)),
            prompt_tokens=prompt - cached,
            cached_tokens=cached,
            discarded_tokens=min(max(len(ids), generated), self._context) - len(delivered),
            thought=None if self._thought is None else min(self._thought, len(delivered)),
            text=None if kept is None else kept[: ends[len(delivered) - 1] if delivered else 0],
            ends=tuple(ends[: len(delivered)]),
        )

    def _prompt(self) -> int:
        """Tokens of the prompt: the server's count where it can be, and never fewer than were sent."""
        read, sent = self._latest.prompt_tokens, len(self._request.prompt_ids)
        return sent if read is None or not sent - _PROMPT_SLACK <= read < self._context else read

    def _token_ids(self, finish: SampleFinish) -> tuple[list[int], int]:
        """All tokens: those that the server named if they are complete, else the tokenizer's own; and how many."""
        ended = ending(self._server_finish) in ("end", "stop") or (finish == "eos" and not self._server_finish)
        end = self._eos if ended and not self._at_stop else []
        if self._named:
            generated = self._generated(len(self._ids))
            # the end token may be counted and not named; a count that is not believed says nothing about it
            unnamed = generated == len(self._ids) + 1 or generated != self._latest.completion_tokens
            if end and unnamed and self._ids[-1:] != end and not self.met_stop:
                return [*self._ids, *end], len(self._ids) + 1
            if generated == len(self._ids) or self.met_stop:
                return self._ids, generated
        answer, thought = self._cut(), written(self._tokenizer, self._reasoning)
        ids, thinking = answer.ids, thought.ids
        if self._eos_end:
            end = []  # it stands in the text
        if not (self._whole or self.counted or finish == "abort"):
            raise EngineError(
                "the server tells neither token ids nor how many tokens it generated, so that no budget can hold; "
                "take one that knows return_token_ids or stream_options.include_usage"
            )
        exact, written_out = answer.exact and thought.exact, len(thinking) + len(ids) + len(end)
        came = max(written_out, 0 if exact else self._events)
        generated = self._generated(came, thinking=len(thinking))
        missing = max(0, min(generated, self._limit) - written_out)
        if missing and not self._whole:
            raise EngineError(f"the server did not name all of its {generated} tokens", retryable=True)
        # thinking that the server counts and does not show; all of it while nothing is answered
        told = (self._latest.reasoning_tokens or 0) if ids or not thinking else generated
        hidden = min(missing, max(0, told - len(thinking)))
        if thinking or hidden:
            self._thought = len(thinking) + hidden
        if self._eos_end:
            self._eos_end += len(thinking) + hidden
        if not exact:
            self._keep(thought, answer, hidden, missing - hidden + len(end))
        return [*thinking, *(self._eos * hidden), *ids, *(self._eos * (missing - hidden)), *end], generated

    def _keep(self, thought: Written, answer: Written, hidden: int, behind: int) -> None:
        """Keep the text as it came; so many tokens without any stand behind thought and answer."""
        self._doubt(
            "text", "its text is not what the tokenizer in the model's folder makes of it; it is used as it came"
        )
        (thinking, ends), (said, more) = thought.spoken(), answer.spoken()
        ends += [len(thinking)] * hidden + [len(thinking) + end for end in more]
        self._kept = thinking + said, ends + [len(thinking + said)] * behind

    def _generated(self, came: int, thinking: int = 0) -> int:
        """How many tokens the answer has, where ``came`` were named or are in its text: never fewer.

        ``thinking``: those of them that the server told from the answer.
        """
        counted, hidden = self._latest.completion_tokens, self._latest.reasoning_tokens or 0
        if counted is None:
            if self.complete and not self._named:
                self._doubt("usage", "it does not count the tokens of its answers; those that come are counted")
            return max(came, self._events)
        at_limit = counted == self._limit and ending(self._server_finish) == "length"
        apart = hidden <= counted and fits(counted - hidden, came - thinking)
        if at_limit or apart or fits(counted, came):
            return max(counted, came)
        self._doubt("usage", f"it counts {counted:,} tokens in an answer of {came:,}; those that come are counted")
        return came

    @property
    def _came(self) -> int:
        """Tokens that were named, or that the thinking's and the answer's texts make."""
        texts = (written(self._tokenizer, text) for text in (self._reasoning, self._text))
        return max(len(self._ids), sum(len(one.ids) for one in texts))

    def _cut(self) -> Written:
        """The text in the tokenizer's own tokens; notes where a stop string, or an end token's text, ends it."""
        answer = written(self._tokenizer, self._text)
        if not (answer.exact or self._whole):
            raise ConfigError(
                f"the tokenizer cannot write {self._text[-80:]!r} as it came, and the server names no token ids; "
                "serve the model with an engine that does (vLLM: return_token_ids)"
            )
        ids = answer.ids
        # TGI writes out the end token; a server with a wrong end token goes on behind the right one
        self._eos_end = next((end for end, token in enumerate(ids, 1) if token in self._ends), None)
        if self._request.stop:
            context = self._request.stop_context
            self._stop_end = next((end for end in range(1, len(ids) + 1) if self._rule.met(context, ids[:end])), None)
        return answer


def _of_all(logprobs: Sequence[float], tokens: int) -> tuple[float, ...]:
    """Those of the first tokens; none where they are fewer."""
    return tuple(logprobs[:tokens]) if len(logprobs) >= tokens else ()
