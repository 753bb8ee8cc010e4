"""Formulas of the pages as MathML, so that the site needs no script and no other host to show them; code blocks without
what their first lines tell the tests.
"""

from __future__ import annotations

import html
import re
from typing import Any

from latex2mathml.converter import convert

_FORMULA = re.compile(
    r'<(?P<tag>span|div) class="arithmatex">(?:\\\((?P<inline>.*?)\\\)|\\\[(?P<block>.*?)\\\])</(?P=tag)>', re.DOTALL
)
_FENCE = re.compile(r"^( *```\w+) [^\n`]*$", re.MULTILINE)


def on_page_markdown(markdown: str, **given: Any) -> str:
    """Called by mkdocs with the text of every page."""
    return _FENCE.sub(r"\1", markdown)


def on_page_content(content: str, **given: Any) -> str:
    """Called by mkdocs with the HTML of every page."""
    return _FORMULA.sub(_mathml, content)


def _mathml(found: re.Match[str]) -> str:
    block = found["block"] is not None
    formula = html.unescape(found["block"] if block else found["inline"]).strip()
    return convert(formula, display="block" if block else "inline")
