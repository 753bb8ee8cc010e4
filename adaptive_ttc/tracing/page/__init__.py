"""Writes pages that need no network: the search tree of one problem, and the problems of a run or of a server.

``rendering`` fills the templates beside it, ``picture`` lays out the map of a tree, ``summary`` tells how a problem
stands, ``board`` puts many of them on a page.
"""

from __future__ import annotations

from adaptive_ttc.tracing.page.rendering import paint, render

__all__ = ["paint", "render"]
