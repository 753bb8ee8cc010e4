"""Progress of work: a bar in a terminal and in a notebook, a line every 30 seconds where there is neither."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

EVERY = 30.0
"""Seconds between two lines of a log."""

_NOTEBOOK_EVERY = 0.25  # seconds between two pictures of a notebook's bar


class Meter:
    """How far work has come.

    Args:
        what: was done with the things that are counted, such as ``settled``.
        total: their number; None where it is not known.
        tokens: the tokens generated so far, of which those before the work began are left out; None: not counted.
        clock: seconds, from any beginning.
        alike: whether they take about as long each; else nothing is foretold of what is left.
    """

    def __init__(
        self,
        what: str,
        total: int | None = None,
        tokens: Callable[[], int] | None = None,
        clock: Callable[[], float] = time.monotonic,
        *,
        alike: bool = True,
    ) -> None:
        self.what, self.total, self.alike = what, total, alike
        self.done = 0
        self.note = ""  # whatever else is to be told
        self.on_change: Callable[[], None] = lambda: None
        self._tokens, self._clock, self._began = tokens, clock, clock()
        self._tokens_before = tokens() if tokens else 0
        self._before = 0

    def start_at(self, done: int) -> None:
        """So many were done before this run; they count for no rate."""
        self.done = self._before = done
        self.on_change()

    def advance(self, number: int = 1, note: str | None = None) -> None:
        """So many more are done."""
        self.update(self.done + number, note)

    def update(self, done: int, note: str | None = None) -> None:
        """So many are done in all."""
        self.done = done
        self.note = self.note if note is None else note
        self.on_change()

    @property
    def seconds(self) -> float:
        """Since the work began."""
        return self._clock() - self._began

    @property
    def left(self) -> float | None:
        """Seconds that what is left takes at the rate so far; None where that is not known."""
        fresh = self.done - self._before
        if self.total is None or fresh <= 0 or not self.alike:
            return None
        return self.seconds * max(self.total - self.done, 0) / fresh

    def line(self) -> str:
        """All of it in one line."""
        of = "" if self.total is None else f" of {self.total:,}"
        parts = [f"{self.what} {self.done:,}{of}", *self._spent(), f"{_clock_time(self.seconds)} so far"]
        if self.left is not None:
            parts.append(f"{_clock_time(self.left)} left")
        return ", ".join([*parts, self.note] if self.note else parts)

    def words(self) -> str:
        """What a bar does not show of itself."""
        return ", ".join([*self._spent(), *([self.note] if self.note else [])])

    def _spent(self) -> list[str]:
        if self._tokens is None:
            return []
        tokens = self._tokens() - self._tokens_before
        rate = tokens / max(self.seconds, 1e-9)
        return [f"{tokens:,} tokens", f"{rate:,.0f} tokens/s"]


@contextmanager
def progress(
    what: str,
    total: int | None = None,
    *,
    tokens: Callable[[], int] | None = None,
    alike: bool = True,
    console: Console | None = None,
) -> Iterator[Meter]:
    """Show how far work has come while it lasts, on standard error or a console; see :class:`Meter`."""
    if console is None:
        from rich.console import Console

        console = Console(stderr=True)
    meter = Meter(what, total, tokens, alike=alike)
    shown = _in_notebook if console.is_jupyter else _as_bar if console.is_terminal else _as_lines
    with shown(meter, console):
        yield meter


@contextmanager
def _as_bar(meter: Meter, console: Console) -> Iterator[None]:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        SpinnerColumn,
        Task,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Words(ProgressColumn):
        """What the meter counts beside things, as it is now."""

        def render(self, task: Task) -> Text:
            return Text(meter.words())

    counted: tuple[ProgressColumn, ...] = (SpinnerColumn(),)
    if meter.total is not None:
        counted = (BarColumn(), MofNCompleteColumn())
    left = (TimeRemainingColumn(),) if meter.alike else ()
    columns = (TextColumn("{task.description}", markup=False), *counted, TimeElapsedColumn(), *left, Words())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(meter.what, total=meter.total)
        meter.on_change = lambda: bar.update(task, completed=meter.done)
        meter.on_change()
        yield


@contextmanager
def _as_lines(meter: Meter, console: Console) -> Iterator[None]:
    """Lines from a thread, so that they come whatever the work holds up."""
    ended = threading.Event()
    thread = threading.Thread(target=tell_lines, args=(meter, ended.wait, _to_log), name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def tell_lines(meter: Meter, ended: Callable[[float], bool], tell: Callable[[str], None]) -> None:
    """A line every :data:`EVERY` seconds until the work has ended, and the last one then, if there was one before.

    ``ended`` waits for so many seconds, and says whether the work has ended.
    """
    told = False
    while not ended(EVERY):
        tell(meter.line())
        told = True
    if told:
        tell(meter.line())


def _to_log(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


@contextmanager
def _in_notebook(meter: Meter, console: Console) -> Iterator[None]:
    """A bar of the browser's own, which needs no widgets: it is light or dark as the page is."""
    from IPython.display import HTML, display  # type: ignore[import-not-found, unused-ignore]

    handle: Any = display(HTML(bar_html(meter)), display_id=True)
    shown = time.monotonic()

    def again() -> None:
        nonlocal shown
        if time.monotonic() >= shown + _NOTEBOOK_EVERY:
            handle.update(HTML(bar_html(meter)))
            shown = time.monotonic()

    meter.on_change = again
    try:
        yield
    finally:
        handle.update(HTML(bar_html(meter)))


def bar_html(meter: Meter) -> str:
    """The bar as HTML."""
    from html import escape

    most = "" if meter.total is None else f' value="{meter.done}" max="{max(meter.total, 1)}"'
    return f'<progress{most} aria-label="{escape(meter.what)}"></progress> {escape(meter.line())}'


def _clock_time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
