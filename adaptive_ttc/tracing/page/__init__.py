"""Writes a search tree as one HTML page that needs no network; what the tree means is decided elsewhere.

Text of the model is untrusted: the template escapes all of it, and the page's own policy lets nothing run
but the script that comes with this package.
"""

from __future__ import annotations

import base64
import hashlib
from importlib import resources

from jinja2 import Environment, StrictUndefined

from adaptive_ttc.tracing import render as wording
from adaptive_ttc.tracing.explain import in_words
from adaptive_ttc.tracing.outline import rows
from adaptive_ttc.tracing.page.picture import picture
from adaptive_ttc.tracing.rounds import rounds
from adaptive_ttc.tracing.tree import Node, SearchTree


def render(tree: SearchTree) -> str:
    """The page."""
    style, script = _file("page.css"), _file("page.js")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_legible
    )
    numbers = {id(node): number for number, node in enumerate(tree.nodes)}
    depths = rounds(tree.outcomes)
    return environment.from_string(_file("page.html")).render(
        tree=tree,
        rows=rows(tree),
        rounds=[in_words(one) for one in depths] if len(depths) > 1 else [],
        picture=picture(tree),
        number=lambda node: numbers[id(node)],
        is_node=lambda entry: isinstance(entry, Node),
        paint=paint,
        wording=wording,
        style=style,
        script=script,
        script_hash=_hash(script),
        style_hash=_hash(style),
    )


def paint(score: float | None) -> str:
    """The class that colours a score; there is one for every twentieth, as the page allows no inline style."""
    return "s-none" if score is None else f"s-{round(min(max(score, 0.0), 1.0) * 20)}"


def _legible(value: object) -> object:
    return wording.legible(value) if type(value) is str else value  # what is marked as safe is of another type


def _file(name: str) -> str:
    text = resources.files(__name__).joinpath(name).read_text(encoding="utf-8")
    return text.replace("/* colours */", _colours()) if name.endswith(".css") else text


def _colours() -> str:
    """A rule for every class of :func:`paint`."""
    shades = {paint(step / 20): wording.colour(step / 20) for step in range(21)} | {paint(None): wording.UNSCORED}
    rules = (f".{name} {{ --shade: rgb({red} {green} {blue}); }}" for name, (red, green, blue) in shades.items())
    return "\n".join(rules)


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
