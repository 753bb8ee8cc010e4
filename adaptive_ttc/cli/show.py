"""``show``: explains a saved trace, and writes its search tree as a page."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from adaptive_ttc.errors import ConfigError
from adaptive_ttc.evaluation.result_file import writable
from adaptive_ttc.tracing.explain import explain
from adaptive_ttc.tracing.page import render
from adaptive_ttc.tracing.trace import Trace
from adaptive_ttc.tracing.tree import search_tree
from adaptive_ttc.tracing.tree_text import legible


def add(subparsers: Any) -> None:
    """Add the command's parser."""
    parser = subparsers.add_parser(
        "show",
        help="explain a saved trace, or draw its search tree",
        description="Explain a trace that `solve --trace FILE` or Trace.save wrote; --html draws its search tree.",
    )
    parser.add_argument("trace", metavar="FILE", help="the trace")
    parser.add_argument(
        "--html", metavar="FILE", help="write its search tree to this file, a page that needs no network"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the explanation, and write the page. ConfigError: it is no trace, or the page cannot be written."""
    if options.html is not None:
        writable(options.html)
    try:
        trace = Trace.load(options.trace)
    except OSError as error:
        raise ConfigError(
            f"cannot read {options.trace}: {error.strerror or error}; "
            "give a file that `solve --trace FILE` or Trace.save wrote"
        ) from error
    tree = search_tree(trace)
    print(legible(explain(trace)))
    if options.html is not None:
        Path(options.html).write_text(render(tree), encoding="utf-8", errors="replace")
        print(f"The search tree is in {options.html}.")
    return 0
