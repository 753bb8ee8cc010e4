"""The simulation conserves tokens and time; its engines take what their profile says, and more are no slower."""

import asyncio
import warnings
from dataclasses import replace
from itertools import count

import pytest

from adaptive_ttc.errors import CalibrationWarning
from adaptive_ttc.policies.fake import VirtualTimeLoop
from adaptive_ttc.policy import SampleRequest
from adaptive_ttc.prm.base import ScoreRequest
from tests.bench.toys import load


@pytest.fixture(autouse=True)
def _no_calibration():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CalibrationWarning)
        yield


@pytest.fixture
def engines(monkeypatch):
    return load(monkeypatch, "simulation.engines")


@pytest.fixture
def population(monkeypatch):
    return load(monkeypatch, "simulation.population")


@pytest.fixture
def run(monkeypatch):
    return load(monkeypatch, "simulation.run")


@pytest.fixture
def saturated(run, engines, population):
    """More problems than two replicas have slots for."""
    profile = engines.Profile(base=0.01, row=0.001, slots=4, prefill=0.0001, front=0.001, score_base=0.001)
    return run.Load(
        population=population.Population(), profile=profile, problems=48, samples=3.0, replicas=1, open_share=2.0
    )


IDS = count()


def in_virtual_time(work):
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(work())


def asked(population, number, *, most=1 << 10, seed=1, begun=()):
    prompt = (*population.prompt(population.problem(number)), *begun)
    return SampleRequest(id=str(next(IDS)), prompt_ids=prompt, max_tokens=most, seed=seed)


@pytest.mark.parametrize("prm", [False, True])
def test_tokens_and_time_are_conserved(run, saturated, prm):
    one = replace(saturated, prm=prm, problems=24)
    seen = run.simulated(one)
    assert seen.tokens == seen.spent <= one.budget
    assert seen.spent > 0.5 * one.budget
    assert len(seen.times) == one.problems
    assert seen.failed == 0
    assert 0 < seen.slots <= seen.busy <= 1
    assert max(seen.times) <= seen.makespan
    # no engine is faster than its steps
    assert seen.tokens / seen.makespan <= one.profile.tokens_per_s()
    assert (seen.scores > 0, 0 < seen.prm_busy <= 1) == (prm, prm)
    figures = seen.figures(one)
    assert figures["overspent"] == 0
    assert figures["p50_s"] <= figures["p99_s"] <= figures["simulated_s"]


def test_the_same_seed_is_the_same_run(run, saturated):
    first, second = run.simulated(saturated), run.simulated(saturated)
    assert (first.makespan, first.times, first.tokens, first.right) == (
        second.makespan,
        second.times,
        second.tokens,
        second.right,
    )
    assert run.simulated(replace(saturated, seed=1)).times != first.times


def test_more_replicas_are_no_slower(run, saturated):
    rates = [run.simulated(replace(saturated, replicas=number)) for number in (1, 2, 4)]
    throughput = [seen.tokens / seen.makespan for seen in rates]
    assert throughput == sorted(throughput)
    assert throughput[1] > 1.3 * throughput[0]


def test_one_solver_process_bounds_what_many_replicas_do(run, saturated):
    one = replace(saturated, replicas=8, solver=0.2)
    seen, free = run.simulated(one), run.simulated(replace(one, solver=0.0))
    assert seen.samples / seen.makespan <= 1 / one.solver
    assert seen.samples / seen.makespan > 0.8 / one.solver
    assert seen.makespan > 1.5 * free.makespan


def test_a_step_takes_what_the_profile_says(engines, population):
    people = population.Population(prompt_tokens=10)
    profile = engines.Profile(base=0.01, row=0.002, slots=2, prefill=0.001, front=0.1)

    async def work():
        loop = asyncio.get_running_loop()
        policy = engines.SimulatedPolicy(people, profile, 1)

        async def timed(number):
            sampled = await policy.sample(asked(people, number, most=20))
            return loop.time(), sampled

        alone, sampled = await timed(0)
        assert (len(sampled.token_ids), sampled.prompt_tokens, sampled.cached_tokens) == (20, 10, 0)
        assert alone == pytest.approx(0.1 + 10 * 0.001 + 20 * 0.012)
        sampled = (await timed(0))[1]
        assert (sampled.prompt_tokens, sampled.cached_tokens) == (0, 10)
        assert loop.time() - alone == pytest.approx(0.1 + 20 * 0.012)
        begun = loop.time()
        ends = [one - begun for one, _ in await asyncio.gather(*(timed(0) for _ in range(3)))]
        return ends, policy

    ends, policy = in_virtual_time(work)
    # the second enters 0.1 s after the first, which has done 8 1/3 steps; the third waits for its slot
    first = 0.2 + (20 - 0.1 / 0.012) * 0.014
    assert ends[0] == pytest.approx(first)
    second = first + (20 - (first - 0.2) / 0.014) * 0.014
    assert ends[1] == pytest.approx(second, rel=0.01)
    assert ends[2] > ends[1]
    assert policy.tokens == 100


def test_an_aborted_sample_keeps_what_it_has_and_frees_its_slot(engines, population):
    people = population.Population(tokens=400)
    profile = engines.Profile(base=0.01, row=0.0, slots=1)

    async def work():
        policy = engines.SimulatedPolicy(people, profile, 1)
        first, second = asked(people, 0, seed=1), asked(people, 1, seed=2, most=5)
        running = [asyncio.create_task(policy.sample(one)) for one in (first, second)]
        await asyncio.sleep(0.1005)
        await policy.abort(first.id)
        await policy.abort("unknown")
        return [await one for one in running], asyncio.get_running_loop().time(), policy

    (first, second), end, policy = in_virtual_time(work)
    assert (first.finish, len(first.token_ids)) == ("abort", 10)
    assert (second.finish, len(second.token_ids)) == ("length", 5)
    assert end == pytest.approx(0.1505)
    assert (policy.tokens, policy.replicas[0].in_flight) == (15, 0)


def test_pieces_of_a_sample_fit_together(population):
    people = population.Population()
    for seed in range(20):
        prompt = people.prompt(people.problem(3))
        whole = people.solution(prompt, seed, 1 << 10, stepwise=False)
        pieces = ()
        while not pieces or pieces[-1] != population.EOS:
            pieces += people.solution(prompt + pieces, seed, 7, stepwise=False)
        assert pieces == whole
        steps = ()
        while not steps or steps[-1] != population.EOS:
            steps += people.solution(prompt + steps, seed, 1 << 10, stepwise=True)
        assert steps == whole
        for kept in range(len(whole)):  # another sample may go on from any place
            rest = people.solution(prompt + whole[:kept], seed + 100, 1 << 10, stepwise=False)
            assert rest[-1] == population.EOS
            assert population.decode(whole[:kept] + rest).count("\n\n") == people.steps - 1
        assert population.decode(whole).count("\n\n") == people.steps - 1


def test_samples_are_right_as_often_as_the_problem_says(population):
    people = population.Population()
    number = next(one for one in range(99) if 0.3 < people.nature(one).right < 0.7)
    prompt, nature = people.prompt(people.problem(number)), people.nature(number)
    texts = [population.decode(people.solution(prompt, seed, 1 << 10, stepwise=False)) for seed in range(600)]
    answered = [text for text in texts if "\\boxed" in text]
    right = sum(f"\\boxed{{{people.answer(number)}}}" in text for text in answered) / len(answered)
    assert right == pytest.approx(nature.right, abs=0.08)
    assert len(answered) / len(texts) == pytest.approx(1 - nature.silent, abs=0.06)


def test_the_prm_takes_batches_one_after_the_other(engines, population):
    profile = engines.Profile(base=0.01, row=0.0, slots=1, score_base=1.0, score_token=0.1, score_rows=2)

    async def work():
        loop = asyncio.get_running_loop()
        prm = engines.SimulatedPRM(profile, 1, engines.Clockwork(loop))

        async def timed(question, *steps):
            scored = await prm.score(ScoreRequest(question, steps))
            return loop.time(), scored

        found = await asyncio.gather(*(timed(f"q{i}", "so it is") for i in range(4)))
        before = loop.time()
        again = await timed("q0", "so it is", "but no")
        return found, again[0] - before, again[1]

    found, again, scored = in_virtual_time(work)
    times = [when for when, _ in found]
    # four tokens each; the first goes alone, then two, then the last
    assert times == pytest.approx([1.4, 3.2, 3.2, 4.6])
    assert again == pytest.approx(1.2)  # only the new step is computed
    assert len(scored.scores) == 2
    assert all(0 <= one <= 1 for one in scored.scores)


async def test_figures_of_the_command(monkeypatch):
    module = load(monkeypatch, "simulate")
    given = {"profile": "h200", "samples": 2.0, "tokens": 55.0, "open": 2.0, "prm": 0, "seed": 0}
    figures = await module.measure(replicas="1,2", limit=12, stream=0, **given)
    for name in ("", "one_process."):
        for number in (1, 2):
            assert figures[f"{name}overspent.{number}"] == 0
            assert figures[f"{name}solver_us_per_sample.{number}"] > 0
    assert figures["slots"] == 256
    figures = await module.measure(replicas="1", limit=1, stream=20, **given)
    assert figures["problems"] == 20
    assert figures["overspent.stream"] == 0
    with pytest.raises(ValueError, match="neither cpu nor h200"):
        await module.measure(replicas="1", limit=1, stream=0, **{**given, "profile": "tpu"})


async def test_sides_of_sharding(monkeypatch):
    module = load(monkeypatch, "sharding")
    figures = await module.measure(limit=12, parts="2,3", samples=3.0, tokens=55.0, seeds=1)
    assert figures["overspent"] == 0
    sides = ["pool", "uniform", "sorted_split.3", "sorted_leased.3"]
    for side in (*sides, *(f"{one}.{number}" for one in ("split", "leased") for number in (2, 3))):
        assert 0 <= figures[f"accuracy.{side}"] <= 1
        assert 0 < figures[f"spent_share.{side}"] <= 1
    assert figures["less_pool.split.2"] == pytest.approx(100 * (figures["accuracy.split.2"] - figures["accuracy.pool"]))


def test_what_earlier_parts_leave_goes_to_later_ones(monkeypatch):
    module = load(monkeypatch, "sharding")
    told = []

    def solve(numbers, units):
        told.append(units)
        return module.Solved(dict.fromkeys(numbers, 1), units // 2)

    parts = module.cut(range(60), 6)
    assert [len(part) for part in parts] == [10] * 6
    assert module.in_parts(parts, 600, solve).spent == 300
    assert told == [100] * 6
    told.clear()
    assert module.leased(parts, 600, solve).spent == 349
    assert told == [100, 100, 100, 100, 125, 175]
