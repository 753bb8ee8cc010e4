"""A worker's own copy of what is stored of the problems it was handed, and what it adds; it knows no file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from adaptive_ttc.calibration.key import PoolKey
from adaptive_ttc.calibration.kinds import SAMPLE
from adaptive_ttc.calibration.store import Store, Verdict
from adaptive_ttc.calibration.units import Drawn
from adaptive_ttc.evaluation.datasets import Row


@dataclass(frozen=True, slots=True)
class Stock:
    """All that is stored of a problem, to be copied into another store.

    Attributes:
        prompt_tokens: of the problem.
        units: samples with what others go on from.
        verdicts: on their answers.
    """

    prompt_tokens: int
    units: Sequence[Drawn]
    verdicts: Mapping[str, Verdict]


@dataclass(frozen=True, slots=True)
class Addition:
    """A unit, or verdicts in place of earlier ones, for the problem of this name."""

    name: str
    prompt_tokens: int
    what: Drawn | Mapping[str, Verdict]

    def enter(self, store: Store, key: PoolKey, row: Row) -> None:
        """Write it, unless a unit of its name is there already."""
        number = store.problem(key, row, self.prompt_tokens)
        if isinstance(self.what, Drawn):
            store.add(number, self.what)
        else:
            store.judge(number, self.what)


def stock_of(store: Store, key: PoolKey, row: Row) -> Stock | None:
    """What a store holds of a problem; None where it has never met it."""
    number = store.find(key, row)
    if number is None:
        return None
    holding = store.holding(number)
    samples = holding.units.get(SAMPLE, {})
    starts = dict(zip(samples, store.starts(number, list(samples)), strict=True))
    units = [
        replace(drawn, start=starts[index]) if kind == SAMPLE else drawn
        for kind, found in holding.units.items()
        for index, drawn in found.items()
    ]
    return Stock(holding.prompt_tokens, units, holding.verdicts)


class Mirror(Store):
    """A store in memory that remembers what was added to it until it is asked for."""

    def __init__(self) -> None:
        super().__init__(":memory:")
        self._named: dict[int, tuple[str, int]] = {}
        self._additions: list[Addition] = []

    def copy(self, key: PoolKey, row: Row, stock: Stock) -> None:
        """Hold what another store holds of a problem."""
        number = super().problem(key, row, stock.prompt_tokens)
        for drawn in stock.units:
            super().add(number, drawn)
        super().judge(number, stock.verdicts)

    def problem(self, key: PoolKey, row: Row, prompt_tokens: int) -> int:
        """The number of a problem here; it is entered where it is new."""
        number = super().problem(key, row, prompt_tokens)
        self._named[number] = row["unique_id"], prompt_tokens
        return number

    def add(self, problem: int, drawn: Drawn) -> None:
        """Keep a unit."""
        super().add(problem, drawn)
        self._additions.append(Addition(*self._named[problem], drawn))

    def judge(self, problem: int, verdicts: Mapping[str, Verdict]) -> None:
        """Put the verdicts on all answers of a problem in place of earlier ones."""
        super().judge(problem, verdicts)
        self._additions.append(Addition(*self._named[problem], dict(verdicts)))

    def taken(self) -> list[Addition]:
        """What was added since it was last asked for."""
        additions, self._additions = self._additions, []
        return additions

    def forget(self, name: str) -> None:
        """Hold nothing more of a problem that is complete."""
        numbers = [number for number, (known, _) in self._named.items() if known == name]
        with self._transaction():
            for number in numbers:
                del self._named[number]
                for table in ("units", "starts", "classes"):
                    self._db.execute(f"DELETE FROM {table} WHERE problem = ?", (number,))
                self._db.execute("DELETE FROM problems WHERE id = ?", (number,))
