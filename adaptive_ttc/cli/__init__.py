"""The command line: one module a command, and this one to choose between them."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from typing import NoReturn

from adaptive_ttc.cli import evaluate, show, solve
from adaptive_ttc.errors import AdaptiveTTCError, ConfigError
from adaptive_ttc.tracing.render import printable

COMMANDS = (solve, evaluate, show)
"""Modules with ``add(subparsers)``, which sets ``run(options) -> exit code`` as the parser's default."""


class Parser(argparse.ArgumentParser):
    """A parser whose complaint is one line."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and end with code 2."""
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def _one_line(message: Warning | str, category: type[Warning], *where: object, **also: object) -> None:
    """Of the source line that caused it, a user of the command knows nothing."""
    print("warning:", printable(str(message)), file=sys.stderr)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: the words after the program's name; by default those that it was started with.

    Returns:
        The exit code: 0, 1 when an engine failed, 2 when what was asked for is impossible, 130 after Ctrl-C.
    """
    parser = Parser(
        prog="python -m adaptive_ttc",
        description="Solve verifiable problems with a small language model, within a token budget.",
    )
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", parser_class=Parser)
    for command in COMMANDS:
        command.add(subparsers)
    words = sys.argv[1:] if arguments is None else list(arguments)
    options = parser.parse_args(words, argparse.Namespace(command=["python", "-m", "adaptive_ttc", *words]))
    if "run" not in options:
        parser.print_help()
        return 0
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _one_line
            code: int = options.run(options)
    except AdaptiveTTCError as error:
        print("error:", printable(str(error)), file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return code
