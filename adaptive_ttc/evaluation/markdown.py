"""Sections of Markdown that commands write, with what they were written by."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from adaptive_ttc.errors import ConfigError
from adaptive_ttc.evaluation.result_file import git_state, machine, shown_command

_ROOT = Path(__file__).resolve().parent.parent.parent


def command() -> str:
    """The command line of this run, with a script's path from the repository's root."""
    script = Path(sys.argv[0]).resolve()
    if script.name == "adaptive-ttc" or script == _ROOT / "adaptive_ttc" / "__main__.py":
        return shown_command(["adaptive-ttc", *sys.argv[1:]])
    shown = script.relative_to(_ROOT) if script.is_relative_to(_ROOT) else script
    return shown_command(["python", str(shown), *sys.argv[1:]])


def write_section(path: Path, name: str, text: str) -> None:
    """Put Markdown between the markers of that name; a file without them gets them at its end.

    Raises:
        ConfigError: the file has one marker without the other, or one of them twice.
    """
    begin, end = f"<!-- {name}: begin, written by a command -->", f"<!-- {name}: end -->"
    old = path.read_text(encoding="utf-8") if path.exists() else ""
    if begin not in old and end not in old:
        old = (old.rstrip("\n") + "\n\n" if old.strip() else "") + f"{begin}\n{end}\n"
    before, _, rest = old.partition(begin)
    _, closing, after = rest.partition(end)
    if not closing or old.count(begin) != 1 or old.count(end) != 1:
        raise ConfigError(f"{path} must hold the line {begin} once, and after it {end} once")
    partial = path.with_name(path.name + ".partial")
    partial.write_text(f"{before}{begin}\n\n{text.strip()}\n\n{end}{after}", encoding="utf-8")
    partial.replace(path)


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table whose first column is text and whose others are numbers."""
    align = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, align, *rows))


def provenance() -> str:
    """The command, date, commit and machine of this run, for the head of a section."""
    facts = machine()
    return (
        f"`{command()}`, {datetime.now(UTC):%Y-%m-%d}, commit {git_state()[:12]}, {facts['processor']}, "
        f"{facts['cpus']} cores."
    )


def picture_links(pictures: Iterable[Path], results: Path) -> list[str]:
    """Markdown that shows the PNG files among the pictures in the file ``results``."""
    return [
        f"![{path.stem}]({Path(os.path.relpath(path, results.parent)).as_posix()})"
        for path in pictures
        if path.suffix == ".png"
    ]
