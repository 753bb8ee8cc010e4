"""``train-prm``: makes a verifier of any causal LM from its own graded samples."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from adaptive_ttc.answers.spaces.registry import parse_space
from adaptive_ttc.cli.interruption import deferred
from adaptive_ttc.training.settings import BALANCES, KINDS, TEMPLATES, TrainSettings

EXAMPLE = """examples:
  adaptive-ttc train-prm --policy my-policy --data labels.jsonl --out my-prm
  adaptive-ttc train-prm --policy my-policy --data rollouts.jsonl --out my-prm --kind implicit --beta 0.05
"""

EXIT_CODES = "exit codes: 0 it is written, 1 a failure, 2 an impossible request, 130 Ctrl-C, 143 SIGTERM"

_DEFAULTS = TrainSettings()


def add(subparsers: Any) -> None:
    """Add the command's parser."""
    parser = subparsers.add_parser(
        "train-prm",
        help="make a verifier of a policy from its graded samples",
        description="Train a verifier on graded samples (docs/training.md). After Ctrl-C or a kill the same command "
        "goes on.",
        epilog=f"{EXAMPLE}\n{EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    option = parser.add_argument
    option("--policy", required=True, metavar="FOLDER", help="the causal LM to begin from, or its Hub name")
    option("--data", required=True, nargs="+", metavar="FILE", help="JSON Lines of `export --format prm` or `rollouts`")
    option("--out", required=True, metavar="FOLDER", help="where the verifier goes")
    option("--kind", choices=KINDS, default=_DEFAULTS.kind, help="what is made (default: %(default)s)")
    option("--reference", metavar="FOLDER", help="what --kind implicit compares with (default: the policy as it is)")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--lora", type=int, metavar="RANK", help="train LoRA of this rank (extra train), and merge it")
    how.add_argument("--full", action="store_true", help="train all weights (the default below a billion of them)")
    for name, kind, metavar, text in _NUMBERS:
        shown = getattr(_DEFAULTS, name)
        told = f" (default: {shown})" if shown is not None else ""
        option(f"--{name.replace('_', '-')}", type=kind, default=shown, metavar=metavar, help=text + told)
    option("--balance", choices=BALANCES, default=_DEFAULTS.balance, help="what right and wrong labels weigh alike in")
    option("--template", choices=TEMPLATES, default=_DEFAULTS.template, help="the chat template (default: %(default)s)")
    option("--answers", default="math", metavar="SPACE", help="what answers are, for votes (default: %(default)s)")
    option(
        "--device", default=_DEFAULTS.device, help="as torch names it (default: %(default)s, the GPU if there is one)"
    )
    option("--threads", type=int, metavar="N", help="torch's threads; 1 is best on a CPU under 20M parameters")
    parser.set_defaults(run=run)


_NUMBERS = (
    ("epochs", float, "E", "passes over the data"),
    ("max_steps", int, "S", "optimiser steps at most; 0 trains nothing"),
    ("tokens", int, "T", "padded tokens of a forward pass at most"),
    ("accumulate", int, "K", "forward passes of an optimiser step"),
    ("learning_rate", float, "R", "the peak (default: by size and kind, 1e-3 at most; docs/training.md)"),
    ("warmup", float, "SHARE", "of the steps, in which the rate rises"),
    ("clip", float, "NORM", "to which gradients are cut"),
    ("weight_decay", float, "W", "of AdamW"),
    ("beta", float, "B", "factor of the log-ratio of --kind implicit"),
    ("held_out", float, "SHARE", "of the problems, to measure on"),
    ("eval_every", int, "S", "steps between two looks at them (default: eight looks)"),
    ("patience", int, "K", "looks without a better one, after which it stops"),
    ("max_length", int, "T", "tokens of a sample, above which it is left out (default: the model's context)"),
    ("seed", int, "S", "of split, order and new weights"),
)


def run(options: argparse.Namespace) -> int:
    """Train, and print one line; after a signal the checkpoint is written first."""
    names = [name for name, *_ in _NUMBERS]
    chosen = {name: getattr(options, name) for name in (*names, "kind", "balance", "template", "device")}
    settings = TrainSettings(**chosen, lora=0 if options.full else options.lora)
    space = parse_space(options.answers)
    from adaptive_ttc.prm.checkpoint import set_threads
    from adaptive_ttc.training.verifier import train_verifier

    set_threads(options.threads)
    with deferred() as stop:
        try:
            trained = train_verifier(
                options.policy, options.data, options.out, settings, space, reference=options.reference, stop=stop
            )
        except KeyboardInterrupt:
            print(f"saved in {options.out}: the same command goes on from there", file=sys.stderr)
            raise
    print(trained.line())
    return 0
