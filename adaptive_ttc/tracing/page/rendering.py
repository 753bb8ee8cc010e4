"""Fills the templates of the pages.

Text of models and clients is untrusted: the templates escape all of it, and the pages' own policy lets nothing run but
the scripts that come with this package.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib import resources

from jinja2 import Environment, FunctionLoader, StrictUndefined

from adaptive_ttc.tracing import tree_text as words
from adaptive_ttc.tracing.explain import describe_decisions, describe_round
from adaptive_ttc.tracing.outcomes import rounds
from adaptive_ttc.tracing.page.picture import picture
from adaptive_ttc.tracing.tree import Node, SearchTree


def render(tree: SearchTree) -> str:
    """The page of a tree, as HTML."""
    return fill("trace.html", scripts=("tree.js",), **_of_tree(tree, at_work=False))


def fragment(tree: SearchTree, *, at_work: bool = False) -> str:
    """What stands on that page, to be put into another one; ``at_work``: of a problem that is not settled yet."""
    return environment().get_template("tree.html").render(_of_tree(tree, at_work=at_work))


def fill(template: str, *, scripts: tuple[str, ...], **values: object) -> str:
    """A whole page with the style and ``scripts`` of this package in it, and the policy that lets only those run."""
    script = "\n".join(read(name) for name in scripts)
    return environment().get_template(template).render(
        style=_style(), script=script, policy=policy(scripts), **values
    )  # fmt: skip


def policy(scripts: tuple[str, ...], connect: str = "'none'", ancestors: bool = False) -> str:
    """The Content-Security-Policy of such a page, which may ask ``connect``.

    Args:
        scripts: names of the files that run in it.
        connect: what it may ask; nothing by default.
        ancestors: forbid that it is framed, which only a header can.
    """
    parts = {
        "default-src": "'none'",
        "style-src": f"'{_hash(_style())}'",
        "script-src": f"'{_hash(chr(10).join(read(name) for name in scripts))}'",
        "connect-src": connect,
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    if ancestors:
        parts["frame-ancestors"] = "'none'"
    return "; ".join(f"{name} {value}" for name, value in parts.items())


def paint(score: float | None) -> str:
    """The CSS class that colours a score, one for every twentieth: the page allows no inline style."""
    return "s-none" if score is None else f"s-{round(min(max(score, 0.0), 1.0) * 20)}"


@cache
def environment() -> Environment:
    """The templates."""
    return Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_legible,
        loader=FunctionLoader(read),
    )


@cache
def read(name: str) -> str:
    """A file that comes with this package."""
    return resources.files("adaptive_ttc.tracing.page").joinpath(name).read_text(encoding="utf-8")


def _of_tree(tree: SearchTree, *, at_work: bool) -> dict[str, object]:
    depths = rounds(tree.outcomes)
    return {
        "tree": tree,
        "at_work": at_work,
        "rows": words.rows(tree),
        "rounds": [describe_round(one) for one in depths] if len(depths) > 1 else [],
        "decisions": describe_decisions(tree.allocations, tree.done),
        "picture": picture(tree),
        "place": _place,
        "is_node": lambda entry: isinstance(entry, Node),
        "paint": paint,
        "words": words,
    }


def _place(node: Node) -> str:
    """The id of its element, which stays the same while the tree grows."""
    return "n" + "-".join(map(str, node.path))


def _legible(value: object) -> object:
    return words.legible(value) if type(value) is str else value  # what is marked as safe is of another type


@cache
def _style() -> str:
    return read("page.css").replace("/* colours */", _colours())


def _colours() -> str:
    """A rule for every class of :func:`paint`."""
    shades = {paint(step / 20): words.colour(step / 20) for step in range(21)} | {paint(None): words.UNSCORED}
    rules = (f".{name} {{ --shade: rgb({red} {green} {blue}); }}" for name, (red, green, blue) in shades.items())
    return "\n".join(rules)


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
