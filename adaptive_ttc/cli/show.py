"""``show``: explains a saved trace, and writes its search tree as a page; or lists the problems of a run."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from rich.console import Console

from adaptive_ttc.cli.batch import show_settled
from adaptive_ttc.errors import ConfigError
from adaptive_ttc.evaluation.result_file import writable
from adaptive_ttc.evaluation.settled import holds_settled, read_settled
from adaptive_ttc.tracing.explain import explain
from adaptive_ttc.tracing.page import render
from adaptive_ttc.tracing.trace import Trace
from adaptive_ttc.tracing.tree import search_tree
from adaptive_ttc.tracing.tree_text import legible

EXAMPLE = """examples:
  adaptive-ttc show trace.json --html trace.html
  adaptive-ttc show answers.jsonl
"""


def add(subparsers: Any) -> None:
    """Add the command's parser."""
    parser = subparsers.add_parser(
        "show",
        help="explain a saved trace, or list the problems of a run",
        description="Explain a trace that `solve --trace FILE` or Trace.save wrote: every decision, the votes, and why "
        "it stopped. Or list the problems that --out FILE wrote, and why each of them stopped.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("trace", metavar="FILE", help="the trace, or the JSON lines of settled problems")
    parser.add_argument(
        "--html", metavar="FILE", help="write a trace's search tree to this file, a page that needs no network"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the explanation, and write the page; or the table. ConfigError: it is neither, or no page can be
    written.
    """
    if options.html is not None:
        writable(options.html)
    try:
        if holds_settled(options.trace):
            return _show_settled(options)
        trace = Trace.load(options.trace)
    except OSError as error:
        raise ConfigError(
            f"cannot read {options.trace}: {error.strerror or error}; "
            "give a file that `solve --trace FILE`, Trace.save or --out FILE wrote"
        ) from error
    tree = search_tree(trace)
    print(legible(explain(trace)))
    if options.html is not None:
        Path(options.html).write_text(render(tree), encoding="utf-8", errors="replace")
        print(f"The search tree is in {options.html}.")
    return 0


def _show_settled(options: argparse.Namespace) -> int:
    if options.html is not None:
        told = f"--html draws the search tree of a trace, and {options.trace} holds many problems"
        raise ConfigError(f"{told}: leave it out")
    show_settled([one for one, _ in read_settled(options.trace)], Console(), most=None)
    return 0
