"""Reads the roles of docstrings, such as ``:class:`~adaptive_ttc.solver.Solver```, as names in code type."""

from __future__ import annotations

import re
from typing import Any

import griffe

_ROLE = re.compile(r":(?:attr|class|data|exc|func|meth|mod):`(?P<short>~)?(?P<name>[\w.]+)`")


class Roles(griffe.Extension):
    """Called by mkdocstrings with everything that it reads."""

    def on_object(self, *, obj: griffe.Object, **given: Any) -> None:
        """Rewrite the object's docstring in place."""
        if obj.docstring is not None:
            obj.docstring.value = _ROLE.sub(_plain, obj.docstring.value).replace("``", "`")


def _plain(found: re.Match[str]) -> str:
    name = found["name"]
    return f"`{name.rpartition('.')[2] if found['short'] else name}`"
