"""Progress: what a line says, when lines come, and that terminals get a bar in their place."""

import io

from rich.console import Console

from adaptive_ttc.display import progress as module
from adaptive_ttc.display.progress import EVERY, Meter, bar_html, progress, tell_lines


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


def metered(total=500, tokens=lambda: 48_210):
    clock = Clock()
    meter = Meter("settled", total, tokens, clock)
    return clock, meter


def test_a_line_tells_number_tokens_rate_and_what_is_left():
    spent = [1_000]
    clock, meter = metered(tokens=lambda: spent[0])
    clock.now += 30
    spent[0] = 49_000
    meter.advance(100, "61.2% right")
    assert meter.line() == "settled 100 of 500, 48,000 tokens, 1,600 tokens/s, 0:30 so far, 2:00 left, 61.2% right"


def test_what_was_done_before_counts_for_no_rate():
    clock, meter = metered(tokens=None)
    meter.start_at(400)
    clock.now += 60
    assert meter.left is None
    assert meter.line() == "settled 400 of 500, 1:00 so far"
    meter.advance(50)
    assert meter.left == 60
    clock.now += 3600
    assert meter.line() == "settled 450 of 500, 1:01:00 so far, 1:01:00 left"


def test_of_parts_that_differ_nothing_is_foretold():
    clock = Clock()
    meter = Meter("fitted", 12, clock=clock, alike=False)
    clock.now += 240
    meter.update(11, "fitting on all problems")
    assert meter.left is None
    assert meter.line() == "fitted 11 of 12, 4:00 so far, fitting on all problems"


def test_a_line_comes_every_thirty_seconds_and_at_the_end():
    clock, meter = metered(total=3, tokens=None)
    told, waits = [], []

    def ended(seconds):
        waits.append(seconds)
        clock.now += seconds
        meter.advance()
        return len(waits) == 3

    tell_lines(meter, ended, told.append)
    assert waits == [EVERY] * 3
    assert EVERY == 30
    assert [line.split(",")[0] for line in told] == ["settled 1 of 3", "settled 2 of 3", "settled 3 of 3"]


def test_short_work_tells_nothing():
    _, meter = metered()
    tell_lines(meter, lambda seconds: True, lambda line: pytest_fail(line))


def pytest_fail(line):
    raise AssertionError(line)


def test_where_there_is_no_terminal_lines_go_to_standard_error(monkeypatch, capsys):
    monkeypatch.setattr(module, "EVERY", 0.001)
    with progress("settled", 7) as meter:
        meter.update(3)
        while "settled 3 of 7" not in capsys.readouterr().err:
            pass
        meter.advance(4)
    assert capsys.readouterr().err.splitlines()[-1].startswith("settled 7 of 7")


def test_a_terminal_gets_a_bar():
    console = Console(file=io.StringIO(), force_terminal=True, width=160)
    counts = iter([12])
    with progress("settled", 7, tokens=lambda: next(counts, 42), console=console) as meter:
        meter.advance(2, "[bold]all[/bold] right")
    printed = console.file.getvalue()
    assert "settled" in printed
    assert "30 tokens" in printed
    assert "[bold]all[/bold] right" in printed


def test_a_notebook_gets_a_bar_of_the_browser_and_nothing_is_markup():
    meter = Meter("<settled>", 4)
    meter.update(1, "<b>")
    html = bar_html(meter)
    assert 'value="1" max="4"' in html
    assert "<b>" not in html
    assert "<settled>" not in html
    assert "value" not in bar_html(Meter("settled"))
