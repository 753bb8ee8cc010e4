"""Reward models behind a server that reads them by its own head: ``/classify``, ``/score``, and vLLM's step pooling.

Start vLLM with ``--runner pooling``, for sequence classifiers with ``--model-impl vllm``: these then answer
``/classify`` and ``/score``, Qwen2.5-Math-PRM ``/pooling`` with the values of its steps; what Math-Shepherd needs
beside stands in docs/verifiers.md. A few numbers come back, not kilobytes of states a token.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from adaptive_ttc.errors import ConfigError, EngineError
from adaptive_ttc.policies.pooling_client import PoolingClient
from adaptive_ttc.prm.base import ScoreRequest, Traits
from adaptive_ttc.prm.checkpoint import backbone_parameters, fingerprint, load_tokenizer, locate, read_config
from adaptive_ttc.prm.families import outcome
from adaptive_ttc.prm.families.outcome import OutcomeReader
from adaptive_ttc.prm.format import Reader, Row, StepPooling, sigmoid
from adaptive_ttc.prm.pooled import PooledPRM, Pooling, Values, at_positions
from adaptive_ttc.types import join_steps

_MOST_BYTES = 2**20  # of an answer's body, and
_MOST_TOKEN_BYTES = 256  # for every token: two numbers a step

_NEEDS = {
    "classify": "vLLM, or a server like it, with a sequence classifier (--runner pooling)",
    "score": "vLLM, or a server like it, with a sequence classifier or a reranker (--runner pooling)",
    "steps": "vLLM with --runner pooling and the pooler's tok_pooling_type STEP",
}


class ServedValues:
    """One server; see :class:`~adaptive_ttc.prm.pooled.ValueSource`.

    Args:
        url, model: of the server, and of the model there.
        pooling: what it is asked for.
        steps: where the values of steps stand, for ``pooling="steps"``.
        max_context: tokens that it can read, or None.
        logits: whether it is to send logits, whose sigmoid is taken here: for servers that know no activation.
        **settings: see :class:`~adaptive_ttc.policies.pooling_client.PoolingClient`.
    """

    def __init__(
        self,
        url: str,
        model: str,
        pooling: Pooling,
        *,
        steps: StepPooling | None = None,
        max_context: int | None = None,
        logits: bool = False,
        **settings: Any,
    ) -> None:
        self._client = PoolingClient(url, model, needs=_NEEDS[pooling], **settings)
        self.name = self._client.name
        self.max_context = max_context
        self._pooling, self._steps, self._logits = pooling, steps, logits

    async def values(self, request: ScoreRequest, row: Row) -> Values:
        """The values at a row's positions."""
        endpoint = "pooling" if self._pooling == "steps" else self._pooling
        asked = self._asked(request, row)
        answer = await self._client.post(endpoint, asked, most=_MOST_BYTES + _MOST_TOKEN_BYTES * len(row.token_ids))
        try:
            told = answer["data"][0]
            values = self._read(told, row)
            computed = (answer.get("usage") or {}).get("prompt_tokens")
            if not isinstance(computed, int | None) or not all(map(math.isfinite, values)):
                raise ValueError(f"{computed!r} tokens, values {values}")
        except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
            raise EngineError(f"{self.name} answers something else than scores: {error}") from error
        return Values(values, len(row.token_ids) if computed is None else computed)

    async def aclose(self) -> None:
        """Cancel what runs."""
        await self._client.aclose()

    def _asked(self, request: ScoreRequest, row: Row) -> dict[str, Any]:
        raw = {"use_activation": False} if self._logits else {}
        if self._pooling == "score":
            return {"text_1": request.question, "text_2": join_steps(request.steps), **raw}
        task = {"task": "token_classify", "encoding_format": "float"} if self._pooling == "steps" else {}
        return {"input": list(row.token_ids), **task, **raw}

    def _read(self, told: Any, row: Row) -> tuple[float, ...]:
        if self._pooling == "steps":
            assert self._steps is not None
            # of one label the good one's share, of two classes the second's
            return at_positions([float(one[-1]) for one in told["data"]], row, self._steps.token)
        if self._pooling == "classify" and len(told["probs"]) != 1:
            raise ValueError(f"{len(told['probs'])} labels, and an outcome reward model has one")
        value = float(told["score"] if self._pooling == "score" else told["probs"][0])
        return (sigmoid(value) if self._logits else value,)


class PairReader(Reader):
    """For servers that put question and solution together: the tokens of both, and room for the server's template."""

    traits = Traits(finished_only=True)

    def __init__(self, tokenizer: Any, template_tokens: int) -> None:
        super().__init__(tokenizer)
        self.heads = ()
        self._template_tokens = template_tokens

    def render(self, request: ScoreRequest) -> tuple[Row, ...]:
        """A row that is counted, and not sent."""
        ids = tuple(self._ids(request.question) + self._ids(join_steps(request.steps)) + [0] * self._template_tokens)
        return (Row(ids, (0,), (), ids, (1,) * len(request.steps)),)


def served_outcome(
    path_or_hub: str | Path,
    pooling: Pooling,
    *,
    url: str | Sequence[str],
    model: str | Sequence[str] | None = None,
    dtype: str = "bfloat16",
    revision: str | None = None,
    max_context: int | None = None,
    template_tokens: int = 128,
    **settings: Any,
) -> PooledPRM:
    """An outcome model that a server reads, whatever its head is: here are only its tokenizer and config.

    ``template_tokens``: of the text that the server puts around question and solution, at most (``score`` alone); the
    others as for ``ServedPRM.from_family`` and :class:`ServedValues`. ConfigError: files or arguments are unfit.
    """
    if pooling not in ("classify", "score"):
        raise ConfigError(f"pooling={pooling!r} does not serve an outcome model; take 'classify' or 'score'")
    if not isinstance(url, str) or not isinstance(model, str | None) or template_tokens < 0:
        raise ConfigError("an outcome model is one: give one url, one model, and template_tokens of at least 0")
    folder = locate(path_or_hub, revision=revision)
    config, tokenizer = read_config(folder), load_tokenizer(folder)
    reader: Reader = PairReader(tokenizer, template_tokens)
    if pooling == "classify":
        reader = OutcomeReader(tokenizer, None, config.get("pad_token_id"))
    known = config.get("max_position_embeddings")
    return PooledPRM(
        reader,
        served_values(url, model or str(path_or_hub), pooling, max_context=known, **settings),
        name=str(path_or_hub),
        fingerprint=fingerprint(folder, outcome.FORMAT, dtype, pooling),
        parameters=backbone_parameters(folder) + int(config.get("hidden_size") or 0),
        max_context=max_context,
    )


def served_values(url: str, model: str, pooling: Pooling, **settings: Any) -> ServedValues:
    """A source with the caller's settings. ConfigError: one is unknown."""
    try:
        return ServedValues(url, model, pooling, **settings)
    except TypeError as error:
        raise ConfigError(
            f"{error}; settings of a served reward model are timeout, concurrency, logits and template_tokens"
        ) from error
