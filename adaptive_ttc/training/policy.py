"""From a policy's folder and right solutions to the folder of a better policy, in one call.

Fine-tuning on what the policy itself found and a checker confirmed is rejection-sampling fine-tuning
(arXiv 2308.01825); done again with the policy that came of it, expert iteration (STaR, arXiv 2203.14465; ReST,
arXiv 2308.08998).
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from adaptive_ttc.display.progress import Meter, progress
from adaptive_ttc.errors import ConfigError, PromptWarning, warn
from adaptive_ttc.prm.checkpoint import fingerprint, load_causal, locate, read_config
from adaptive_ttc.prm.format import ControlTokens, Row
from adaptive_ttc.prm.registry import CONFIG_KEY
from adaptive_ttc.training.result import Trained, check_folder, finish
from adaptive_ttc.training.settings import PolicySettings
from adaptive_ttc.training.solutions import Solved, SolvedData, held_out_solutions, read_solutions
from adaptive_ttc.training.trainee import DivergedError, Trainee, device_of, inner, log_probabilities, steps_told
from adaptive_ttc.training.trainer import Trainer

_CHAT_MODEL = "adaptive_ttc.policies.chat_model"
"""What renders prompts for all engines, which are built on the core; imported when a policy is trained."""

_ITS_OWN = ("tokenizer*", "chat_template*", "*.jinja", "generation_config.json", "special_tokens_map.json", "vocab.*",
            "merges.txt", "added_tokens.json", "*.model")  # fmt: skip
"""Files of the policy's folder that training leaves as they are."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """A solution as the policy would write it.

    Attributes:
        key: of its problem.
        row: prompt and solution; its places are those before the solution's tokens and its end token.
    """

    key: str
    row: Row

    @property
    def length(self) -> int:
        """Tokens that the model reads."""
        return len(self.row.token_ids)


@dataclass(frozen=True, slots=True)
class Losses:
    """Of held-out solutions.

    Attributes:
        loss: mean over their tokens, in nats.
        stops: mean probability of the end token where a solution ends.
    """

    loss: float
    stops: float

    @property
    def better_by(self) -> float:
        """The smaller loss is the better one."""
        return -self.loss

    def entries(self) -> dict[str, float | None]:
        """For a file."""
        return {name: round(value, 5) for name, value in asdict(self).items()}


class PolicyTrainee(Trainee[Rendered]):
    """A causal LM that learns to write solutions and to end them; prompts are only read.

    Args:
        folder: the policy's.
        settings: how it is trained.
        device: where, as torch names it.
    """

    settings: PolicySettings

    def _load(self) -> None:
        config = read_config(self.folder)
        if CONFIG_KEY in config:
            raise ConfigError(f"{self.folder} is a PRM; give the folder of a policy")
        self.model, _ = load_causal(self.folder, device=self.device, dtype=self.dtype, threads=None)
        # as an engine reads it that samples
        chat_model = import_module(_CHAT_MODEL)
        self.chat_model = chat_model.read_chat_model(self.folder, system_prompt=self.settings.system_prompt)
        self._safe = ControlTokens(self.tokenizer).broken_up

    def render(self, one: Solved) -> Rendered:
        """The row of a solution; ConfigError if the chat template refuses the problem.

        Control tokens in a solution's text are broken up by a space, unless the model thinks: its tags may be such.
        """
        chat = self.chat_model.chat
        text = one.solution if chat.thinking else self._safe(one.solution)
        prompt = chat.encode(one.problem)
        ids = (*prompt, *self.tokenizer.encode(text, add_special_tokens=False), self.chat_model.end)
        return Rendered(one.key, Row.predicting(ids, len(prompt), [len(ids)]))

    def values(self, model: Any, states: torch.Tensor, targets: Sequence[int]) -> torch.Tensor:
        """Log-probabilities of the targets, in nats."""
        return log_probabilities(model, states, targets)

    def loss(self, examples: Sequence[Rendered]) -> torch.Tensor:
        """Minus the log-probability of the solutions."""
        return -self.values_of(inner(self.model), examples).sum()

    def weight(self, examples: Sequence[Rendered]) -> float:
        """The number of the solutions' tokens."""
        return float(sum(len(example.row.targets) for example in examples))

    def measured(self, held: Sequence[Rendered], stop: Callable[[], bool]) -> Losses | None:
        """Loss and stops of held-out solutions."""
        total, stops = 0.0, 0.0
        with self.reading():
            for _, some in self.batches(held):
                if stop():
                    return None
                values = self.values_of(inner(self.model), some).double().cpu()
                total -= float(values.sum())
                parts = torch.split(values, [len(example.row.targets) for example in some])
                stops += sum(float(part[-1].exp()) for part in parts)
        if not math.isfinite(total):
            raise DivergedError
        return Losses(total / self.weight(held), stops / len(held))

    def note(self, look: Mapping[str, Any]) -> str:
        """The held-out loss."""
        return f"held-out loss {look['loss']:.4f}"

    def told(self, first: Mapping[str, Any], best: Mapping[str, Any]) -> str:
        """The held-out loss before and after."""
        return (
            f"policy after {steps_told(best['step'])}, loss on held-out problems {best['loss']:.4f} nats a token "
            f"({first['loss']:.4f} untrained)"
        )

    def save(self, folder: Path) -> None:
        """Write a folder that every engine reads, with the policy's own tokenizer, template and generation config."""
        self.save_model(folder)
        for pattern in _ITS_OWN:
            for file in self.folder.glob(pattern):
                shutil.copyfile(file, folder / file.name)


def train_policy(
    policy: str | Path,
    data: Sequence[str | Path],
    out: str | Path,
    settings: PolicySettings,
    *,
    stop: Callable[[], bool] = lambda: False,
    show: Callable[[str, int], AbstractContextManager[Meter]] = progress,
) -> Trained:
    """Fine-tune a policy, and write its folder with a card; the same call goes on where it was cut.

    Args:
        policy: folder or Hub name of a causal LM with a chat template.
        data: files of right solutions, see :func:`adaptive_ttc.training.solutions.read_solutions`.
        out: the folder to write; a checkpoint lies there meanwhile.
        settings: how it is trained.
        stop: asked between batches; once true the checkpoint is written and KeyboardInterrupt raised.
        show: shows progress; called with what is counted and how many there are.

    Raises:
        ConfigError: data, policy, settings or the folder are unfit.
        CheckpointError: the checkpoint in the folder is of another call.
    """
    folder = Path(out)
    check_folder(folder)
    solved = read_solutions(data)
    rows, held_rows = held_out_solutions(solved.rows, settings.held_out, settings.seed)
    trainee = PolicyTrainee(locate(policy), settings, device_of(settings))
    train, held = (_fitting(trainee, some) for some in (rows, held_rows))
    too_long = len(solved.rows) - len(train) - len(held)
    if not train or not held:
        raise ConfigError(f"nothing is left to learn or to measure on: {too_long} solutions are too long to be read")
    source = trainee.chat_model.fingerprint
    identity = json.dumps(["policy", settings.identity(), solved.digest, source], sort_keys=True)
    folder.mkdir(parents=True, exist_ok=True)
    rank = trainee.rank
    trainer = Trainer(trainee, train, held, folder, identity)
    with show("steps", trainer.steps) as meter:
        trainer.run(stop, meter)
    trainee.save(folder)
    _check_prompt(trainee, folder)
    made_of = {
        "kind": "policy", "policy": str(policy), "policy_fingerprint": fingerprint(trainee.folder),
        "data": [str(path) for path in data], "data_sha256": solved.digest,
        "counts": _counts(solved, train, held, too_long),
    }  # fmt: skip
    return finish(folder, made_of, settings, trainer, rank)


def _fitting(trainee: PolicyTrainee, rows: Sequence[Solved]) -> list[Rendered]:
    """The rows that are not longer than the model reads."""
    limits = [trainee.settings.max_length, trainee.chat_model.positions]
    longest = min([limit for limit in limits if limit is not None], default=math.inf)
    return [one for one in map(trainee.render, rows) if one.length <= longest]


def _check_prompt(trainee: PolicyTrainee, folder: Path) -> None:
    """Warn where the finished folder would by default be asked otherwise than it was trained."""
    asked = trainee.settings.system_prompt
    made = import_module(_CHAT_MODEL).read_chat_model(folder, system_prompt="auto" if asked == "auto" else None)
    used = trainee.chat_model.chat.system_prompt
    if asked == "auto" and made.chat.system_prompt != used:
        warn(
            f"{folder} is trained with the system prompt {used!r}, which a folder of its name is not asked with by "
            "default: pass it as system_prompt (--system-prompt), or rename the folder",
            PromptWarning,
        )


def _counts(solved: SolvedData, train: Sequence[Rendered], held: Sequence[Rendered], too_long: int) -> dict[str, int]:
    return {
        "solutions": len(solved.rows), "repeated": solved.repeated, "too_long": too_long,
        "problems": len({one.key for one in solved.rows}), "train_solutions": len(train),
        "train_problems": len({one.key for one in train}),
        "train_tokens": sum(len(one.row.targets) for one in train), "held_out_solutions": len(held),
        "held_out_problems": len({one.key for one in held}),
    }  # fmt: skip
