"""How verifiers and policies are trained; it imports no torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import isfinite, sqrt
from typing import Any, Literal, get_args

from adaptive_ttc.errors import ConfigError

Kind = Literal["process", "outcome", "implicit"]
Balance = Literal["problem", "none"]
Template = Literal["own", "plain"]
Learn = Literal["steps", "outcome"]

KINDS: tuple[Kind, ...] = get_args(Kind)
BALANCES: tuple[Balance, ...] = get_args(Balance)
TEMPLATES: tuple[Template, ...] = get_args(Template)
LEARN: tuple[Learn, ...] = get_args(Learn)

LORA_ABOVE = 1_000_000_000
"""Parameters from which on the default is LoRA, as optimiser and gradients take 16 bytes for each that is trained."""


CPU_MICRO_BATCH = 1024
"""Padded tokens that a CPU computes at once: more are no faster there, and each takes memory in every layer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FitSettings:
    """How long and how fast a model is trained, whatever it learns; ConfigError for what is out of range.

    Attributes:
        lora: rank of LoRA; 0 trains all weights; None: all of them in models below :data:`LORA_ABOVE`, else rank 16.
        epochs: passes over the data.
        max_steps: optimiser steps at most; 0 trains nothing; None: as many as the epochs take.
        tokens: padded tokens of a batch at most.
        accumulate: batches of one optimiser step.
        micro_batch: padded tokens of a batch that are computed at once, at most; their gradients add up to those of
            the whole batch. A longer sample is computed by itself. None: :data:`CPU_MICRO_BATCH` on a CPU, else all.
        gradient_checkpointing: what the layers compute within is not kept for the gradient but computed again (arXiv
            1604.06174), which takes up to a third more time.
        learning_rate: the peak; None: see :meth:`peak`.
        warmup: share of the steps in which it rises; then it falls by a cosine to 3 %.
        clip: norm to which gradients are cut.
        held_out: share of the problems that is not trained on.
        eval_every: optimiser steps between two looks at them; None: eight looks.
        patience: looks without a better one, after which it stops.
        max_length: tokens of a sample, above which it is left out; None: the model's context.
        device: as torch names it; ``auto``: the GPU if there is one. Matrices are multiplied in bfloat16 there.
        seed: of the split, the order and the new weights.
    """

    lora: int | None = None
    epochs: float = 3.0
    max_steps: int | None = None
    tokens: int = 8192
    accumulate: int = 1
    micro_batch: int | None = None
    gradient_checkpointing: bool = False
    learning_rate: float | None = None
    warmup: float = 0.05
    clip: float = 1.0
    weight_decay: float = 0.01
    held_out: float = 0.1
    eval_every: int | None = None
    patience: int = 4
    max_length: int | None = None
    device: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"{name}={value} must be at least {least}")
        for name in ("epochs", "learning_rate", "clip"):
            _check_positive(name, getattr(self, name))
        if not 0 < self.held_out <= 0.5:
            raise ConfigError(f"held_out={self.held_out} is a share of the problems, above 0 and at most 0.5")
        if not 0 <= self.warmup < 1:
            raise ConfigError(f"warmup={self.warmup} is a share of the steps, at least 0 and below 1")

    def identity(self) -> dict[str, Any]:
        """What a checkpoint goes on under: all but where and in which pieces the same is computed."""
        apart = ("device", "micro_batch", "gradient_checkpointing")
        return {name: value for name, value in asdict(self).items() if name not in apart}

    def rank(self, parameters: int) -> int:
        """The rank of LoRA for a model of so many parameters; 0: all weights are trained."""
        return self.lora if self.lora is not None else 0 if parameters < LORA_ABOVE else 16

    def peak(self, parameters: int) -> float:
        """The peak learning rate: the one given, else 2e-4 for LoRA, else 1e-3 up to a million parameters and less by
        the root of what there are more (8.6e-5 at 135 million, 1.1e-5 at 8 billion).
        """
        if self.learning_rate is not None:
            return self.learning_rate
        return 2e-4 if self.rank(parameters) else 1e-3 * min(1.0, sqrt(1e6 / parameters))


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSettings(FitSettings):
    """How a verifier is trained, and what it learns; ConfigError for what is out of range.

    Attributes:
        kind: ``process``: a causal LM that answers ``+`` or ``-`` after every step, in RLHFlow's chats; ``outcome``: a
            sequence classifier of one label; ``implicit``: a policy whose log-ratio to a reference tells the outcome.
        learn: ``steps``: the label of every step; ``outcome``: the last one's alone; None: ``process`` learns the
            former, the others the latter.
        beta: factor of the log-ratio (arXiv 2412.01981).
        balance: ``problem`` weighs labels so that right and wrong ones count the same within every problem, and leaves
            out problems whose labels are all alike: how hard a problem is then tells nothing.
        template: ``plain`` puts a chat template of ours, in the manner of RLHFlow's Mistral one, in place of the
            tokenizer's own.
    """

    kind: Kind = "process"
    learn: Learn | None = None
    beta: float = 0.2
    balance: Balance = "problem"
    template: Template = "own"

    def __post_init__(self) -> None:
        FitSettings.__post_init__(self)
        for name, choices in (("kind", KINDS), ("balance", BALANCES), ("template", TEMPLATES)):
            if getattr(self, name) not in choices:
                raise ConfigError(f"{name}={getattr(self, name)!r} is not one of {', '.join(choices)}")
        if self.learn not in (None, *LEARN) or (self.kind, self.learn) == ("outcome", "steps"):
            raise ConfigError(f"learn={self.learn!r} is steps or outcome; an outcome verifier learns outcomes alone")
        _check_positive("beta", self.beta)

    @property
    def last_only(self) -> bool:
        """Whether the last label of a sample is learned alone."""
        return self.kind != "process" if self.learn is None else self.learn == "outcome"

    def peak(self, parameters: int) -> float:
        """That of every model; by default a tenth of it for ``implicit``, which must stay a policy."""
        usual = FitSettings.peak(self, parameters)
        return usual / 10 if self.kind == "implicit" and self.learning_rate is None else usual


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySettings(FitSettings):
    """How a policy is fine-tuned; ConfigError for what is out of range.

    Attributes:
        system_prompt: put before problems whose row brings no system message; empty for none; ``auto``: as a solver
            asks this model for mathematics.
    """

    epochs: float = 2.0
    system_prompt: str = "auto"

    def peak(self, parameters: int) -> float:
        """That of every model; by default three tenths of it, so that the policy stays what it was otherwise."""
        usual = FitSettings.peak(self, parameters)
        return 0.3 * usual if self.learning_rate is None else usual


def _check_positive(name: str, value: float | None) -> None:
    if value is not None and not (isfinite(value) and value > 0):
        raise ConfigError(f"{name}={value} must be above 0")


_LEAST = {
    "lora": 0, "max_steps": 0, "tokens": 1, "accumulate": 1, "micro_batch": 1, "weight_decay": 0, "eval_every": 1,
    "patience": 1, "max_length": 2,
}  # fmt: skip
