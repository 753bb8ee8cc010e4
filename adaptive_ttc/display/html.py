"""Fragments of HTML that notebooks show: everything escaped, in the colours of the page that they stand in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from adaptive_ttc.tracing.tree_text import legible, printable

SHOWN = 30
"""Rows of a table that stand in a notebook."""


def framed(*parts: str) -> str:
    """Parts under each other."""
    return f'<div class="adaptive-ttc">{"".join(part for part in parts if part)}</div>'


def line(*words: str, strong: str = "") -> str:
    """Words in one line, with dots between them; the first in bold type, if there is one."""
    bold = f"<strong>{_escaped(strong)}</strong>" if strong else ""
    return f"<p>{' · '.join(part for part in (bold, *map(_escaped, words)) if part)}</p>"


def table(caption: str, head: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: int = 1) -> str:
    """A table whose columns from ``numbers`` on are figures; of many rows the first."""
    listed = list(rows)
    shown = "".join(_row("td", cells, numbers) for cells in listed[:SHOWN])
    more = f"<p>and {len(listed) - SHOWN:,} more</p>" if len(listed) > SHOWN else ""
    titles = _row("th", head, numbers)
    return f"<table><caption>{_escaped(caption)}</caption><thead>{titles}</thead><tbody>{shown}</tbody></table>{more}"


def details(summary: str, text: str) -> str:
    """Text of several lines that opens on demand."""
    body = escape(legible(text))
    return f'<details><summary>{_escaped(summary)}</summary><pre style="white-space: pre-wrap">{body}</pre></details>'


def _row(tag: str, cells: Sequence[str], numbers: int) -> str:
    made = []
    for place, cell in enumerate(cells):
        scope = ' scope="col"' if tag == "th" else ""
        side = "right" if place >= numbers else "left"
        made.append(f'<{tag}{scope} style="text-align: {side}">{_escaped(cell)}</{tag}>')
    return f"<tr>{''.join(made)}</tr>"


def _escaped(text: str) -> str:
    return escape(printable(text))
