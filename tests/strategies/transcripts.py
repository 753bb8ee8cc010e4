"""Searches answered by hand: only ``next`` and ``send``, no event loop.

A reply is written as its new text, a mark for why it ended, and its score: ``a .9`` is the step ``a`` with its
blank line; ``a$ .9`` ended the solution, ``a~ .9`` was cut by the budget, ``a! .9`` met its length limit, ``a^ .9``
was aborted; ``~`` got no token; without a number it was not scored. What a search asks for and hands in is written
likewise, with ``/`` for a blank line and no scores.
"""

from adaptive_ttc.driver.state import PathNumbering
from adaptive_ttc.strategies.requests import Expand
from adaptive_ttc.types import ROOT, Prefix

MARKS = {"$": "eos", "~": "budget", "!": "length", "^": "abort"}


def grown(reply, parent=ROOT, path=(0,)):
    """The child of a parent that a reply stands for."""
    text, _, score = reply.partition(" ")
    finish = MARKS.get(text[-1:], "stop")
    new = text[:-1] if text[-1:] in MARKS else text + "\n\n"
    tokens = parent.token_ids + tuple(map(ord, new)) + (0,) * (finish == "eos")
    scores = (*parent.scores, float(score)) if score else parent.scores if not new else ()
    return Prefix(tokens, parent.text + new, scores, -1.0 * len(tokens), finish, path, parent.attempts)


def evidence(*replies):
    """First steps and solutions that exist already, with the paths (0,), (1,), ..."""
    return tuple(grown(reply, path=(index,)) for index, reply in enumerate(replies))


def shown(prefixes):
    """Solutions as replies are written."""
    marks = {finish: mark for mark, finish in MARKS.items()} | {"stop": "", None: ""}
    return [one.text.replace("\n\n", "/") + marks[one.finish] for one in prefixes]


class Transcript:
    """A search under way, which began from evidence at ``start``.

    Attributes:
        request: what it asks for now; None once it has returned.
        result: what it returned; None before.
    """

    def __init__(self, search, start=()):
        self.search, self.numbering = search, PathNumbering()
        for prefix in start:
            self.numbering.observe(prefix.path)
        self.request = self.result = None
        self.send(None)

    def send(self, reply):
        try:
            self.request = self.search.send(reply)
        except StopIteration as returned:
            self.request, self.result = None, returned.value

    def reply(self, *replies):
        """Answer the children that are asked for, in order."""
        assert isinstance(self.request, Expand)
        parents = [parent for parent in self.request.prefixes for _ in range(self.request.n)]
        children = zip(replies, parents, strict=True)
        self.send(tuple(grown(reply, parent, self.numbering.take(parent.path)) for reply, parent in children))

    @property
    def asked(self):
        """The solutions that are to be gone on from."""
        return shown(self.request.prefixes)

    @property
    def handed_in(self):
        return shown(self.result)
