"""Where the steps of a search tree lie on its map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from adaptive_ttc.tracing.outcomes import ScoredStep
from adaptive_ttc.tracing.tree import Node, SearchTree

MARGIN = 16.0
LABEL = 150.0
WIDTH = 1240.0


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
