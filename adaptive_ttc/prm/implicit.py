"""A PRM made of two policies: how much likelier the tuned one finds a step than the reference; it knows no strategy.

Source: implicit process rewards, arXiv 2412.01981: q_k = beta * sum over the tokens of steps 1 to k of
log(tuned / reference). Here step k's score is sigmoid(scale * q_k + offset).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adaptive_ttc.errors import ConfigError
from adaptive_ttc.prm.base import ScoreRequest
from adaptive_ttc.prm.batched import BatchedPRM
from adaptive_ttc.prm.batcher import BatcherConfig
from adaptive_ttc.prm.causal import CausalBody, checked, load_causal, smallest
from adaptive_ttc.prm.checkpoint import fingerprint, locate, read_config
from adaptive_ttc.prm.step_chat import TEMPLATE_DATE, ControlTokens, template_of

if TYPE_CHECKING:
    import torch

FORMAT = "implicit-1"
"""Version of what this reader makes of a request; part of every fingerprint."""

_LOGITS_AT_ONCE = 2**24


@dataclass(frozen=True, slots=True, kw_only=True)
class ImplicitConfig:
    """What the config.json of an implicit PRM says, beside ``"adaptive_ttc_prm": "implicit"``.

    Attributes:
        tuned: sub-folder of the policy that was trained to be right.
        reference: sub-folder of the one it is compared with.
        beta: factor of the log-probability ratio.
        scale: of q_k before the sigmoid.
        offset: added after the scale; 0 puts equal likelihood at a score of one half.
    """

    tuned: str
    reference: str
    beta: float = 1.0
    scale: float = 1.0
    offset: float = 0.0

    def __post_init__(self) -> None:
        if self.beta <= 0 or self.scale <= 0:
            raise ConfigError(f"beta={self.beta} and scale={self.scale} must be positive")
        for sub_folder in (self.tuned, self.reference):
            if Path(sub_folder).name != sub_folder or sub_folder in ("", ".", ".."):
                raise ConfigError(f"{sub_folder!r} must be the name of a folder beside config.json")

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> ImplicitConfig:
        """Read it from config.json.

        Raises:
            ConfigError: an entry is missing, unknown or out of range.
        """
        known = {field.name for field in fields(cls)}
        given = {key: value for key, value in config.items() if key != "adaptive_ttc_prm"}
        if set(given) - known or not {"tuned", "reference"} <= set(given):
            raise ConfigError(
                f"an implicit PRM's config.json holds tuned and reference, and perhaps beta, scale and offset; "
                f"got {sorted(given)}"
            )
        return cls(**given)


@dataclass(frozen=True, slots=True)
class RenderedSolution:
    """A solution in the policies' own format.

    Attributes:
        token_ids: prompt and solution.
        start: index of the solution's first token.
        ends: for every step the index after its last token.
    """

    token_ids: tuple[int, ...]
    start: int
    ends: tuple[int, ...]

    @property
    def tokens(self) -> int:
        """Tokens that are read: the last one is only predicted."""
        return len(self.token_ids) - 1


class ImplicitPRM(BatchedPRM[RenderedSolution]):
    """A PRM over two causal LMs with one tokenizer; :meth:`from_pretrained` loads one.

    The blank line before a step counts as part of it. Every step is tokenised by itself, so the
    scores of early steps do not depend on later ones. Tokens are counted once, and ``parameters``
    are those of both models with their heads.

    Args:
        tuned: the policy that was trained to be right, in evaluation mode.
        reference: the one it is compared with.
        tokenizer: that of both, with the policies' chat template.
        config: beta, scale and offset.
        name: how a person calls it.
        fingerprint: see :func:`adaptive_ttc.prm.checkpoint.fingerprint`.
        batching: how requests are batched; lengths are in tokens.

    Raises:
        ConfigError: the models or the chat template cannot be read this way.
    """

    def __init__(
        self,
        tuned: Any,
        reference: Any,
        tokenizer: Any,
        config: ImplicitConfig,
        *,
        name: str,
        fingerprint: str,
        batching: BatcherConfig | None = None,
    ) -> None:
        self._config, self._tokenizer = config, tokenizer
        template_of(tokenizer)
        self._control = ControlTokens(tokenizer)
        self._blank_line = tuple(tokenizer.encode("\n\n", add_special_tokens=False))
        self._tuned, self._reference = CausalBody(tuned), CausalBody(reference)
        bodies = (self._tuned, self._reference)
        super().__init__(
            name=name,
            fingerprint=fingerprint,
            parameters=sum(body.parameters + sum(p.numel() for p in body.head.parameters()) for body in bodies),
            max_context=smallest(*(body.max_context for body in bodies)),
            batching=batching,
        )

    @classmethod
    def from_pretrained(
        cls,
        path_or_hub: str | Path,
        *,
        device: str = "cpu",
        dtype: str = "float32",
        max_batch: int = 32,
        max_wait: float = 0.002,
        max_padded_tokens: int = 16384,
        threads: int | None = None,
    ) -> ImplicitPRM:
        """Load one from a folder, or from the Hub, whose config.json is an :class:`ImplicitConfig`.

        The arguments are those of :meth:`adaptive_ttc.prm.rlhflow.RLHFlowPRM.from_pretrained`.

        Raises:
            ConfigError: a model cannot be found, loaded or read this way, or the two have different tokenizers.
        """
        batching = BatcherConfig(max_batch=max_batch, max_wait=max_wait, max_padded_tokens=max_padded_tokens)
        folder = locate(path_or_hub)
        config = ImplicitConfig.of(read_config(folder))
        parts = [locate(folder / sub_folder) for sub_folder in (config.tuned, config.reference)]
        (tuned, tokenizer), (reference, other) = (
            load_causal(part, device=device, dtype=dtype, threads=threads) for part in parts
        )
        if tokenizer.get_vocab() != other.get_vocab():
            raise ConfigError(f"the tokenizers of {parts[0]} and {parts[1]} differ; the two policies must share one")
        return cls(
            tuned,
            reference,
            tokenizer,
            config,
            name=str(path_or_hub),
            fingerprint=fingerprint(folder, FORMAT, dtype, *map(fingerprint, parts)),
            batching=batching,
        )

    def _render(self, request: ScoreRequest) -> RenderedSolution:
        ids: list[int] = self._tokenizer.apply_chat_template(
            [{"role": "user", "content": self._control.neutralise(request.question)}],
            add_generation_prompt=True,
            date_string=TEMPLATE_DATE,
            return_dict=False,
        )
        start, ends = len(ids), []
        for number, step in enumerate(request.steps):
            text = self._control.neutralise(step.strip())
            ids = [*ids, *(self._blank_line if number else ()), *self._tokenizer.encode(text, add_special_tokens=False)]
            ends.append(len(ids))
        return RenderedSolution(tuple(ids), start, tuple(ends))

    def _score_batch(self, items: Sequence[RenderedSolution]) -> list[tuple[float, ...]]:
        import torch

        ratios = self._log_probabilities(self._tuned, items) - self._log_probabilities(self._reference, items)
        results = []
        for item, ratio in zip(items, torch.split(ratios, [item.ends[-1] - item.start for item in items]), strict=True):
            q = self._config.beta * ratio.cumsum(dim=0)[[end - item.start - 1 for end in item.ends]]
            scores = torch.sigmoid(self._config.scale * q + self._config.offset)
            results.append(tuple(checked(scores.tolist(), self._name)))
        return results

    def _release(self) -> None:
        self._tuned.release()
        self._reference.release()

    def _log_probabilities(self, body: CausalBody, items: Sequence[RenderedSolution]) -> torch.Tensor:
        """Log-probability, in nats and float64, of every solution token, item after item."""
        import torch

        states = body.hidden(
            [item.token_ids[:-1] for item in items],
            [range(item.start - 1, len(item.token_ids) - 1) for item in items],
        )
        targets = torch.tensor(
            [token for item in items for token in item.token_ids[item.start :]], device=states.device
        )
        return torch.cat(list(_target_log_probabilities(body.head, states, targets)))


def _target_log_probabilities(head: Any, states: torch.Tensor, targets: torch.Tensor) -> Iterator[torch.Tensor]:
    """In pieces: the logits of a whole batch over a large vocabulary would not fit into memory."""
    import torch

    rows = max(1, _LOGITS_AT_ONCE // head.weight.shape[0])
    with torch.inference_mode():
        for some_states, some_targets in zip(torch.split(states, rows), torch.split(targets, rows), strict=True):
            logits = head(some_states).float()
            yield (logits.gather(1, some_targets[:, None])[:, 0] - logits.logsumexp(dim=1)).double()
