import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptive_ttc.allocation.envelope import RATIO, Demand, Envelope, Piece, divided, pieces
from adaptive_ttc.errors import ConfigError
from adaptive_ttc.estimate.gain import Option

grid = st.builds(lambda cost, gain: Option((cost, gain), cost, gain / 64, 1), st.integers(1, 40), st.integers(-16, 64))
options = st.lists(grid, max_size=9)


def upper(points, cost):
    """The brute force: the highest point at this cost of any segment between two points; gain may be left unused."""
    reached = [(c, g) for c, g in points if c <= cost]
    best = max(g for _, g in reached)
    for c0, g0 in reached:
        for c1, g1 in points:
            if c1 > cost:
                best = max(best, g0 + (g1 - g0) * (cost - c0) / (c1 - c0))
    return best


def height(envelope, cost):
    total, at = 0.0, 0.0
    for vertex, slope in zip(envelope.vertices, envelope.slopes, strict=True):
        step = min(vertex.cost, cost) - at
        if step <= 0:
            break
        total, at = total + slope * step, at + step
    return total


@given(options)
def test_the_envelope_is_the_upper_hull(some):
    envelope = Envelope.of(some)
    points = [(0, 0.0), *((one.cost, one.gain) for one in some)]
    for cost in range(45):
        assert height(envelope, cost) == pytest.approx(upper(points, cost), abs=1e-9)
    assert set(envelope.vertices) <= set(some)
    assert all(slope > 0 for slope in envelope.slopes)
    assert list(envelope.slopes) == sorted(envelope.slopes, reverse=True)
    assert envelope.slope == pytest.approx(max([0.0, *(one.gain / one.cost for one in some)]))


@given(options, st.randoms())
def test_the_order_of_options_says_nothing(some, rng):
    shuffled = list(some)
    rng.shuffle(shuffled)
    assert Envelope.of(shuffled) == Envelope.of(some)


@given(options, st.integers(1, 300))
def test_the_vertex_of_a_price_is_the_best_buy(some, thousandths):
    price = thousandths / 7919  # no ratio of the drawn numbers
    chosen = Envelope.of(some).at(price)
    surplus = chosen.gain - price * chosen.cost if chosen else 0.0
    assert surplus == pytest.approx(max([0.0, *(one.gain - price * one.cost for one in some)]), abs=1e-12)


def test_all_options_on_one_line_stay_the_smallest_first():
    line = [Option(n, n, n / 64, 1) for n in (4, 1, 2)]
    assert [one.action for one in Envelope.of(line).vertices] == [1, 2, 4]


@pytest.mark.parametrize(
    ("cost", "gain", "slice_cost", "says"),
    [
        (0, 0.1, 1, "above 0"),
        (-1, 0.1, 1, "above 0"),
        (math.nan, 0.1, 1, "above 0"),
        (math.inf, 0.1, 1, "above 0"),
        (1, math.nan, 1, "finite number"),
        (1, math.inf, 1, "finite number"),
        (1, 0.1, 0, "at least 1 unit"),
    ],
)
def test_impossible_options_are_refused(cost, gain, slice_cost, says):
    with pytest.raises(ConfigError, match=says):
        Option("it", cost, gain, slice_cost)


def brute_price(envelopes, left):
    """The highest slope at which, all segments that steep being bought, what is left is wanted, or more."""
    slopes = sorted({slope for one in envelopes for slope in one.slopes}, reverse=True)
    for price in slopes:
        if sum(vertex.cost for one in envelopes if (vertex := one.at(price))) >= max(1, left):
            return price
    return None


@given(st.lists(options, max_size=8), st.integers(0, 200))
def test_the_price_is_that_of_brute_force(problems, left):
    envelopes = [Envelope.of(some) for some in problems]
    demand = Demand()
    for one in envelopes:
        demand.add(pieces(one, least=0.0))
    exact, price = brute_price(envelopes, left), demand.price(left)
    if exact is None:
        assert price is None
    else:
        assert exact / RATIO * (1 - 1e-6) <= price <= exact


@given(st.lists(options, min_size=1, max_size=6), st.integers(0, 100))
def test_what_is_removed_leaves_no_trace(problems, left):
    demand, other = Demand(), Demand()
    wanted = [pieces(Envelope.of(some), least=0.001) for some in problems]
    for one in wanted:
        demand.add(one)
        demand.price(left)
    other.add(wanted[0])
    for one in wanted[1:]:
        demand.remove(one)
    assert demand.total == other.total
    assert demand.price(left) == other.price(left)


@given(options, st.integers(0, 60))
def test_what_was_given_is_taken_off_the_steepest_pieces(some, given_):
    envelope = Envelope.of(some)
    whole, rest = pieces(envelope, least=0.0), pieces(envelope, least=0.0, given=given_)
    assert sum(piece.units for piece in rest) == max(0, sum(piece.units for piece in whole) - given_)
    assert rest == () or rest[-1].rung == whole[-1].rung
    taken, left = divided(whole, given_)
    assert left == rest
    assert sum(piece.units for piece in taken) == min(given_, sum(piece.units for piece in whole))
    assert taken == () or taken == (*whole[: len(taken) - 1], Piece(whole[len(taken) - 1].rung, taken[-1].units))


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e9, 1e16])
def test_prices_of_any_unit_are_told_to_one_percent(scale):
    demand = Demand()
    demand.add(pieces(Envelope.of([Option("it", 1_000 * scale, 0.3, 1)]), least=0.0))
    assert demand.price(0) == pytest.approx(0.3 / (1_000 * scale), rel=0.011)
