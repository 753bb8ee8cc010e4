"""A model in training, whatever it learns: loading, LoRA, what its head makes of rows, saving."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import torch
from torch.nn.functional import linear
from torch.utils.checkpoint import checkpoint

from adaptive_ttc.errors import ConfigError, install_command
from adaptive_ttc.prm.checkpoint import DTYPES, load_tokenizer, read_config, weight_sizes, without_progress_bars
from adaptive_ttc.prm.families.implicit import LOGITS_AT_ONCE
from adaptive_ttc.prm.format import Row
from adaptive_ttc.training.batching import bucketed
from adaptive_ttc.training.settings import CPU_MICRO_BATCH, FitSettings


class Rendered(Protocol):
    """What one row of a batch is made of."""

    @property
    def row(self) -> Row:
        """What the model reads."""

    @property
    def length(self) -> int:
        """Tokens of it."""


class DivergedError(Exception):
    """What a model makes of held-out rows is not a number."""


class Measured(Protocol):
    """Figures of held-out rows."""

    @property
    def better_by(self) -> float:
        """What decides which weights are kept, more being better."""

    def entries(self) -> dict[str, float | None]:
        """For a file."""


One = TypeVar("One", bound=Rendered)


class Trainee(ABC, Generic[One]):
    """A model, and how it learns from rows.

    Args:
        folder: the policy's that it begins from.
        settings: how it is trained.
        device: where, as torch names it.
    """

    task: ClassVar[str] = "CAUSAL_LM"  # as LoRA's library calls it
    model: Any

    def __init__(self, folder: Path, settings: FitSettings, device: str) -> None:
        self.folder, self.settings, self.device = folder, settings, device
        self.tokenizer = load_tokenizer(folder)
        self.parameters = sum(weight_sizes(folder).values())
        self.rank = settings.rank(self.parameters)
        # weights that are not trained need no more digits than they are multiplied with
        self.dtype = "bfloat16" if self.rank and device != "cpu" else "float32"
        self._load()
        if self.rank:
            self.model = _with_lora(self.model, self.rank, self.task)
        if settings.gradient_checkpointing:
            _checkpoint_layers(inner(self.model))

    @abstractmethod
    def _load(self) -> None:
        """Set ``model``; ConfigError if the policy is unfit."""

    @abstractmethod
    def loss(self, examples: Sequence[One]) -> torch.Tensor:
        """The loss in nats of one batch, summed by the weights of what is learned."""

    @abstractmethod
    def weight(self, examples: Sequence[One]) -> float:
        """What the loss of a batch is divided by to be a mean."""

    @abstractmethod
    def measured(self, held: Sequence[One], stop: Callable[[], bool]) -> Measured | None:
        """Figures of held-out rows; None where ``stop`` said so before they were all read.

        Raises:
            DivergedError: what the model makes of them is not a number.
        """

    @abstractmethod
    def note(self, look: Mapping[str, Any]) -> str:
        """What was measured, in words."""

    @abstractmethod
    def told(self, first: Mapping[str, Any], best: Mapping[str, Any]) -> str:
        """The result in one line, from the look at the untrained weights and that at those that were kept."""

    @abstractmethod
    def values(self, model: Any, states: torch.Tensor, targets: Sequence[int]) -> torch.Tensor:
        """What a model's head makes of hidden states ``[places, hidden]``; ``targets`` are the tokens after them."""

    def values_of(self, model: Any, examples: Sequence[One]) -> torch.Tensor:
        """What :meth:`values` makes of the hidden states of a model at all places of the rows."""
        ids = torch.zeros((len(examples), max(example.length for example in examples)), dtype=torch.long)
        for number, example in enumerate(examples):
            ids[number, : example.length] = torch.tensor(example.row.token_ids)
        index = [number for number, example in enumerate(examples) for _ in example.row.positions]
        columns = [place for example in examples for place in example.row.positions]
        targets = [target for example in examples for target in example.row.targets]
        with torch.autocast("cuda", torch.bfloat16, enabled=self.device.startswith("cuda")):
            # padding on the right changes nothing to its left
            states = model.base_model(input_ids=ids.to(self.device), use_cache=False).last_hidden_state
        return self.values(model, states[index, columns], targets).float()

    def batches(self, examples: Sequence[One]) -> Iterator[tuple[list[int], list[One]]]:
        """All rows, each once, with their numbers, in batches of about the same length that are computed at once."""
        usual = CPU_MICRO_BATCH if self.device == "cpu" else self.settings.tokens
        most = min(self.settings.tokens, self.settings.micro_batch or usual)
        for some in bucketed([example.length for example in examples], most):
            yield some, [examples[number] for number in some]

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Within it the model only reads: no gradients, no dropout."""
        self.model.eval()
        with torch.no_grad():
            yield
        self.model.train()

    def save_model(self, folder: Path, **entries: Any) -> None:
        """Write the model, LoRA merged, in the number format of the policy's weights; ``entries`` for its config."""
        if self.rank:
            self.model, self.rank = self.model.merge_and_unload(), 0
        for key, value in entries.items():
            setattr(self.model.config, key, value)
        with without_progress_bars():
            self.model.to(_stored(self.folder)).save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)


def device_of(settings: FitSettings) -> str:
    """Where is trained, as torch names it."""
    if settings.device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return settings.device


def head_of(model: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Weight and bias of a language model's output head."""
    head = model.get_output_embeddings()
    return head.weight, getattr(head, "bias", None)


def inner(model: Any) -> Any:
    """The model itself, where LoRA is put around it."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def log_probabilities(model: Any, states: torch.Tensor, targets: Sequence[int]) -> torch.Tensor:
    """Log-probabilities of the targets, in nats; logits are computed again for the gradient, not kept."""
    weight, bias = head_of(model)
    wanted = torch.tensor(targets, dtype=torch.long, device=states.device)
    rows = max(1, LOGITS_AT_ONCE // weight.shape[0])
    parts = []
    for some, one in zip(torch.split(states, rows), torch.split(wanted, rows), strict=True):
        parts.append(checkpoint(_next_token, some, weight, bias, one, use_reentrant=False))
    return torch.cat(parts)


def _next_token(
    states: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, wanted: torch.Tensor
) -> torch.Tensor:
    logits = linear(states.to(weight.dtype), weight, bias).float()
    return logits.gather(1, wanted[:, None])[:, 0] - logits.logsumexp(dim=1)


def steps_told(step: int) -> str:
    """After how many steps the weights were kept."""
    return f"{step} steps" if step else "0 steps (none was better, the untrained weights were kept)"


def _stored(folder: Path) -> torch.dtype:
    """The number format that a model's config names."""
    config = read_config(folder)
    name = str(config.get("dtype") or config.get("torch_dtype"))
    return getattr(torch, name) if name in DTYPES else torch.float32


def _checkpoint_layers(model: Any) -> None:
    """Compute activations within layers again for the gradient. ConfigError: the model has no way to."""
    # its name in newer releases of transformers, and in older ones
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    try:
        enable({"use_reentrant": False})
    except ValueError as error:
        raise ConfigError(f"{error}; leave --gradient-checkpointing out, and lower --micro-batch") from error


def _with_lora(model: Any, rank: int, task: str) -> Any:
    """The model with LoRA (arXiv 2106.09685) beside all linear layers but the head; ConfigError without peft."""
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise ConfigError(f"LoRA needs peft: {install_command('train')}; or train all weights (--full)") from error
    config = LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules="all-linear", task_type=task)
    return get_peft_model(model, config)
