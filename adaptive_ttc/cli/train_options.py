"""What ``train-prm`` and ``train-policy`` have in common: options, and the run that goes on after a signal."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from adaptive_ttc.cli.interruption import deferred
from adaptive_ttc.prm.checkpoint import set_threads

if TYPE_CHECKING:
    from adaptive_ttc.training.result import Trained

EXIT_CODES = "exit codes: 0 it is written, 1 a failure, 2 an impossible request, 130 Ctrl-C, 143 SIGTERM"

NUMBERS = (
    ("epochs", float, "E", "passes over the data"),
    ("max_steps", int, "S", "optimiser steps at most; 0 trains nothing"),
    ("tokens", int, "T", "padded tokens of a batch at most"),
    ("accumulate", int, "K", "batches of an optimiser step"),
    ("micro_batch", int, "T", "padded tokens of a batch that are computed at once (default: 1024 on a CPU, else all)"),
    ("learning_rate", float, "R", "the peak (default: by size and kind, 1e-3 at most; docs/training.md)"),
    ("warmup", float, "SHARE", "of the steps, in which the rate rises"),
    ("clip", float, "NORM", "to which gradients are cut"),
    ("weight_decay", float, "W", "of AdamW"),
    ("held_out", float, "SHARE", "of the problems, to measure on"),
    ("eval_every", int, "S", "steps between two looks at them (default: eight looks)"),
    ("patience", int, "K", "looks without a better one, after which it stops"),
    ("max_length", int, "T", "tokens of a sample, above which it is left out (default: the model's context)"),
    ("seed", int, "S", "of split, order and new weights"),
)


OTHERS = ("device", "gradient_checkpointing")
"""Further fields of the settings."""


def training_parser(
    subparsers: Any, name: str, *, help: str, description: str, example: str, data: str, out: str
) -> argparse.ArgumentParser:
    """A command that trains what begins from a policy.

    Args:
        subparsers: of the program.
        name: of the command.
        help, description, example: what it does, in a few words, in a sentence, and as command lines.
        data: what the files hold.
        out: what is written.
    """
    parser: argparse.ArgumentParser = subparsers.add_parser(
        name,
        help=help,
        description=f"{description} (docs/training.md). After Ctrl-C or a kill the same command goes on.",
        epilog=f"examples:\n{example}\n{EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    option = parser.add_argument
    option("--policy", required=True, metavar="FOLDER", help="the causal LM to begin from, or its Hub name")
    option("--data", required=True, nargs="+", metavar="FILE", help=f"JSON Lines of {data}")
    option("--out", required=True, metavar="FOLDER", help=f"where the {out} goes")
    return parser


def add_training_options(parser: argparse.ArgumentParser, defaults: Any) -> None:
    """Options of :class:`~adaptive_ttc.training.settings.FitSettings`, with these defaults."""
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--lora", type=int, metavar="RANK", help="train LoRA of this rank (extra train), and merge it")
    how.add_argument("--full", action="store_true", help="train all weights (the default below a billion of them)")
    option = parser.add_argument
    for name, kind, metavar, text in NUMBERS:
        shown = getattr(defaults, name)
        told = f" (default: {shown})" if shown is not None else ""
        option(f"--{name.replace('_', '-')}", type=kind, default=shown, metavar=metavar, help=text + told)
    option(
        "--device", default=defaults.device, help="as torch names it (default: %(default)s, the GPU if there is one)"
    )
    option(
        "--gradient-checkpointing",
        action="store_true",
        help="compute what is within layers again in place of keeping it: less memory, up to a third more time",
    )
    option("--threads", type=int, metavar="N", help="torch's threads; 1 is best on a CPU under 20M parameters")


def training_options(options: argparse.Namespace) -> dict[str, Any]:
    """What the options say, as fields of the settings."""
    named = {name: getattr(options, name) for name in (*(name for name, *_ in NUMBERS), *OTHERS)}
    return {**named, "lora": 0 if options.full else options.lora}


def train(options: argparse.Namespace, begin: Callable[[Callable[[], bool]], Trained]) -> int:
    """Train, and print one line; after a signal the checkpoint is written first."""
    set_threads(options.threads)
    with deferred() as stop:
        try:
            trained = begin(stop)
        except KeyboardInterrupt:
            print(f"saved in {options.out}: the same command goes on from there", file=sys.stderr)
            raise
    print(trained.line())
    return 0
