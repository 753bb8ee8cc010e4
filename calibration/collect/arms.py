"""Arms: strategies at one N (and M), the units that they need, and how a command line names them.

A pool of exchangeable units for each problem answers every arm: N samples every vote at N, N / M trees of width M
DVTS at N, N / S chains of S attempts revision at N; a beam search at N is a unit of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from adaptive_ttc.calibration.collect.units import with_starts
from adaptive_ttc.errors import ConfigError
from adaptive_ttc.strategies import make_strategy, strategy_names
from adaptive_ttc.strategies.adaptive import GREEDY, SAMPLE, SECOND

SAMPLED = ("majority", "best_of_n", "weighted_best_of_n")
WITH_BEAMS = ("dvts", "beam_search")
RACE = "short_m_at_k"
MOST = 256
WIDTH = 4
NARROW = 2  # width of the other trees: half as dear, for what little is left of a budget
CHAIN = 4
# beam searches narrower than this are repeated: one of 4 beams says less of its mean than one of 64
REPEATED_BELOW = 64
_SIZE = re.compile(r"(?P<n>[0-9]+)(?:x(?P<width>[0-9]+))?(?:@(?P<think>[0-9]+))?")


@dataclass(frozen=True, slots=True)
class Arm:
    """A strategy at one size; ConfigError where there is no such strategy, or not at that size."""

    strategy: str  # its name, none of its aliases
    n: int = 1  # samples, beams or attempts
    beam_width: int = 1  # M, of ``dvts`` and ``beam_search``
    sequential: int | None = None  # attempts in a chain, of ``revision``
    m: int | None = None  # samples that are waited for, of ``short_m_at_k``
    think_tokens: int | None = None  # most tokens of thinking in a sample; None for no limit
    second: bool = False  # whether the second policy of a cascade carries it out

    def __post_init__(self) -> None:
        if self.strategy not in (GREEDY, *SAMPLED, RACE, *WITH_BEAMS, "revision"):
            raise ConfigError(f"no arm runs {self.strategy!r}; the strategies are {', '.join(strategy_names())}")
        if (self.sequential is None) == (self.strategy == "revision"):
            raise ConfigError("revision, and nothing else, has chains: give sequential for it, as in revision:16x4")
        if (self.m is None) == (self.strategy == RACE):
            raise ConfigError(f"{RACE}, and nothing else, waits for m samples: give m for it, as in {RACE}:8x3")
        if self.think_tokens is not None and self.strategy not in SAMPLED:
            raise ConfigError(f"arms of {', '.join(SAMPLED)} limit thinking, as in majority:4@512; not {self.strategy}")
        make_strategy(self.strategy, **self.options)

    @property
    def options(self) -> dict[str, Any]:
        """Of the strategy, as :func:`adaptive_ttc.strategies.make_strategy` takes them."""
        chain = {} if self.sequential is None else {"sequential": self.sequential}
        own = {name: value for name in ("m", "think_tokens") if (value := getattr(self, name)) is not None}
        return {"n": self.n, "beam_width": self.beam_width, **chain, **own}

    @property
    def name(self) -> str:
        """Its name in tables: ``majority-16``, ``majority-16@512``, ``dvts-16-4``, ``greedy``, ``second:greedy``."""
        return f"{SECOND}{self._name}" if self.second else self._name

    @property
    def _name(self) -> str:
        if self.strategy == GREEDY:
            return GREEDY
        width = self.beam_width if self.strategy in WITH_BEAMS else self.sequential or self.m
        thinking = "" if self.think_tokens is None else f"@{self.think_tokens}"
        return f"{self.strategy}-{self.n}" + ("" if width is None else f"-{width}") + thinking

    @property
    def kind(self) -> str:
        """Kind of its units."""
        return f"{SECOND}{self._kind}" if self.second else self._kind

    @property
    def _kind(self) -> str:
        if self.strategy in SAMPLED:
            return SAMPLE if self.think_tokens is None else f"think-{self.think_tokens}"
        if self.strategy == "dvts":
            return f"dvts-{self.beam_width}"
        return f"revision-{self.sequential}" if self.strategy == "revision" else self._name

    @property
    def units(self) -> int:
        """Number of its units."""
        if self.strategy == "dvts":
            return self.n // self.beam_width
        if self.strategy == "revision":
            return self.n // (self.sequential or 1)
        return self.n if self.strategy in SAMPLED else 1

    @property
    def scored(self) -> bool:
        """Whether it pays for scores."""
        return self.strategy not in (GREEDY, "majority", RACE)


def default_arms(most: int = MOST) -> list[Arm]:
    """Greedy, the votes at powers of 2, trees of width 4 and up to half as many samples of width 2, chains of 4; none
    above ``most`` samples.
    """
    if most < 1:
        raise ConfigError(f"most={most}: arms have at least 1 sample")
    powers = [2**power for power in range(most.bit_length()) if 2**power <= most]
    sampled = [Arm(strategy, n) for strategy in SAMPLED for n in powers]
    trees = [Arm("dvts", n, WIDTH) for n in powers if n >= WIDTH]
    trees += [Arm("dvts", n, NARROW) for n in powers if NARROW <= n <= most // 2]
    searches = [Arm("beam_search", n, WIDTH) for n in (4, 16, 64, 256) if n <= most]
    chains = [Arm("revision", n, sequential=CHAIN) for n in (4, 16) if n <= most]
    return [Arm(GREEDY), *sampled, *trees, *searches, *chains]


def sampling_arms(most: int) -> list[Arm]:
    """The votes at powers of 2 and at ``most`` samples."""
    sizes = sorted({*(2**power for power in range(most.bit_length())), most} - {0})
    return [Arm(strategy, n) for strategy in SAMPLED for n in sizes]


def parse_arms(words: Sequence[str]) -> list[Arm]:
    """Arms as a command line names them: ``greedy majority:1,4,16,4@512 dvts:4x4,16x4 revision:16x4``."""
    arms = list(dict.fromkeys(arm for word in words for arm in _parsed(word)))
    if not arms:
        raise ConfigError("no arms are named; write them as greedy majority:1,4,16 dvts:16x4 beam_search:16x4")
    return arms


def demand(arms: Iterable[Arm], repeats: int | None = None) -> dict[str, int]:
    """Units that the arms and the samples behind their trees and chains take: kind -> number of units of a problem.

    A beam search, or a race, is run ``repeats`` times; by default once from 64 beams on, twice below.
    """
    if repeats is not None and repeats < 1:
        raise ConfigError(f"repeats={repeats}: a beam search is run at least once")
    wanted: dict[str, int] = {}
    for arm in arms:
        units = arm.units
        if arm.strategy in ("beam_search", RACE):
            units = repeats or (1 if arm.n >= REPEATED_BELOW else 2)
        wanted[arm.kind] = max(wanted.get(arm.kind, 0), units)
    return with_starts(wanted)


def _parsed(word: str) -> Iterator[Arm]:
    name, colon, sizes = word.partition(":")
    strategy = make_strategy(name).name
    if strategy == GREEDY:
        if colon:
            raise ConfigError(f"{word}: greedy is one sample and has no size; write greedy")
        yield Arm(GREEDY)
        return
    for size in sizes.split(","):
        match = _SIZE.fullmatch(size)
        chained = strategy not in SAMPLED
        if match is None or (match["width"] is not None) != chained:
            units = {"revision": "attempts in all x in a chain", RACE: "samples begun x waited for"}
            unit = units.get(strategy, "beams x beam width")
            form = f"{name}:16x4,64x4 ({unit})" if chained else f"{name}:1,4,16"
            raise ConfigError(f"{word}: {size!r} is no size of {strategy}; write {form}")
        n, width = int(match["n"]), int(match["width"] or 1)
        think = None if match["think"] is None else int(match["think"])
        sizes_of: dict[str, Any] = {{"revision": "sequential", RACE: "m"}.get(strategy, "beam_width"): width}
        yield Arm(strategy, n, think_tokens=think, **sizes_of)
