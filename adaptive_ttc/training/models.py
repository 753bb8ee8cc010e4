"""The three kinds of verifiers in training: what is loaded, how logits are read, what is saved."""

from __future__ import annotations

import json
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch.nn.functional import linear
from torch.utils.checkpoint import checkpoint

from adaptive_ttc.errors import ConfigError, install_command
from adaptive_ttc.prm.base import ScoreRequest
from adaptive_ttc.prm.checkpoint import (
    DTYPES,
    load_causal,
    load_tokenizer,
    locate,
    read_config,
    read_output_head,
    weight_sizes,
    without_progress_bars,
)
from adaptive_ttc.prm.families.implicit import LOGITS_AT_ONCE, ImplicitConfig, ImplicitReader
from adaptive_ttc.prm.families.outcome import OutcomeReader
from adaptive_ttc.prm.families.rlhflow import RLHFlowReader
from adaptive_ttc.prm.format import OutputHead, Reader
from adaptive_ttc.prm.registry import CONFIG_KEY
from adaptive_ttc.training.batching import Example, bucketed
from adaptive_ttc.training.logistic import fit_logistic
from adaptive_ttc.training.settings import TrainSettings

PLAIN_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ '[INST] ' + message['content'] + ' [/INST]' }}{% else %}{{ ' ' + message['content'] + eos_token }}"
    "{% endif %}{% endfor %}"
)
"""Chats as RLHFlow's PRM on Mistral has them, for tokenizers without a template of their own."""


class Verifier(ABC):
    """A model, and the reader that the finished verifier will be read with.

    Args:
        folder: the policy's.
        settings: how it is trained.
        device: where, as torch names it.
    """

    last_only: ClassVar[bool] = True  # whether it learns the outcome alone
    reader_name: ClassVar[str]
    task: ClassVar[str] = "CAUSAL_LM"  # as LoRA's library calls it
    reader: Reader
    model: Any

    def __init__(self, folder: Path, settings: TrainSettings, device: str) -> None:
        self.folder, self.settings, self.device = folder, settings, device
        self.tokenizer = load_tokenizer(folder)
        if settings.template == "plain" or self.tokenizer.chat_template is None:
            self.tokenizer.chat_template = PLAIN_TEMPLATE
        self.parameters = sum(weight_sizes(folder).values())
        self.rank = settings.rank(self.parameters)
        # weights that are not trained need no more digits than they are multiplied with
        self.dtype = "bfloat16" if self.rank and device != "cpu" else "float32"
        self._load()
        if self.rank:
            self.model = _with_lora(self.model, self.rank, self.task)

    @abstractmethod
    def _load(self) -> None:
        """Set ``model`` and ``reader``; ConfigError if the policy is unfit."""

    @abstractmethod
    def values(self, model: Any, states: torch.Tensor, targets: Sequence[int]) -> torch.Tensor:
        """What a model's head makes of hidden states ``[places, hidden]``; ``targets`` are the tokens after them."""

    def logits(self, values: torch.Tensor, examples: Sequence[Example]) -> torch.Tensor:
        """The logits at the ends of all rows, one after the other, of the values at all places of the rows."""
        found, start = [], 0
        for example in examples:
            some = values[start : start + len(example.row.positions)]
            found.append(some[[end - 1 for end in example.row.ends]])
            start += len(some)
        return torch.cat(found)

    def prepare(self, examples: Sequence[Example]) -> None:  # noqa: B027
        """Compute what is needed of the rows before the model changes."""

    def forward(self, examples: Sequence[Example]) -> torch.Tensor:
        """The logits of :meth:`logits` of one batch of rows, in float32."""
        return self.logits(self.values_of(_inner(self.model), examples), examples)

    def values_of(self, model: Any, examples: Sequence[Example]) -> torch.Tensor:
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

    def batches(self, examples: Sequence[Example]) -> Iterator[tuple[list[int], list[Example]]]:
        """All rows, each once, with their numbers, in batches of about the same length."""
        for some in bucketed([example.length for example in examples], self.settings.tokens):
            yield some, [examples[number] for number in some]

    def finish(self, held: Sequence[Example], logits: Sequence[torch.Tensor]) -> None:  # noqa: B027
        """Learn from the finished model's logits on held-out rows what is saved beside the weights."""

    def save(self, folder: Path) -> None:
        """Write a folder that ``load_prm`` reads, LoRA merged, in the number format of the policy's weights."""
        self._save_model(folder, adaptive_ttc_prm=self.reader_name)

    def _save_model(self, folder: Path, **entries: Any) -> None:
        if self.rank:
            self.model, self.rank = self.model.merge_and_unload(), 0
        for key, value in entries.items():
            setattr(self.model.config, key, value)
        with without_progress_bars():
            self.model.to(_stored(self.folder)).save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    def render(self, request: ScoreRequest) -> Any:
        """The one row of a sample; ConfigError for text that the format cannot hold."""
        (row,) = self.reader.render(request)
        return row


class ProcessVerifier(Verifier):
    """Binary cross-entropy of the logit of ``+`` less that of ``-`` after every step, which is how it is read."""

    last_only: ClassVar[bool] = False
    reader_name: ClassVar[str] = "rlhflow"

    def _load(self) -> None:
        read_output_head(self.folder, device="cpu")  # refuses logits that are changed behind the head
        self.model, _ = load_causal(self.folder, device=self.device, dtype=self.dtype, threads=None)
        self.reader = reader = RLHFlowReader(self.tokenizer, OutputHead(*_head(self.model)))
        self._plus, self._minus = reader.plus, reader.minus

    def values(self, model: Any, states: torch.Tensor, targets: Sequence[int]) -> torch.Tensor:
        """The logits of the label after each place."""
        weight, bias = _head(model)
        shift = 0.0 if bias is None else bias[self._plus] - bias[self._minus]
        return states.float() @ (weight[self._plus].float() - weight[self._minus].float()) + shift


class OutcomeVerifier(Verifier):
    """Binary cross-entropy of a sequence classifier's one logit with the outcome."""

    reader_name: ClassVar[str] = "outcome"
    task: ClassVar[str] = "SEQ_CLS"

    def _load(self) -> None:
        from transformers import AutoModelForSequenceClassification
        from transformers.utils import logging

        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        torch.manual_seed(self.settings.seed)  # of the new head
        shown = logging.get_verbosity()
        logging.set_verbosity_error()  # it would report that the head is new
        try:
            with without_progress_bars():
                model = AutoModelForSequenceClassification.from_pretrained(
                    self.folder, num_labels=1, dtype=getattr(torch, self.dtype), use_safetensors=True
                )
        except (OSError, ValueError) as error:
            raise ConfigError(f"{self.folder} cannot be made a classifier: {error}") from error
        finally:
            logging.set_verbosity(shown)
        if getattr(getattr(model, "score", None), "weight", None) is None:
            raise ConfigError(f"{type(model).__name__} has no head score.weight; train --kind process of this model")
        model.config.pad_token_id = self.tokenizer.pad_token_id
        self.model = model.to(self.device)
        self.reader = OutcomeReader(self.tokenizer, None, self.tokenizer.pad_token_id)

    def values(self, model: Any, states: torch.Tensor, targets: Sequence[int]) -> torch.Tensor:
        """The logits."""
        logits: torch.Tensor = model.score(states.to(next(model.score.parameters()).dtype))[:, 0]
        return logits

    def logits(self, values: torch.Tensor, examples: Sequence[Example]) -> torch.Tensor:
        """A row's one logit, for each of its steps."""
        return torch.cat([value.expand(len(one.row.ends)) for value, one in zip(values, examples, strict=True)])


class ImplicitVerifier(Verifier):
    """Cross-entropy of sigmoid(beta * log-ratio of a solution) with its outcome (arXiv 2412.01981, eq. 5).

    Args:
        reference: folder of the policy that it is compared with; None: what the policy is before it is trained.
    """

    reader_name: ClassVar[str] = "implicit"

    def __init__(self, folder: Path, settings: TrainSettings, device: str, reference: Path | None = None) -> None:
        self.reference, self.scale, self.offset = reference or folder, 1.0, 0.0
        self._before: dict[int, torch.Tensor] = {}
        if load_tokenizer(self.reference).get_vocab() != load_tokenizer(folder).get_vocab():
            raise ConfigError(f"the tokenizers of {folder} and {self.reference} differ; the two must share one")
        super().__init__(folder, settings, device)

    def _load(self) -> None:
        read_output_head(self.folder, device="cpu")
        self.model, _ = load_causal(self.folder, device=self.device, dtype=self.dtype, threads=None)
        head = OutputHead(*_head(self.model))
        self.reader = ImplicitReader(self.tokenizer, head, head, ImplicitConfig(tuned="tuned", reference="reference"))

    def values(self, model: Any, states: torch.Tensor, targets: Sequence[int]) -> torch.Tensor:
        """Log-probabilities of the targets, in nats; logits are computed again for the gradient, not kept."""
        weight, bias = _head(model)
        wanted = torch.tensor(targets, dtype=torch.long, device=states.device)
        rows = max(1, LOGITS_AT_ONCE // weight.shape[0])
        parts = []
        for some, one in zip(torch.split(states, rows), torch.split(wanted, rows), strict=True):
            parts.append(checkpoint(_next_token, some, weight, bias, one, use_reentrant=False))
        return torch.cat(parts)

    def prepare(self, examples: Sequence[Example]) -> None:
        """The reference's log-probabilities up to every step's end."""
        model = _inner(self.model)
        if self.reference != self.folder:
            model, _ = load_causal(self.reference, device=self.device, dtype=self.dtype, threads=None)
        with torch.no_grad():
            for _, some in self.batches(examples):
                sums = self._sums(self.values_of(model, some), some)
                for example, one in zip(some, sums, strict=True):
                    self._before[id(example)] = one.cpu()

    def logits(self, values: torch.Tensor, examples: Sequence[Example]) -> torch.Tensor:
        """beta * q at every step's end."""
        sums = self._sums(values, examples)
        before = [self._before[id(example)].to(values.device) for example in examples]
        return self.settings.beta * torch.cat([a - b for a, b in zip(sums, before, strict=True)])

    def _sums(self, values: torch.Tensor, examples: Sequence[Example]) -> list[torch.Tensor]:
        parts = torch.split(values, [len(example.row.positions) for example in examples])
        return [
            part.double().cumsum(0)[[end - 1 for end in example.row.ends]].float()
            for part, example in zip(parts, examples, strict=True)
        ]

    def finish(self, held: Sequence[Example], logits: Sequence[torch.Tensor]) -> None:
        """Fit the scale and the offset of the sigmoid."""
        known = [(one[-1], example.labels[-1]) for one, example in zip(logits, held, strict=True)]
        ratios, labels = (torch.tensor([float(v) for v in part]) for part in zip(*known, strict=True))
        sure = ~labels.isnan()
        scale, offset = fit_logistic(ratios[sure], labels[sure])
        if scale > 0:
            self.scale, self.offset = scale, offset

    def save(self, folder: Path) -> None:
        """Write both policies, and the config that tells how they are compared."""
        self._save_model(folder / "tuned")
        target = folder / "reference"
        target.mkdir(parents=True, exist_ok=True)
        for pattern in ("*.json", "*.jinja", "*.safetensors", "*.model"):
            for file in self.reference.glob(pattern):
                shutil.copyfile(file, target / file.name)
        self.tokenizer.save_pretrained(target)
        entries = {"tuned": "tuned", "reference": "reference", "beta": self.settings.beta}
        config = {CONFIG_KEY: "implicit", **entries, "scale": self.scale, "offset": self.offset}
        (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")


def load_verifier(policy: str | Path, settings: TrainSettings, reference: str | Path | None = None) -> Verifier:
    """Load what a kind trains of a policy's folder or Hub name; ConfigError if it is unfit."""
    folder = locate(policy)
    device = settings.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if settings.kind == "implicit":
        return ImplicitVerifier(folder, settings, device, None if reference is None else locate(reference))
    if reference is not None:
        raise ConfigError("a reference is what --kind implicit compares with; leave it out, or choose that kind")
    return (ProcessVerifier if settings.kind == "process" else OutcomeVerifier)(folder, settings, device)


def _stored(folder: Path) -> torch.dtype:
    """The number format that a model's config names."""
    config = read_config(folder)
    name = str(config.get("dtype") or config.get("torch_dtype"))
    return getattr(torch, name) if name in DTYPES else torch.float32


def _with_lora(model: Any, rank: int, task: str) -> Any:
    """The model with LoRA (arXiv 2106.09685) beside all linear layers but the head; ConfigError without peft."""
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise ConfigError(f"LoRA needs peft: {install_command('train')}; or train all weights (--full)") from error
    config = LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules="all-linear", task_type=task)
    return get_peft_model(model, config)


def _head(model: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Weight and bias of a language model's output head."""
    head = model.get_output_embeddings()
    return head.weight, getattr(head, "bias", None)


def _inner(model: Any) -> Any:
    """The model itself, where LoRA is put around it."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _next_token(
    states: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, wanted: torch.Tensor
) -> torch.Tensor:
    logits = linear(states.to(weight.dtype), weight, bias).float()
    return logits.gather(1, wanted[:, None])[:, 0] - logits.logsumexp(dim=1)
