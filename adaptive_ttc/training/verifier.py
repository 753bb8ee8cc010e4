"""From a policy's folder and its graded samples to a verifier's folder, in one call."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from adaptive_ttc.answers.spaces.base import AnswerSpace
from adaptive_ttc.display.progress import Meter, progress
from adaptive_ttc.errors import ConfigError
from adaptive_ttc.prm.base import ScoreRequest
from adaptive_ttc.prm.checkpoint import fingerprint
from adaptive_ttc.training.batching import Example, examples_of
from adaptive_ttc.training.graded import Graded, GradedData, by_problem, held_out, read_graded
from adaptive_ttc.training.models import Verifier, load_verifier
from adaptive_ttc.training.result import Trained, check_folder, finish
from adaptive_ttc.training.settings import TrainSettings
from adaptive_ttc.training.trainer import Trainer


def train_verifier(
    policy: str | Path,
    data: Sequence[str | Path],
    out: str | Path,
    settings: TrainSettings,
    space: AnswerSpace,
    *,
    reference: str | Path | None = None,
    stop: Callable[[], bool] = lambda: False,
    show: Callable[[str, int], AbstractContextManager[Meter]] = progress,
) -> Trained:
    """Train a verifier, and write its folder with a card; the same call goes on where it was cut.

    Args:
        policy: folder or Hub name of the causal LM to begin from.
        data: files of graded samples, see :func:`adaptive_ttc.training.graded.read_graded`.
        out: the folder to write; a checkpoint lies there meanwhile.
        settings: what is trained, and how.
        space: in which answers are read for votes.
        reference: of ``implicit``: folder of the policy to compare with; None: ``policy`` as it is.
        stop: asked between batches; once true the checkpoint is written and KeyboardInterrupt raised.
        show: shows progress; called with what is counted and how many there are.

    Raises:
        ConfigError: data, policy, settings or the folder are unfit.
        CheckpointError: the checkpoint in the folder is of another call.
    """
    folder = Path(out)
    check_folder(folder)
    graded = read_graded(data, space)
    learned = [one.last_only() if settings.last_only else one for one in graded.rows]
    rows, held_rows = held_out(learned, settings.held_out, settings.seed)
    verifier = load_verifier(policy, settings, reference)
    train, held, too_long = _examples(verifier, rows, held_rows)
    source = fingerprint(verifier.folder)
    other = None if reference is None else fingerprint(verifier.reference)  # type: ignore[attr-defined]
    identity = json.dumps([settings.identity(), graded.digest, source, other, space.name], sort_keys=True)
    folder.mkdir(parents=True, exist_ok=True)
    verifier.prepare([*train, *held])
    rank = verifier.rank
    trainer = Trainer(verifier, train, held, folder, identity)
    with show("steps", trainer.steps) as meter:
        trainer.run(stop, meter)
    verifier.finish(held, verifier.logits_of(held))
    verifier.save(folder)
    made_of = {
        "kind": settings.kind, "policy": str(policy), "policy_fingerprint": source,
        "reference": None if reference is None else str(reference), "reference_fingerprint": other,
        "data": [str(path) for path in data], "data_sha256": graded.digest, "answers": space.name,
        "counts": _counts(graded, train, held, too_long),
    }  # fmt: skip
    return finish(folder, made_of, settings, trainer, rank)


def _examples(
    verifier: Verifier, rows: Sequence[Graded], held_rows: Sequence[Graded]
) -> tuple[list[Example], list[Example], int]:
    """Rows to learn from, held-out ones, and how many were longer than the model reads; ConfigError: none is left."""
    limits = [verifier.settings.max_length, getattr(verifier.model.config, "max_position_embeddings", None)]
    longest = min([limit for limit in limits if limit is not None], default=math.inf)
    kept: list[list[tuple[Graded, Any]]] = []
    for some in (rows, held_rows):
        pairs = [(one, verifier.render(ScoreRequest(one.question, one.steps))) for one in some]
        kept.append([(one, row) for one, row in pairs if len(row.token_ids) <= longest])
    too_long = len(rows) + len(held_rows) - sum(map(len, kept))
    settings = verifier.settings
    train, held = (
        examples_of([one for one, _ in some], [row for _, row in some], balance=balance)
        for some, balance in zip(kept, (settings.balance, "none"), strict=True)
    )
    train = [example for example in train if any(example.weights)]
    if not train or not held:
        why = f"{too_long} samples are longer than {longest} tokens" if too_long else "no problem has both labels"
        raise ConfigError(
            f"nothing is left to learn from or to measure on: {why}; draw more samples a problem, allow longer ones, "
            "or take --balance none"
        )
    return train, held, too_long


def _counts(graded: GradedData, train: Sequence[Example], held: Sequence[Example], too_long: int) -> dict[str, int]:
    labels = [label for row in graded.rows for label in row.labels if not math.isnan(label)]
    return {
        "samples": len(graded.rows), "without_label": graded.left_out, "too_long": too_long,
        "problems": len(by_problem(graded.rows)), "labels": len(labels), "right": sum(one > 0.5 for one in labels),
        "train_samples": len(train), "train_problems": len({one.graded.key for one in train}),
        "held_out_samples": len(held), "held_out_problems": len({one.graded.key for one in held}),
    }  # fmt: skip
