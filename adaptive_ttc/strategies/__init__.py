"""Ways to spend samples on a problem, as generators of requests; it knows no engine and no event loop."""

from adaptive_ttc.strategies.base import Strategy, make_strategy, register, strategy_names
from adaptive_ttc.strategies.sampling import BestOfN, Greedy, Majority, Sampling, WeightedBestOfN

__all__ = [
    "BestOfN",
    "Greedy",
    "Majority",
    "Sampling",
    "Strategy",
    "WeightedBestOfN",
    "make_strategy",
    "register",
    "strategy_names",
]
