"""A PRM made of two policies: how much likelier the tuned one finds a step than the reference.

Source: implicit process rewards, arXiv 2412.01981: q_k = beta * sum over the tokens of steps 1 to k of log(tuned /
reference). Here step k's score is sigmoid(scale * q_k + offset).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adaptive_ttc.errors import ConfigError
from adaptive_ttc.prm.base import ScoreRequest
from adaptive_ttc.prm.checkpoint import load_tokenizer, locate, read_config, read_output_head
from adaptive_ttc.prm.format import ChatReader, OutputHead, Parts, Row, sigmoid

if TYPE_CHECKING:
    import torch

FORMAT = "implicit-2"  # version of what this reader makes of a request; part of every fingerprint
LOGITS_AT_ONCE = 2**24  # the logits of a whole batch over a large vocabulary would not fit into memory


class NextTokenHead:
    """The log-probability of the next token, in nats and float64."""

    def __init__(self, output: OutputHead) -> None:
        self._output = output
        self.parameters = output.parameters

    def __call__(self, states: torch.Tensor, targets: Sequence[int]) -> torch.Tensor:
        """Log-probabilities of the targets."""
        import torch

        weight, bias = self._output.weight, self._output.bias
        wanted = torch.tensor(targets, dtype=torch.long, device=weight.device)
        rows = max(1, LOGITS_AT_ONCE // weight.shape[0])
        parts = [states.new_zeros(0, dtype=torch.float64, device=weight.device)]
        for some_states, some in zip(torch.split(states.to(weight), rows), torch.split(wanted, rows), strict=True):
            logits = torch.nn.functional.linear(some_states, weight, bias).float()
            parts.append((logits.gather(1, some[:, None])[:, 0] - logits.logsumexp(dim=1)).double())
        return torch.cat(parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImplicitConfig:
    """The entries of an implicit PRM's config.json, beside ``"adaptive_ttc_prm": "implicit"``."""

    tuned: str  # sub-folder of the policy that was trained to be right
    reference: str  # sub-folder of the one it is compared with
    beta: float = 1.0  # factor of the log-probability ratio
    scale: float = 1.0  # of q_k before the sigmoid
    offset: float = 0.0  # added after the scale; 0 puts equal likelihood at a score of one half

    def __post_init__(self) -> None:
        if self.beta <= 0 or self.scale <= 0:
            raise ConfigError(f"beta={self.beta} and scale={self.scale} must be positive")
        for sub_folder in (self.tuned, self.reference):
            if Path(sub_folder).name != sub_folder or sub_folder in ("", ".", ".."):
                raise ConfigError(f"{sub_folder!r} must be the name of a folder beside config.json")

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> ImplicitConfig:
        """Read it from config.json; ConfigError if an entry is missing, unknown or out of range."""
        known = {field.name for field in fields(cls)}
        given = {key: value for key, value in config.items() if key != "adaptive_ttc_prm"}
        if set(given) - known or not {"tuned", "reference"} <= set(given):
            raise ConfigError(
                f"an implicit PRM's config.json holds tuned and reference, and perhaps beta, scale and offset; "
                f"got {sorted(given)}"
            )
        return cls(**given)


PROMPTS = 256  # questions whose prompt is kept: every round of a search asks about the same one


class ImplicitReader(ChatReader):
    """Two causal LMs with one tokenizer, whose chat template gives the prompt.

    The blank line before a step counts as part of it. Every step is tokenised by itself, so the scores of early steps
    do not depend on later ones.
    """

    def __init__(self, tokenizer: Any, tuned: OutputHead, reference: OutputHead, config: ImplicitConfig) -> None:
        super().__init__(tokenizer)
        self._config, self._blank_line = config, self._ids("\n\n")
        self.heads = (NextTokenHead(tuned), NextTokenHead(reference))
        self._prompt = lru_cache(maxsize=PROMPTS)(
            lambda question: tuple(self._chat(("user", self._safe(question)), answering=True))
        )

    def render(self, request: ScoreRequest) -> tuple[Row, ...]:
        """Prompt and solution as the policies write them; the last token is only predicted."""
        ids = list(self._prompt(request.question))
        start, ends = len(ids), []
        for number, step in enumerate(self._safe_steps(request)):
            ids += [*(self._blank_line if number else ()), *self._ids(step)]
            ends.append(len(ids))
        return (Row.predicting(ids, start, ends),)

    def scores(self, rows: Sequence[Row], values: Sequence[Sequence[Sequence[float]]]) -> tuple[float, ...]:
        """Sigmoids of the log-probability ratios, summed up to each step's end."""
        ratios = accumulate(tuned - reference for tuned, reference in zip(*(some[0] for some in values), strict=True))
        q = [self._config.beta * ratio for ratio in ratios]
        return tuple(sigmoid(self._config.scale * q[end - 1] + self._config.offset) for end in rows[0].ends)


def parts(folder: Path, device: str, dtype: str) -> Parts:
    """Tokenizer and output heads of a folder whose config.json is an :class:`ImplicitConfig`; ConfigError if unfit."""
    config = ImplicitConfig.of(read_config(folder))
    folders = (locate(folder / config.tuned), locate(folder / config.reference))
    tokenizer, other = map(load_tokenizer, folders)
    if tokenizer.get_vocab() != other.get_vocab():
        raise ConfigError(f"the tokenizers of {folders[0]} and {folders[1]} differ; the two policies must share one")
    tuned, reference = (read_output_head(part, device=device, dtype=dtype) for part in folders)
    return Parts(ImplicitReader(tokenizer, tuned, reference, config), folders)
