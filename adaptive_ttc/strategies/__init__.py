"""Ways to spend samples on a problem, as generators of requests without I/O."""

# Users are shown the strategies in the order of these imports.
# isort: off
from adaptive_ttc.strategies.base import Strategy
from adaptive_ttc.strategies.registry import make_strategy, register, strategy_names
from adaptive_ttc.strategies.sampling import BestOfN, Greedy, Majority, Sampling, WeightedBestOfN
from adaptive_ttc.strategies.short import ShortMAtK
from adaptive_ttc.strategies.beam_search import BeamSearch
from adaptive_ttc.strategies.dvts import DVTS
from adaptive_ttc.strategies.revision import Revision
# isort: on

__all__ = [
    "DVTS",
    "BeamSearch",
    "BestOfN",
    "Greedy",
    "Majority",
    "Revision",
    "Sampling",
    "ShortMAtK",
    "Strategy",
    "WeightedBestOfN",
    "make_strategy",
    "register",
    "strategy_names",
]
