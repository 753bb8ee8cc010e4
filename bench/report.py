"""How every bench tells its figures: on the screen, and with ``--json FILE`` in a file; it knows no measurement."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from adaptive_ttc.errors import ConfigError
from adaptive_ttc.evaluation.result_file import writable, write_record

Figure = float | int | Sequence[float | int]

_ROOT = Path(__file__).resolve().parent.parent


def add_json_option(parser: argparse.ArgumentParser) -> None:
    """Give a bench's parser the ``--json FILE`` option."""
    parser.add_argument("--json", type=_file, metavar="FILE", help="write the figures to this file")


def _file(text: str) -> Path:
    try:
        return writable(text)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def write_report(path: Path | None, name: str, figures: Mapping[str, Figure]) -> None:
    """Write a bench's figures.

    Args:
        path: the file; None writes nothing.
        name: of the bench.
        figures: stable keys, numbers or lists of numbers.
    """
    if path is not None:
        write_record(path, name, command(), figures)


def report(path: Path | None, name: str, figures: Mapping[str, Figure]) -> None:
    """Print a bench's figures, a line each, and write them; see :func:`write_report`."""
    print("\n".join(lines(figures)))
    write_report(path, name, figures)


def lines(figures: Mapping[str, Figure]) -> list[str]:
    """The figures as a table of two columns: whole numbers whole, others to four digits."""
    width = max(map(len, figures), default=0)
    return [f"{key:{width}}  {_shown(value)}" for key, value in figures.items()]


def _shown(value: Figure) -> str:
    if isinstance(value, Sequence):
        return " ".join(map(_shown, value))
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def command() -> str:
    """The command line of this run, with the script's path from the repository's root."""
    script = Path(sys.argv[0]).resolve()
    shown = script.relative_to(_ROOT) if script.is_relative_to(_ROOT) else script
    return shlex.join(["python", str(shown), *sys.argv[1:]])
