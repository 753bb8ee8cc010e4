"""Memory and time that fine-tuning a policy takes, in several ways, each in a process of its own.

    python bench/training_memory.py [--policy FOLDER] [--tokens T] [--length L] [--ways NAME ...] [--json FILE]

Solutions of MiniMath, joined until they are L tokens long, are learned in an optimiser step of T padded tokens:

- ``plain``: a batch at once, with the logits of all its tokens, as ``model(ids, labels=...)`` computes the loss;
- ``chunked``: a batch at once, with the logits of the learned tokens alone, some rows at a time, computed again for the
  gradient;
- ``micro``: the same, and a batch in parts whose gradients add up, which is what ``train-policy`` does on a CPU;
- ``recomputed``: the same with ``--gradient-checkpointing``.

Figures: ``WAY.gib``, the most that the process took; ``WAY.cpu_seconds`` of the step; ``WAY.loss``, which is the same
in all ways; ``WAY.memory`` and ``WAY.time``, the ratios to the first of the ways.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import torch
from measuring import Figure, parser_of, report
from torch.nn.functional import cross_entropy

from adaptive_ttc.cli import exit_code
from adaptive_ttc.errors import ConfigError
from adaptive_ttc.evaluation.datasets import load_problems
from adaptive_ttc.training.policy import PolicyTrainee, Rendered
from adaptive_ttc.training.settings import PolicySettings
from adaptive_ttc.training.solutions import Solved
from adaptive_ttc.training.trainer import Trainer
from adaptive_ttc.types import Problem, join_steps

WAYS: dict[str, dict[str, Any]] = {
    "plain": {"whole": True},
    "chunked": {"whole": True},
    "micro": {},
    "recomputed": {"gradient_checkpointing": True},
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure every way in a process of its own; 130 after Ctrl-C."""
    parser = parser_of(__doc__)
    option = parser.add_argument
    option("--policy", type=Path, default=Path(".llm/smollm2-135m"), metavar="FOLDER", help="(default: %(default)s)")
    option("--tokens", type=int, default=8192, metavar="T", help="padded tokens of a step (default: %(default)s)")
    option("--length", type=int, default=300, metavar="L", help="tokens of a solution (default: %(default)s)")
    option("--micro-batch", type=int, metavar="T", help="of the ways micro and recomputed (default: train-policy's)")
    option("--ways", nargs="+", choices=WAYS, default=list(WAYS), help="(default: all)")
    option("--way", choices=WAYS, help=argparse.SUPPRESS)  # of the process that is measured
    options = parser.parse_args(arguments)
    if options.way is not None:
        print(json.dumps(measured(options, **WAYS[options.way])))
        return 0
    return exit_code(lambda: report(options.json, "training_memory", compared(options)), interrupted="nothing is kept")


def compared(options: argparse.Namespace) -> dict[str, Figure]:
    """The figures of all ways."""
    figures: dict[str, Figure] = {"tokens": options.tokens, "length": options.length}
    first = options.ways[0]
    for way in options.ways:
        words = ["--policy", options.policy, "--tokens", options.tokens, "--length", options.length, "--way", way]
        words += [] if options.micro_batch is None else ["--micro-batch", options.micro_batch]
        run = subprocess.run([sys.executable, __file__, *map(str, words)], capture_output=True, text=True, check=False)
        if run.returncode:
            raise ConfigError(f"{way} ended with code {run.returncode}: {run.stderr.strip()[-500:]}")
        figures |= {f"{way}.{name}": value for name, value in json.loads(run.stdout).items()}
        for ratio, name in (("memory", "gib"), ("time", "cpu_seconds")):
            figures[f"{way}.{ratio}"] = figures[f"{way}.{name}"] / figures[f"{first}.{name}"]  # type: ignore[operator]
        print(f"{way}: {figures[f'{way}.gib']:.2f} GiB", file=sys.stderr)
    return figures


def measured(options: argparse.Namespace, *, whole: bool = False, **chosen: Any) -> dict[str, float]:
    """An optimiser step in this process, and the most memory that it took."""
    torch.set_num_threads(1)
    micro = options.tokens if whole else options.micro_batch
    settings = PolicySettings(tokens=options.tokens, micro_batch=micro, system_prompt="", device="cpu", **chosen)
    trainee = PolicyTrainee(options.policy, settings, "cpu")
    if options.way == "plain":
        trainee.loss = partial(loss_of_all_logits, trainee)  # type: ignore[method-assign]
    rows = [trainee.render(one) for one in solutions(trainee, options.length, options.tokens // options.length)]
    rows = rows[: options.tokens // max(one.length for one in rows)]  # of one batch
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(trainee, rows, rows[:1], Path(folder), "bench")
        trainee.model.train()
        trainee.loss(rows[:1]).backward()  # so that the optimiser's state is there, as it is from the second step on
        trainer._optimizer.step()
        trainer._optimizer.zero_grad()
        began = time.process_time()
        trainer._advance()
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {"gib": size / 2**30, "cpu_seconds": time.process_time() - began, "loss": trainer._losses[0]}


def loss_of_all_logits(trainee: PolicyTrainee, examples: Sequence[Rendered]) -> torch.Tensor:
    """The loss from the logits of all tokens of a padded batch."""
    width = max(one.length for one in examples)
    ids, labels = (torch.full((len(examples), width), fill) for fill in (0, -100))
    for number, one in enumerate(examples):
        ids[number, : one.length] = torch.tensor(one.row.token_ids)
        labels[number, list(one.row.positions)] = torch.tensor(one.row.targets)
    logits = trainee.model(input_ids=ids, use_cache=False).logits
    return cross_entropy(logits.float().flatten(0, 1), labels.flatten(), reduction="sum")


def solutions(trainee: PolicyTrainee, length: int, number: int) -> list[Solved]:
    """Solutions of MiniMath, joined until each is so many tokens long."""
    waiting = cycle(load_problems("minimath-train"))
    found = []
    for _ in range(number):
        row = next(waiting)
        text = row["solution"]
        while len(trainee.tokenizer(text)["input_ids"]) < length:
            text = join_steps([text, next(waiting)["solution"]])
        found.append(Solved(Problem.of(row["problem"], id=""), text))
    return found


if __name__ == "__main__":
    sys.exit(main())
