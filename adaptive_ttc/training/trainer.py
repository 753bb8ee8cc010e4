"""The optimiser's loop: warm-up and cosine, looks at held-out problems, early stop, a checkpoint to go on from."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Generic

import torch

from adaptive_ttc.display.progress import Meter
from adaptive_ttc.errors import CheckpointError, ConfigError
from adaptive_ttc.training.batching import Schedule
from adaptive_ttc.training.trainee import DivergedError, One, Trainee

CHECKPOINT = "checkpoint.pt"
PARTIAL = "checkpoint.partial"
"""A checkpoint that is being written."""
SAVE_EVERY = 120.0
"""Seconds between two checkpoints, beside those at every look."""


class Trainer(Generic[One]):
    """Trains a model inside a folder, and goes on from the checkpoint there.

    Args:
        trainee: what is trained.
        train: the rows to learn from.
        held: the rows of other problems.
        folder: where the checkpoint is.
        identity: of settings, data and policy; a checkpoint of another one is refused.

    Attributes:
        looks: what was measured at which step, and the loss of training since the look before.
    """

    def __init__(
        self, trainee: Trainee[One], train: Sequence[One], held: Sequence[One], folder: Path, identity: str
    ) -> None:
        settings = trainee.settings
        self.trainee, self.train, self.held, self.settings = trainee, train, held, settings
        lengths = tuple(example.length for example in train)
        self.schedule = Schedule(lengths, settings.tokens, settings.accumulate, settings.seed)
        steps = math.ceil(settings.epochs * self.schedule.steps_per_epoch)
        self.steps = steps if settings.max_steps is None else min(steps, settings.max_steps)
        self.every = settings.eval_every or max(1, math.ceil(self.steps / 8))
        self.looks: list[dict[str, Any]] = []
        self.step, self.best_step, self._best = 0, 0, -math.inf
        self._file, self._identity = folder / CHECKPOINT, identity
        self._trained = {name: p for name, p in trainee.model.named_parameters() if p.requires_grad}
        self._kept = self._weights()
        self._peak = settings.peak(trainee.parameters)
        self._optimizer = torch.optim.AdamW(
            self._trained.values(), lr=self._peak, betas=(0.9, 0.98), weight_decay=settings.weight_decay
        )
        self._losses: list[float] = []
        torch.manual_seed(settings.seed)
        if self._file.exists():
            self._resume()

    def run(self, stop: Callable[[], bool], meter: Meter) -> None:
        """Train to the end or the early stop, and put the best weights back; a call that was cut goes on.

        Raises:
            KeyboardInterrupt: ``stop`` said so; the checkpoint is written.
            ConfigError: the loss, or what it makes of held-out rows, is not a number.
        """
        meter.start_at(self.step)
        self.trainee.model.train()
        saved = time.monotonic()
        while True:
            if (self.step % self.every == 0 or self.step == self.steps) and not self._looked():
                if not self._look(stop):
                    self._save_and_leave()
                self._save()
                saved = time.monotonic()
                meter.update(self.step, self.trainee.note(self.looks[-1]))
            if self.step >= self.steps or self._settled():
                break
            if stop():
                self._save_and_leave()
            self._advance()
            meter.update(self.step)
            if time.monotonic() - saved > SAVE_EVERY:
                self._save()
                saved = time.monotonic()
        self._put(self._kept)
        self.trainee.model.eval()

    def _looked(self) -> bool:
        return any(look["step"] == self.step for look in self.looks)

    def _look(self, stop: Callable[[], bool]) -> bool:
        """Measure and remember; False where it was stopped before it was done."""
        try:
            found = self.trainee.measured(self.held, stop)
        except DivergedError:
            raise self._diverged("what it makes of held-out rows") from None
        if found is None:
            return False
        mean = math.fsum(self._losses) / len(self._losses) if self._losses else None
        self.looks.append({"step": self.step, "train_loss": mean, **found.entries()})
        self._losses = []
        if found.better_by > self._best:
            self._best, self.best_step, self._kept = found.better_by, self.step, self._weights()
        return True

    def _settled(self) -> bool:
        """Whether the best look lies so far back that no better one is waited for."""
        return len([look for look in self.looks if look["step"] > self.best_step]) >= self.settings.patience

    def _advance(self) -> None:
        """One optimiser step; its loss is the mean over what its batches teach, by their weights."""
        batches = [[self.train[number] for number in some] for some in self.schedule.step(self.step)]
        total = math.fsum(map(self.trainee.weight, batches))
        for part in self._optimizer.param_groups:
            part["lr"] = self._peak * pace(self.step, self.steps, math.ceil(self.settings.warmup * self.steps))
        summed = 0.0
        for batch in batches:
            for _, some in self.trainee.batches(batch):
                loss = self.trainee.loss(some) / total
                loss.backward()
                summed += loss.item()
        if not math.isfinite(summed):
            raise self._diverged("the loss")
        torch.nn.utils.clip_grad_norm_(self._trained.values(), self.settings.clip)
        self._optimizer.step()
        self._optimizer.zero_grad()
        self._losses.append(summed)
        self.step += 1

    def _diverged(self, what: str) -> ConfigError:
        """The remedy; a checkpoint is of its learning rate, so that another one needs another folder."""
        if not self.step:
            return ConfigError(f"{what} is not a number before anything is learned: give another --policy")
        folder = self._file.parent
        return ConfigError(
            f"{what} is not a number after step {self.step}: lower --learning-rate ({self._peak:g}), and remove "
            f"{folder} or give another --out"
        )

    def _weights(self) -> dict[str, torch.Tensor]:
        return {name: p.detach().to("cpu", copy=True) for name, p in self._trained.items()}

    def _put(self, weights: dict[str, torch.Tensor]) -> None:
        with torch.no_grad():
            for name, p in self._trained.items():
                p.copy_(weights[name])

    def _save_and_leave(self) -> None:
        self._save()
        raise KeyboardInterrupt

    def _save(self) -> None:
        state = {
            "identity": self._identity, "step": self.step, "best_step": self.best_step, "best": self._best,
            "looks": self.looks, "losses": self._losses, "weights": self._weights(), "kept": self._kept,
            "optimizer": self._optimizer.state_dict(), "rng": torch.get_rng_state(),
            "gpu": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }  # fmt: skip
        partial = self._file.with_name(PARTIAL)
        torch.save(state, partial)
        partial.replace(self._file)

    def _resume(self) -> None:
        try:
            state = torch.load(self._file, weights_only=True, map_location="cpu")
        except Exception as error:  # a damaged file raises whatever it likes
            raise CheckpointError(f"{self._file} cannot be read ({error}); remove it to begin anew") from error
        if state["identity"] != self._identity:
            raise CheckpointError(
                f"{self._file} is of other settings, data or another policy; give the same ones, or another --out"
            )
        self.step, self.best_step, self._best = state["step"], state["best_step"], state["best"]
        self.looks, self._losses, self._kept = state["looks"], state["losses"], state["kept"]
        self._put(state["weights"])
        self._optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["rng"])
        if state["gpu"] and torch.cuda.is_available():
            torch.cuda.set_rng_state_all(state["gpu"])


def pace(step: int, steps: int, warmup: int) -> float:
    """The share of the peak learning rate: a linear rise over the warm-up, and a cosine down to 3 %."""
    warm = min(1.0, (step + 1) / max(1, warmup))
    return warm * (0.03 + 0.97 * 0.5 * (1 + math.cos(math.pi * step / steps)))
