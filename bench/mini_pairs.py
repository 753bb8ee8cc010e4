"""A pair of mini models in a measurement: its options, the names of its data sets, commands of the library on it."""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from adaptive_ttc.cli import main as adaptive_ttc
from adaptive_ttc.errors import ConfigError
from adaptive_ttc.mini.evaluate import models_of
from adaptive_ttc.mini.settings import PAIRS


@dataclass(frozen=True, slots=True)
class MiniPair:
    """The folders of a policy and its PRM, and the name of the pair whose problems of MiniMath they solve."""

    policy: Path
    prm: Path
    name: str

    def dataset(self, name: str) -> str:
        """A data set of MiniMath with this pair's problems, such as ``minimath-train:mini-b``."""
        return f"{name}:{self.name}"


def add_pair_options(parser: argparse.ArgumentParser) -> None:
    """Give a measurement's parser the options that :func:`pair_of` reads."""
    parser.add_argument(
        "--models", type=Path, metavar="DIR", help="folder with policy and prm (default: the package's)"
    )
    parser.add_argument("--pair", choices=sorted(PAIRS), default="mini", help="whose problems (default: %(default)s)")


def pair_of(options: argparse.Namespace) -> MiniPair:
    """The pair that ``--models`` and ``--pair`` name. ConfigError: a model is not there."""
    models = models_of(options.models, options.pair)
    pair = MiniPair(models / "policy", models / "prm", options.pair)
    for folder in (pair.policy, pair.prm):
        if not (folder / "config.json").exists():
            raise ConfigError(f"there is no model in {folder}; --models DIR is a folder that holds policy and prm")
    return pair


def run_command(*words: object) -> float:
    """Print and run a command of the library; the minutes that it took. ConfigError: it failed."""
    given = [str(word) for word in words]
    print(f"adaptive-ttc {shlex.join(given)}", file=sys.stderr)
    began = time.perf_counter()
    if code := adaptive_ttc(given):
        raise ConfigError(f"adaptive-ttc {given[0]} ended with exit code {code}")
    return (time.perf_counter() - began) / 60
