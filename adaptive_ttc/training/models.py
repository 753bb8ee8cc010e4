"""The three kinds of verifiers in training: what is loaded, how logits are read, what is saved."""

from __future__ import annotations

import json
import math
import shutil
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from adaptive_ttc.errors import ConfigError
from adaptive_ttc.prm.base import ScoreRequest
from adaptive_ttc.prm.checkpoint import (
    load_causal,
    load_tokenizer,
    locate,
    read_output_head,
    without_progress_bars,
)
from adaptive_ttc.prm.families.implicit import ImplicitConfig, ImplicitReader
from adaptive_ttc.prm.families.outcome import OutcomeReader
from adaptive_ttc.prm.families.rlhflow import RLHFlowReader
from adaptive_ttc.prm.format import OutputHead, Reader
from adaptive_ttc.prm.registry import CONFIG_KEY
from adaptive_ttc.training.batching import Example
from adaptive_ttc.training.judge import Figures, figures
from adaptive_ttc.training.logistic import fit_logistic
from adaptive_ttc.training.settings import TrainSettings
from adaptive_ttc.training.trainee import (
    DivergedError,
    Trainee,
    device_of,
    head_of,
    inner,
    log_probabilities,
    steps_told,
)

PLAIN_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ '[INST] ' + message['content'] + ' [/INST]' }}{% else %}{{ ' ' + message['content'] + eos_token }}"
    "{% endif %}{% endfor %}"
)
"""Chats as RLHFlow's PRM on Mistral has them, for tokenizers without a template of their own."""
_FEW = 10  # problems with right and wrong samples, below which AUCs within them say little


class Verifier(Trainee[Example]):
    """A model, and the reader that the finished verifier will be read with.

    Args:
        folder: the policy's.
        settings: how it is trained.
        device: where, as torch names it.
    """

    reader_name: ClassVar[str]
    reader: Reader
    settings: TrainSettings

    def _load(self) -> None:
        if self.settings.template == "plain" or self.tokenizer.chat_template is None:
            self.tokenizer.chat_template = PLAIN_TEMPLATE
        self._load_model()

    @abstractmethod
    def _load_model(self) -> None:
        """Set ``model`` and ``reader``; ConfigError if the policy is unfit."""

    def logits(self, values: torch.Tensor, examples: Sequence[Example]) -> torch.Tensor:
        """The logits at the ends of all rows, one after the other, of the values at all places of the rows."""
        found, start = [], 0
        for example in examples:
            some = values[start : start + len(example.row.positions)]
            found.append(some[[end - 1 for end in example.row.ends]])
            start += len(some)
        return torch.cat(found)

    def prepare(self, examples: Sequence[Example]) -> None:
        """Compute what is needed of the rows before the model changes."""

    def forward(self, examples: Sequence[Example]) -> torch.Tensor:
        """The logits of :meth:`logits` of one batch of rows, in float32."""
        return self.logits(self.values_of(inner(self.model), examples), examples)

    def loss(self, examples: Sequence[Example]) -> torch.Tensor:
        """Binary cross-entropy in nats, summed over the labels by their weights."""
        logits = self.forward(examples)
        labels = logits.new_tensor([label for example in examples for label in example.labels])
        weights = logits.new_tensor([weight for example in examples for weight in example.weights])
        known = weights > 0
        return binary_cross_entropy_with_logits(logits[known], labels[known], weight=weights[known], reduction="sum")

    def weight(self, examples: Sequence[Example]) -> float:
        """The sum of the labels' weights."""
        return math.fsum(weight for example in examples for weight in example.weights)

    def logits_of(self, rows: Sequence[Example], stop: Callable[[], bool] = lambda: False) -> list[torch.Tensor]:
        """The logits of every row, in their order; fewer where ``stop`` says so."""
        found: dict[int, torch.Tensor] = {}
        with self.reading():
            for numbers, some in self.batches(rows):
                if stop():
                    break
                parts = torch.split(self.forward(some).cpu(), [len(example.row.ends) for example in some])
                found |= dict(zip(numbers, parts, strict=True))
        return [found[number] for number in sorted(found)]

    def measured(self, held: Sequence[Example], stop: Callable[[], bool]) -> Figures | None:
        """What the scores of held-out rows are worth."""
        logits = self.logits_of(held, stop)
        if len(logits) < len(held):
            return None
        if not all(bool(one.isfinite().all()) for one in logits):
            raise DivergedError
        scores = [one.sigmoid().tolist() for one in logits]
        return figures([example.graded for example in held], scores)

    def note(self, look: Mapping[str, Any]) -> str:
        """AUC, gain of the vote and loss, as far as there are any."""
        shown = {"AUC": look["auc_within"], "gain": look["gain"], "loss": look["train_loss"]}
        return ", ".join(f"{name} {value:.3f}" for name, value in shown.items() if value is not None)

    def told(self, first: Mapping[str, Any], best: Mapping[str, Any]) -> str:
        """What came of it, beside what it was before."""
        words = [f"{self.settings.kind} verifier after {steps_told(best['step'])}"]
        mixed = "1 held-out problem" if best["mixed"] == 1 else f"{best['mixed']} held-out problems"
        for name, key in ((f"AUC within {mixed}", "auc_within"), ("of steps", "auc_steps")):
            if best[key] is not None:
                words.append(f"{name} {best[key]:.3f} ({first[key]:.3f} untrained)")
        if best["gain"] is not None:
            words.append(f"weighted votes {best['weighted']:.3f}, majority {best['majority']:.3f}")
        few = f"; under {_FEW} problems with right and wrong samples say little" if best["mixed"] < _FEW else ""
        return ", ".join(words) + few

    def finish(self, held: Sequence[Example], logits: Sequence[torch.Tensor]) -> None:
        """Learn from the finished model's logits on held-out rows what is saved beside the weights."""

    def save(self, folder: Path) -> None:
        """Write a folder that ``load_prm`` reads."""
        self.save_model(folder, adaptive_ttc_prm=self.reader_name)

    def render(self, request: ScoreRequest) -> Any:
        """The one row of a sample; ConfigError for text that the format cannot hold."""
        (row,) = self.reader.render(request)
        return row


class ProcessVerifier(Verifier):
    """Binary cross-entropy of the logit of ``+`` less that of ``-`` after every step, which is how it is read."""

    reader_name: ClassVar[str] = "rlhflow"

    def _load_model(self) -> None:
        read_output_head(self.folder, device="cpu")  # refuses logits that are changed behind the head
        self.model, _ = load_causal(self.folder, device=self.device, dtype=self.dtype, threads=None)
        self.reader = reader = RLHFlowReader(self.tokenizer, OutputHead(*head_of(self.model)))
        self._plus, self._minus = reader.plus, reader.minus

    def values(self, model: Any, states: torch.Tensor, targets: Sequence[int]) -> torch.Tensor:
        """The logits of the label after each place."""
        weight, bias = head_of(model)
        shift = 0.0 if bias is None else bias[self._plus] - bias[self._minus]
        return states.float() @ (weight[self._plus].float() - weight[self._minus].float()) + shift


class OutcomeVerifier(Verifier):
    """Binary cross-entropy of a sequence classifier's one logit with the outcome."""

    reader_name: ClassVar[str] = "outcome"
    task: ClassVar[str] = "SEQ_CLS"

    def _load_model(self) -> None:
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
    """Cross-entropy of sigmoid(beta * log-ratio of a solution) with its outcome (arXiv 2412.01981, eq. 5), or of that
    up to every step's end with the step's label.

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

    def _load_model(self) -> None:
        read_output_head(self.folder, device="cpu")
        self.model, _ = load_causal(self.folder, device=self.device, dtype=self.dtype, threads=None)
        head = OutputHead(*head_of(self.model))
        self.reader = ImplicitReader(self.tokenizer, head, head, ImplicitConfig(tuned="tuned", reference="reference"))

    def values(self, model: Any, states: torch.Tensor, targets: Sequence[int]) -> torch.Tensor:
        """Log-probabilities of the targets, in nats."""
        return log_probabilities(model, states, targets)

    def prepare(self, examples: Sequence[Example]) -> None:
        """The reference's log-probabilities up to every step's end."""
        model = inner(self.model)
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
        self.save_model(folder / "tuned")
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
    device = device_of(settings)
    if settings.kind == "implicit":
        return ImplicitVerifier(folder, settings, device, None if reference is None else locate(reference))
    if reference is not None:
        raise ConfigError("a reference is what --kind implicit compares with; leave it out, or choose that kind")
    return (ProcessVerifier if settings.kind == "process" else OutcomeVerifier)(folder, settings, device)
