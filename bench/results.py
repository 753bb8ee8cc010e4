"""Sections of RESULTS.md that commands write: tables between markers, prose around them stays; it measures nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from adaptive_ttc.errors import ConfigError


def write_section(path: Path, name: str, text: str) -> None:
    """Put text between the markers of that name; a file without them gets them at its end.

    Args:
        path: a Markdown file, made where there is none.
        name: of the section.
        text: Markdown.

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
