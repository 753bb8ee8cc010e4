"""``train-policy``: fine-tunes a causal LM on right solutions."""

from __future__ import annotations

import argparse
from typing import Any

from adaptive_ttc.answers.spaces.registry import space_of
from adaptive_ttc.cli.train_options import add_training_options, train, training_options, training_parser
from adaptive_ttc.configuration.placing import asks_by_default
from adaptive_ttc.loading import AUTO
from adaptive_ttc.training.settings import PolicySettings

EXAMPLE = """\
  adaptive-ttc export --format rollouts --policy my-policy --dataset problems.jsonl --n 16 --out samples.jsonl
  adaptive-ttc export --format sft samples.jsonl --per-bin 1000 --out sft.jsonl
  adaptive-ttc train-policy --policy my-policy --data sft.jsonl --out my-better-policy
"""


def add(subparsers: Any) -> None:
    """Add the command's parser."""
    parser = training_parser(
        subparsers,
        "train-policy",
        help="fine-tune a policy on right solutions",
        description="Fine-tune a causal LM on right solutions, its own or those of a data set",
        example=EXAMPLE,
        data="`export --format sft`, or problems with reference solutions",
        out="policy",
    )
    option = parser.add_argument
    option(
        "--system-prompt",
        metavar="TEXT",
        help="put before problems whose row has none (default: as a solver with these --answers asks this model)",
    )
    option("--answers", metavar="SPACE", help="what answers are, as the policy's solver is told it (default: math)")
    add_training_options(parser, PolicySettings())
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Fine-tune, and print one line; after a signal the checkpoint is written first."""
    system, space = options.system_prompt, space_of(options.answers)
    if system is None:
        system = AUTO if asks_by_default(space) else ""
    settings = PolicySettings(**training_options(options), system_prompt=system)
    from adaptive_ttc.training.policy import train_policy

    return train(options, lambda stop: train_policy(options.policy, options.data, options.out, settings, stop=stop))
