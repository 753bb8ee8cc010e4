"""Lays a search tree out in the plane, steps from left to right; it writes no markup.

A parent stands in the line of its first child, so that the winning path, which comes first, is straight.
"""

from __future__ import annotations

from dataclasses import dataclass

from adaptive_ttc.tracing.outcomes import ScoredStep
from adaptive_ttc.tracing.tree import Node, SearchTree

MARGIN = 16.0
LABEL = 150.0
WIDTH = 1240.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Dot:
    """One step of the node ``owner``: its place and radius, in pixels."""

    owner: Node
    step: ScoredStep | None
    x: float
    y: float
    radius: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """From a step to the next; ``owner`` is the node at its end."""

    owner: Node
    line: str
    revises: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """The answer at the end of a candidate."""

    owner: Node
    x: float
    y: float
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """All of it; the fruitless parts come first, so that the others are drawn over them."""

    width: float
    height: float
    dots: tuple[Dot, ...]
    edges: tuple[Edge, ...]
    labels: tuple[Label, ...]


def picture(tree: SearchTree) -> Picture:
    """Place every node."""
    nodes = tree.nodes
    columns = _columns(nodes)
    lines, height = _lines(nodes)
    most = max((columns[id(node)] + len(node.steps or (None,)) for node in nodes), default=1)
    pitch = min(max((WIDTH - LABEL - 2 * MARGIN) / most, 16.0), 262.0)
    dots: list[Dot] = []
    edges: list[Edge] = []
    labels: list[Label] = []
    parents = {id(child): node for node in nodes for child in node.children}
    ends: dict[int, tuple[float, float]] = {}
    for node in nodes:
        parent = parents.get(id(node))
        at = ends[id(parent)] if parent else (MARGIN, lines[id(nodes[0])])
        y, radius = lines[id(node)], _radius(node)
        for index, step in enumerate(node.steps or (None,)):
            x = MARGIN + pitch * (columns[id(node)] + index + 1)
            edges.append(Edge(owner=node, line=_curve(at, (x, y)), revises=node.head.revises and not index))
            dots.append(Dot(owner=node, step=step, x=x, y=y, radius=radius))
            at = (x, y)
        ends[id(node)] = at
        if node.head.answer_class and (not node.children or pitch > 60):
            text = node.head.answer_class
            shown = text if len(text) < 20 else f"{text[:18]}\N{HORIZONTAL ELLIPSIS}"
            labels.append(Label(owner=node, x=at[0] + radius + 4, y=y, text=shown))
    dots.sort(key=lambda dot: (dot.owner.best, dot.owner.wins, dot.owner.fruitful))
    edges.sort(key=lambda edge: (edge.owner.best, edge.owner.wins, edge.owner.fruitful))
    return Picture(
        width=2 * MARGIN + pitch * most + LABEL,
        height=height,
        dots=tuple(dots),
        edges=tuple(edges),
        labels=tuple(labels),
    )


def _columns(nodes: tuple[Node, ...]) -> dict[int, int]:
    """Steps before each node."""
    columns = {id(node): 0 for node in nodes}
    for node in nodes:
        for child in node.children:
            columns[id(child)] = columns[id(node)] + len(node.steps or (None,))
    return columns


def _lines(nodes: tuple[Node, ...]) -> tuple[dict[int, float], float]:
    """The height of each node, and of all."""
    lines: dict[int, float] = {}
    y = MARGIN
    for node in nodes:
        if not node.children:
            space = 14.0 if node.fate == "candidate" else 9.0 if node.fruitful else 6.5
            lines[id(node)] = y + space / 2
            y += space
    for node in reversed(nodes):
        if node.children:
            lines[id(node)] = lines[id(node.children[0])]
    return lines, y + MARGIN


def _radius(node: Node) -> float:
    if not node.fruitful:
        return 2.6
    return min(3.6 + 0.5 * (len(node.samples) + len(node.merged) - 1), 6.5)


def _curve(start: tuple[float, float], end: tuple[float, float]) -> str:
    (x0, y0), (x1, y1) = start, end
    middle = (x0 + x1) / 2
    return f"M{x0:.1f} {y0:.1f}C{middle:.1f} {y0:.1f} {middle:.1f} {y1:.1f} {x1:.1f} {y1:.1f}"
