"""One training stage: a model, a stream of batches, a checkpoint to resume from; it knows no family."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from transformers import LlamaForCausalLM

from adaptive_ttc.mini.data import IGNORE, Batch
from adaptive_ttc.mini.settings import Training

Loss = Callable[[LlamaForCausalLM, torch.Tensor, torch.Tensor], torch.Tensor]
Report = Callable[[int, int, float], None]

CHECKPOINT_EVERY = 100
WARMUP = 100


def writer_loss(model: LlamaForCausalLM, input_ids: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy in nats over the positions with a target; ids and targets are ``[rows, length]``."""
    hidden = model.model(input_ids=input_ids, use_cache=False).last_hidden_state
    asked = targets != IGNORE
    return torch.nn.functional.cross_entropy(model.lm_head(hidden[asked]), targets[asked])


@dataclass(frozen=True, slots=True)
class VerifierLoss:
    """Binary cross-entropy of the logit of ``+`` less that of ``-``, which is how the PRM is read."""

    plus: int
    minus: int

    def __call__(self, model: LlamaForCausalLM, input_ids: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Mean over the positions with a target of 0 or 1; ids and targets are ``[rows, length]``."""
        hidden = model.model(input_ids=input_ids, use_cache=False).last_hidden_state
        asked = targets != IGNORE
        direction = model.lm_head.weight[self.plus] - model.lm_head.weight[self.minus]
        logits = hidden[asked] @ direction
        return torch.nn.functional.binary_cross_entropy_with_logits(logits, targets[asked].to(logits.dtype))


def train(
    model: LlamaForCausalLM,
    loss_of: Loss,
    stream: Callable[[int], Iterator[tuple[int, Batch]]],
    settings: Training,
    folder: Path,
    report: Report,
) -> LlamaForCausalLM:
    """Train for ``settings.steps`` steps of AdamW with warm-up and cosine decay, resuming where it was cut.

    Args:
        stream: group number -> batches from that group on, each with the number to resume from.
        folder: where ``checkpoint.pt`` and ``log.jsonl`` live.
        report: called with (step, steps, mean loss since the last call).
    """
    folder.mkdir(parents=True, exist_ok=True)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=settings.learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    step, group = 0, 0
    saved = folder / "checkpoint.pt"
    if saved.exists():
        state = torch.load(saved, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        step, group = state["step"], state["group"]
    losses: list[float] = []
    began = time.perf_counter()
    model.train()
    batches = stream(group)
    try:
        while step < settings.steps:
            group, batch = next(batches)
            for part in optimizer.param_groups:
                part["lr"] = settings.learning_rate * _pace(step, settings.steps)
            loss = loss_of(model, torch.from_numpy(batch.input_ids), torch.from_numpy(batch.targets))
            loss.backward()
            _share_gradients(trained)
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
            step += 1
            if rank() == 0 and (step % 20 == 0 or step == settings.steps):
                mean = sum(losses) / len(losses)
                with (folder / "log.jsonl").open("a") as log:
                    seconds = round(time.perf_counter() - began, 1)
                    log.write(json.dumps({"step": step, "loss": round(mean, 5), "seconds": seconds}) + "\n")
                report(step, settings.steps, mean)
                losses.clear()
            if rank() == 0 and step % CHECKPOINT_EVERY == 0:
                _save(saved, model, optimizer, step, group)
    finally:
        if rank() == 0:
            _save(saved, model, optimizer, step, group)
    model.eval()
    return model


def rank() -> int:
    """This process's number among those that train together."""
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def _share_gradients(parameters: list[torch.nn.Parameter]) -> None:
    """Average the gradients over the processes, in one message."""
    if world() == 1:
        return
    flat = torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])
    dist.all_reduce(flat)
    flat /= world()
    position = 0
    for p in parameters:
        if p.grad is not None:
            p.grad.copy_(flat[position : position + p.numel()].view_as(p))
            position += p.numel()


def _pace(step: int, steps: int) -> float:
    warm = min(1.0, (step + 1) / WARMUP)
    return warm * (0.03 + 0.97 * 0.5 * (1 + math.cos(math.pi * step / steps)))


def _save(file: Path, model: LlamaForCausalLM, optimizer: torch.optim.Optimizer, step: int, group: int) -> None:
    partial = file.with_suffix(".partial")
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step, "group": group}
    torch.save(state, partial)
    partial.replace(file)
