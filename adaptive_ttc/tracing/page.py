"""Writes a search tree as one HTML page that needs no network.

Text of the model is untrusted: the template escapes all of it, and the page's own policy lets nothing run but the
script that comes with this package.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

from jinja2 import Environment, StrictUndefined

from adaptive_ttc.tracing import tree_text as words
from adaptive_ttc.tracing.explain import describe_round
from adaptive_ttc.tracing.outcomes import ScoredStep, rounds
from adaptive_ttc.tracing.tree import Node, SearchTree

MARGIN = 16.0
LABEL = 150.0
WIDTH = 1240.0


def render(tree: SearchTree) -> str:
    """The page of a tree, as HTML."""
    style, script = _file("page.css"), _file("page.js")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_legible
    )
    numbers = {node: number for number, node in enumerate(tree.nodes)}
    depths = rounds(tree.outcomes)
    return environment.from_string(_file("page.html")).render(
        tree=tree,
        rows=words.rows(tree),
        rounds=[describe_round(one) for one in depths] if len(depths) > 1 else [],
        picture=picture(tree),
        number=lambda node: numbers[node],
        is_node=lambda entry: isinstance(entry, Node),
        paint=paint,
        words=words,
        style=style,
        script=script,
        script_hash=_hash(script),
        style_hash=_hash(style),
    )


def paint(score: float | None) -> str:
    """The CSS class that colours a score, one for every twentieth: the page allows no inline style."""
    return "s-none" if score is None else f"s-{round(min(max(score, 0.0), 1.0) * 20)}"


def _legible(value: object) -> object:
    return words.legible(value) if type(value) is str else value  # what is marked as safe is of another type


def _file(name: str) -> str:
    text = resources.files("adaptive_ttc.tracing").joinpath("page_files", name).read_text(encoding="utf-8")
    return text.replace("/* colours */", _colours()) if name.endswith(".css") else text


def _colours() -> str:
    """A rule for every class of :func:`paint`."""
    shades = {paint(step / 20): words.colour(step / 20) for step in range(21)} | {paint(None): words.UNSCORED}
    rules = (f".{name} {{ --shade: rgb({red} {green} {blue}); }}" for name, (red, green, blue) in shades.items())
    return "\n".join(rules)


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Dot:
    """One step of the node ``owner`` on the map; ``x``, ``y`` and ``radius`` are in pixels."""

    owner: Node
    step: ScoredStep | None  # None for a node without text
    x: float
    y: float
    radius: float
    edge: str  # the line that leads to it from the step before, as an SVG path
    revises: bool  # whether that line leads from an attempt to its revision
    label: str  # the answer of a candidate at its last step; else empty


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """The map of a tree; nodes that led nowhere come first, so that the rest is drawn over them."""

    width: float
    height: float
    dots: tuple[Dot, ...]


def picture(tree: SearchTree) -> Picture:
    """Place every node, steps from left to right; a parent is level with its first child, so wins are straight."""
    nodes = tree.nodes
    lines, height = _lines(nodes)
    columns = _columns(nodes)
    most = max((columns[node] + len(_steps(node)) for node in nodes), default=1)
    pitch = min(max((WIDTH - LABEL - 2 * MARGIN) / most, 16.0), 262.0)
    ends: dict[Node, tuple[float, float]] = {}
    parents = {child: node for node in nodes for child in node.children}
    dots: list[Dot] = []
    for node in nodes:
        at = ends[parents[node]] if node in parents else (MARGIN, lines[nodes[0]])
        y, steps = lines[node], _steps(node)
        radius = min(3.6 + 0.5 * (len(node.samples) + len(node.merged) - 1), 6.5) if node.fruitful else 2.6
        for index, step in enumerate(steps):
            x = MARGIN + pitch * (columns[node] + index + 1)
            labelled = index == len(steps) - 1 and (not node.children or pitch > 60)
            dots.append(
                Dot(
                    owner=node,
                    step=step,
                    x=x,
                    y=y,
                    radius=radius,
                    edge=_curve(at, (x, y)),
                    revises=node.head.revises and index == 0,
                    label=_shortened(node.head.answer_class or "") if labelled else "",
                )
            )
            at = (x, y)
        ends[node] = at
    dots.sort(key=lambda dot: (dot.owner.best, dot.owner.wins, dot.owner.fruitful))
    return Picture(width=2 * MARGIN + pitch * most + LABEL, height=height, dots=tuple(dots))


def _steps(node: Node) -> Sequence[ScoredStep | None]:
    return node.steps or (None,)


def _columns(nodes: Sequence[Node]) -> dict[Node, int]:
    """How many steps lie before each node."""
    columns = dict.fromkeys(nodes, 0)
    for node in nodes:
        columns.update(dict.fromkeys(node.children, columns[node] + len(_steps(node))))
    return columns


def _lines(nodes: Sequence[Node]) -> tuple[dict[Node, float], float]:
    """The height at which each node lies, and that of the whole."""
    lines: dict[Node, float] = {}
    y = MARGIN
    for node in nodes:
        if not node.children:
            space = 14.0 if node.fate == "candidate" else 9.0 if node.fruitful else 6.5
            lines[node] = y + space / 2
            y += space
    for node in reversed(nodes):
        if node.children:
            lines[node] = lines[node.children[0]]
    return lines, y + MARGIN


def _curve(start: tuple[float, float], end: tuple[float, float]) -> str:
    (x0, y0), (x1, y1) = start, end
    middle = (x0 + x1) / 2
    return f"M{x0:.1f} {y0:.1f}C{middle:.1f} {y0:.1f} {middle:.1f} {y1:.1f} {x1:.1f} {y1:.1f}"


def _shortened(text: str) -> str:
    return text if len(text) < 20 else f"{text[:18]}\N{HORIZONTAL ELLIPSIS}"
