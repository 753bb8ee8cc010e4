"""The command line: chooses the command (one module each), and turns errors into exit codes."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import NoReturn

import adaptive_ttc
from adaptive_ttc.cli import doctor, evaluate, export, serve, show, solve, train_policy, train_prm
from adaptive_ttc.cli.interruption import interruptible
from adaptive_ttc.errors import AdaptiveTTCError, CalibrationError, ConfigError
from adaptive_ttc.tracing.tree_text import printable

COMMANDS = (solve, evaluate, export, show, serve, doctor, train_prm, train_policy)
"""Modules with ``add(subparsers)``, which sets ``run(options) -> exit code`` as the parser's default."""

ELSEWHERE = {
    "calibrate": ("adaptive_ttc.calibration.fit.__main__", "fit the calibration of a pair"),
    "pareto": (
        "adaptive_ttc.calibration.pareto.__main__",
        "accuracy against compute, of a calibrated pair beside strategies and published rules (extra plot)",
    ),
}
"""Commands that are built on the core: the module, whose ``main`` is called with the words and ``prog``, and a help
text. The module is imported when the command is called.
"""


class Parser(argparse.ArgumentParser):
    """A parser that reports an error in one line."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and end with code 2."""
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command (by default the words that the program was started with); returns :func:`exit_code`."""
    parser = Parser(
        prog="adaptive-ttc",
        description="Solve verifiable problems with a small language model, within a token budget.",
    )
    parser.add_argument("--version", action="version", version=f"adaptive-ttc {adaptive_ttc.__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", parser_class=Parser)
    for command in COMMANDS:
        command.add(subparsers)
    for name, (_, text) in ELSEWHERE.items():
        subparsers.add_parser(name, help=text, add_help=False)
    words = sys.argv[1:] if arguments is None else list(arguments)
    if words and words[0] in ELSEWHERE:
        module, _ = ELSEWHERE[words[0]]
        with warnings.catch_warnings():
            warnings.showwarning = _one_line
            return exit_code(lambda: import_module(module).main(words[1:], prog=f"{parser.prog} {words[0]}"))
    options, unknown = parser.parse_known_args(words, argparse.Namespace(command=["adaptive-ttc", *words]))
    if unknown:  # told by the command's own parser, whose help lists what there is
        subparsers.choices.get(words[0], parser).error(f"unrecognized arguments: {' '.join(unknown)}")
    if "run" not in options:
        parser.print_help()
        return 0
    with warnings.catch_warnings():
        warnings.showwarning = _one_line
        return exit_code(lambda: options.run(options))


def exit_code(
    work: Callable[[], int | None],
    *,
    interrupted: str = "",
    impossible: tuple[type[Exception], ...] = (ConfigError, CalibrationError),
) -> int:
    """Do the work of a command; an error is printed as one line.

    Args:
        work: what the command does; it may return an exit code of its own.
        interrupted: message after Ctrl-C or SIGTERM, such as how to resume.
        impossible: the errors that mean an impossible request.

    Returns:
        0 (or what ``work`` returned), 1 when an engine failed, 2 when the request is impossible, 130 after Ctrl-C,
        143 after SIGTERM, 141 when nobody reads the output any more.
    """
    with interruptible() as interruption:
        try:
            return _exit_code(work, impossible)
        except KeyboardInterrupt:
            print(f"interrupted: {interrupted}" if interrupted else "interrupted", file=sys.stderr)
            return interruption.code


def _exit_code(work: Callable[[], int | None], impossible: tuple[type[Exception], ...]) -> int:
    try:
        return work() or 0
    except AdaptiveTTCError as error:
        print("error:", printable(str(error)), file=sys.stderr)
        return 2 if isinstance(error, impossible) else 1
    except BrokenPipeError:  # whatever read the output has enough, such as `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that the flush at exit does not fail
        return 141


def _one_line(message: Warning | str, category: type[Warning], *where: object, **also: object) -> None:
    """Print a warning without the source line that caused it, which does not help a user of the command."""
    print("warning:", printable(str(message)), file=sys.stderr)
