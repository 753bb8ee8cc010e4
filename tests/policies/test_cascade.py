"""A cascade of two policies: what it is called, what it weighs, what it refuses, what passes it on."""

import math

import pytest

from adaptive_ttc.driver.boundary import CheckedPolicy, checked_policy
from adaptive_ttc.errors import ConfigError
from adaptive_ttc.policies.cascade import Cascade
from adaptive_ttc.policy import SampleRequest, second_policy, second_weight
from adaptive_ttc.run.statistics import CallMeter, MeteredPolicy
from adaptive_ttc.types import Problem
from adaptive_ttc.wrappers import WrappedPolicy
from tests.doubles import Shifted, TinyPolicy


class Other(TinyPolicy):
    fingerprint = "other"


class Closing(TinyPolicy):
    closed = False

    async def aclose(self):
        self.closed = True


class Recorded(TinyPolicy):
    def recorded_problem(self):
        return Problem.of("1 + 1")


def test_its_name_and_fingerprint_change_with_either_policy():
    made = Cascade(TinyPolicy(), Shifted())
    assert made.name == "tiny then large"
    others = [Cascade(Other(), Shifted()), Cascade(TinyPolicy(), Other()), Cascade(Shifted(), TinyPolicy())]
    assert len({one.fingerprint for one in (made, *others, TinyPolicy())}) == 5
    assert made.fingerprint == Cascade(TinyPolicy(), Shifted()).fingerprint


def test_a_token_of_the_second_counts_the_ratio_of_the_parameters_or_what_is_given():
    assert Cascade(TinyPolicy(), Shifted()).second_weight == 4
    assert Cascade(TinyPolicy(), Shifted(), 2.5).second_weight == 2.5
    assert Cascade(Shifted(), TinyPolicy()).second_weight == 1, "a smaller one counts no less than the first"


@pytest.mark.parametrize("weight", [0.5, 0, -1, math.nan, math.inf])
def test_a_weight_below_one_is_refused(weight):
    with pytest.raises(ConfigError, match="counts at least 1 of the first's"):
        Cascade(TinyPolicy(), Shifted(), weight)


def test_the_weight_must_be_given_where_a_size_is_not_known():
    unknown = Shifted()
    unknown.parameters = 0
    for pair in ((TinyPolicy(), unknown), (unknown, TinyPolicy())):
        with pytest.raises(ConfigError, match="give second_weight"):
            Cascade(*pair)
        assert Cascade(*pair, 3.0).second_weight == 3


def test_a_cascade_is_of_two_models():
    made = Cascade(TinyPolicy(), Shifted())
    for pair in ((made, TinyPolicy()), (TinyPolicy(), made), (WrappedPolicy(made), TinyPolicy())):
        with pytest.raises(ConfigError, match="no other cascade"):
            Cascade(*pair)
    for pair in ((Recorded(), TinyPolicy()), (TinyPolicy(), Recorded())):
        with pytest.raises(ConfigError, match="recorded samples are none"):
            Cascade(*pair)


async def test_closing_it_closes_both_even_if_one_cannot_be():
    class Stuck(TinyPolicy):
        async def aclose(self):
            raise RuntimeError("stuck")

    first, second = Closing(), Closing()
    await Cascade(first, second).aclose()
    assert first.closed
    assert second.closed
    other = Closing()
    with pytest.raises(RuntimeError, match="stuck"):
        await Cascade(Stuck(), other).aclose()
    assert other.closed


async def test_the_second_passes_the_boundary_and_the_meter_too():
    second, meter = Shifted(), CallMeter("policy")
    passed = checked_policy(MeteredPolicy(Cascade(TinyPolicy(), second, 3.0), meter))
    assert second_weight(passed) == 3
    inner = second_policy(passed)
    assert isinstance(inner, CheckedPolicy)
    assert inner.name == "large"
    ids = inner.encode(Problem.of("how much?"))
    request = SampleRequest(id="a", prompt_ids=ids, max_tokens=3, seed=1, temperature=1.0)
    sampled = await inner.sample(request)
    assert meter.statistics().tokens == len(sampled.token_ids) == second.inner.delivered
    assert second_policy(checked_policy(TinyPolicy())) is None
    assert second_weight(TinyPolicy()) == 1
