"""A policy's confidence as a reward model: measures against their definitions, what is not known, how it is named."""

import math
import random

import pytest

from adaptive_ttc.errors import ConfigError, EngineError
from adaptive_ttc.prm import ConfidencePRM, ConfidenceSettings, ScoreRequest, TokenLogprobs, load_prm
from adaptive_ttc.prm.base import traits_of
from adaptive_ttc.prm.confidence import MEASURES, NATS, VOCABULARY, of_prefixes

CHOSEN = tuple(random.Random(5).uniform(-2, 0) for _ in range(40))
TOP = tuple(random.Random(6).uniform(-20, -3) for _ in range(40))
STEPS = ("One.", "Two.", "Three.")


def request(chosen=CHOSEN, top=TOP, ends=(9, 30, 40)):
    return ScoreRequest("What?", STEPS, TokenLogprobs(chosen, top, ends))


def mean(some):
    return math.fsum(some) / len(some)


def defined(measure, sure, window):
    """A measure of a whole solution, as its paper says it."""
    groups = [mean(sure[last - window : last]) for last in range(window, len(sure) + 1)] or [mean(sure)]
    lowest = sorted(groups)[: max(1, math.ceil(len(groups) / 10))]
    whole = {"mean": mean(sure), "self_certainty": mean(sure), "tail": mean(sure[-window:])}
    return whole.get(measure, min(groups) if measure == "lowest_group" else mean(lowest))


@pytest.mark.parametrize("window", [1, 4, 40, 99])
@pytest.mark.parametrize("measure", MEASURES)
def test_measures_are_those_of_their_papers_at_every_step(measure, window):
    ends = (3, 3, 17, 40)
    expected = [defined(measure, CHOSEN[:end], window) for end in ends]
    assert of_prefixes(CHOSEN, ends, measure, window) == pytest.approx(expected)


async def test_scores_of_the_most_probable_tokens_grow_in_proportion_to_the_confidence():
    scored = await ConfidencePRM().score(request())
    assert scored.scores == pytest.approx([-mean(TOP[:end]) / NATS for end in (9, 30, 40)])
    assert (scored.prm_tokens, scored.cached_tokens) == (0, 0)
    doubled = await ConfidencePRM().score(request(top=tuple(2 * one for one in TOP)))
    assert doubled.scores == pytest.approx([2 * one for one in scored.scores])


async def test_without_them_the_score_is_the_geometric_mean_of_the_sampled_tokens_probabilities():
    scored = await ConfidencePRM().score(request(top=()))
    assert scored.scores == pytest.approx([math.prod(map(math.exp, CHOSEN[:end])) ** (1 / end) for end in (9, 30, 40)])


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("top", [(), (-1e4,) * 40, (0.05,) * 40], ids=["chosen", "sure", "rounded"])
async def test_scores_are_probabilities_whatever_comes(measure, top):
    prm = ConfidencePRM(ConfidenceSettings(measure=measure, window=7))
    for chosen in (CHOSEN, (0.1,) * 40, (-1e4,) * 40):
        assert all(0 <= one <= 1 for one in (await prm.score(request(chosen, top))).scores)


async def test_what_is_not_known_of_all_tokens_is_not_scored():
    prm = ConfidencePRM()
    for unknown in (ScoreRequest("What?", STEPS), request((), ())):
        with pytest.raises(ConfigError, match="take an engine that tells them"):
            await prm.score(unknown)
    with pytest.raises(ConfigError, match="2 ends of 3 steps"):
        await prm.score(request(ends=(9, 40)))
    await prm.aclose()
    with pytest.raises(EngineError, match="closed"):
        await prm.score(request())


def test_it_is_loaded_by_its_name_alone():
    prm = load_prm("confidence")
    assert prm.name == "confidence"
    assert (prm.parameters, prm.count_tokens(request())) == (0, 0)
    assert traits_of(prm).top_logprobs == 20
    tail = load_prm("confidence:tail", window=8, top=0)
    assert tail.settings == ConfidenceSettings(measure="tail", window=8, top=0)
    assert tail.name == "confidence:tail"
    assert load_prm("confidence:tail,window=8,top=0").fingerprint == tail.fingerprint
    assert load_prm("confidence:top=0").settings == ConfidenceSettings(top=0)
    assert traits_of(load_prm("confidence:self_certainty")).top_logprobs == VOCABULARY
    prints = [load_prm("confidence", window=window, top=top).fingerprint for window in (8, 9) for top in (0, 20)]
    assert len({*prints, prm.fingerprint, tail.fingerprint}) == 6


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("confidence:sure", {}, "choose one of mean, lowest_group"),
        ("confidence:tail,8", {}, "must be confidence:MEASURE,window=W,top=K; got '8'"),
        ("confidence:tail,window=few", {}, "got 'window=few'"),
        ("confidence:mean,k=3", {}, "leave out k"),
        ("confidence", {"device": "cuda"}, "leave out device"),
        ("confidence", {"window": 0}, "window is a whole number of at least 1"),
        ("confidence", {"top": -1}, "top is a whole number of at least 0"),
        ("rlhflow", {}, "name it, such as rlhflow:owner/name"),
    ],
)
def test_impossible_names_and_settings_are_refused(name, settings, said):
    with pytest.raises(ConfigError, match=said):
        load_prm(name, **settings)


def test_a_readers_name_before_a_model_chooses_the_reader(tmp_path):
    with pytest.raises(ConfigError, match=r"no config\.json"):  # found as a family's folder
        load_prm(f"qwen-math:{tmp_path}")


def test_a_folder_of_a_readers_name_is_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "confidence").mkdir()
    with pytest.raises(ConfigError, match=r"no config\.json"):
        load_prm("confidence")
