"""Our sample requests in vLLM's terms, and its outputs in ours; it knows no engine."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from itertools import islice
from typing import Literal

from vllm import SamplingParams
from vllm.outputs import RequestOutput
from vllm.sampling_params import RequestOutputKind

from adaptive_ttc.policies.stopping import StopRule
from adaptive_ttc.policy import Sampled, SampleRequest


def sampling_params(
    request: SampleRequest, *, limit: int, eos: Iterable[int], kind: RequestOutputKind
) -> SamplingParams:
    """How vLLM continues a request's prompt.

    Args:
        request: what is asked.
        limit: most tokens, the context's end considered.
        eos: tokens that end a solution; vLLM's own notion of them is switched off, so that both engines agree.
        kind: which outputs are delivered.
    """
    return SamplingParams(
        temperature=request.temperature,
        top_p=request.top_p,
        seed=stream_seed(request) if request.temperature else None,
        max_tokens=limit,
        stop=list(request.stop),
        include_stop_str_in_output=True,
        detokenize=bool(request.stop),
        stop_token_ids=sorted(eos),
        ignore_eos=True,
        # none beside the sampled token's own
        logprobs=0,
        flat_logprobs=True,
        output_kind=kind,
    )


def stream_seed(request: SampleRequest) -> int:
    """The seed of vLLM's random stream for a request, 0 to 2**63 - 1.

    vLLM draws a stream for every request; the prompt's length keeps two pieces of one sample from the same draws.
    """
    digest = hashlib.blake2b(f"{request.seed}:{len(request.prompt_ids)}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


class Seam:
    """Watches a request's first tokens for a stop string that began before them, which vLLM does not see.

    Args:
        rule: finds the stop strings.
        context: the text before the new tokens.

    Attributes:
        end: tokens up to where such a string was complete, or None.
    """

    def __init__(self, rule: StopRule, context: str) -> None:
        self._rule = rule
        self._context = context
        self._seen = 0
        self.end: int | None = None

    def __call__(self, output: RequestOutput) -> bool:
        """Look at a cumulative output; True once, when a stop string is complete."""
        tokens = output.outputs[0].token_ids
        while self.end is None and self._seen < len(tokens):
            self._seen += 1
            if self._rule.met(self._context, tokens[: self._seen]):
                self.end = self._seen
                return not output.finished
        return False


def straddles(context: str, stop: Iterable[str]) -> bool:
    """Whether the context ends with the beginning of a stop string."""
    return any(context.endswith(string[:length]) for string in stop for length in range(1, len(string)))


def sampled(output: RequestOutput, end: int | None = None) -> Sampled:
    """What came of a request.

    Args:
        output: its last output.
        end: tokens up to where a stop string was complete that vLLM did not see; the rest is not delivered.
    """
    completion = output.outputs[0]
    computed = len(completion.token_ids)
    tokens = tuple(completion.token_ids[:end])
    flat = completion.logprobs
    # one entry a token, but the sampled token's stands first if there are more
    logprobs = tuple(flat.logprobs[start] for start in islice(flat.start_indices, len(tokens))) if flat else ()
    cached = output.num_cached_tokens or 0
    # one that was aborted before its first token has most likely not been scheduled
    prompt = len(output.prompt_token_ids or ()) - cached if computed else 0
    finish = "stop" if end is not None else _finish(completion.finish_reason, completion.stop_reason)
    return Sampled(
        token_ids=tokens,
        finish=finish,
        logprobs=logprobs,
        prompt_tokens=prompt,
        cached_tokens=cached if computed else 0,
        discarded_tokens=computed - len(tokens),
    )


def _finish(finish_reason: str | None, stop_reason: int | str | None) -> Literal["eos", "stop", "length", "abort"]:
    if finish_reason == "stop":
        # a stop string is named; an end token is by its number, or not at all
        return "stop" if isinstance(stop_reason, str) else "eos"
    return "abort" if finish_reason == "abort" else "length"
