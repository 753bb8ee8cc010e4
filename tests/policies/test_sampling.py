import numpy as np
import pytest
import torch
from scipy.stats import chisquare, kstest
from transformers import TopPLogitsWarper

from adaptive_ttc.policies.transformers.batched_model import Uniforms, draw


def ones(count, value=1.0):
    return np.full(count, value)


def at(uniforms, *positions):
    """The numbers of the first rows at these positions."""
    return uniforms.at(np.arange(len(positions)), np.array(positions))


def drawn(logits, *, temperature=1.0, top_p=1.0, count=6_000, seed=0):
    """How often each token is drawn, every row from its own position of one seed's stream."""
    uniforms = Uniforms(1)
    uniforms.seed(0, seed)
    numbers = np.array([at(uniforms, position)[0] for position in range(count)])
    rows = torch.tensor(logits, dtype=torch.float32).expand(count, -1)
    tokens, _ = draw(rows, ones(count, temperature), ones(count, top_p), numbers)
    return np.bincount(tokens, minlength=len(logits))


@pytest.mark.parametrize("temperature", [0.8, 1.0, 2.0])
def test_frequencies_follow_the_softmax(temperature):
    logits = np.array([2.0, 1.0, 0.0, -1.0, 1.5, 0.3])
    counts = drawn(logits, temperature=temperature)
    weights = np.exp(logits / temperature)
    assert chisquare(counts, weights / weights.sum() * counts.sum()).pvalue > 0.01
    # the test has the power to tell the neighbouring temperature
    other = np.exp(logits / (temperature * 1.3))
    assert chisquare(counts, other / other.sum() * counts.sum()).pvalue < 1e-4


def test_the_streams_of_different_seeds_are_uniform_and_unrelated():
    uniforms = Uniforms(2)
    uniforms.seed(0, 1)
    uniforms.seed(1, 2)
    numbers = np.array([at(uniforms, position, position) for position in range(4000)])
    assert kstest(numbers[:, 0], "uniform").pvalue > 0.01
    assert kstest(numbers[:, 1], "uniform").pvalue > 0.01
    assert abs(np.corrcoef(numbers.T)[0, 1]) < 0.05
    assert abs(np.corrcoef(numbers[1:, 0], numbers[:-1, 0])[0, 1]) < 0.05


def test_a_number_is_a_function_of_seed_and_position():
    forward, backward = Uniforms(3), Uniforms(3)
    for uniforms in (forward, backward):
        uniforms.seed(2, 77)
        uniforms.seed(0, -5)
    up = [at(forward, position, 0, position) for position in range(200)]
    backward.move(2, 1)
    down = [at(backward, position, position) for position in reversed(range(200))][::-1]
    assert [row[2] for row in up] == [row[1] for row in down]
    assert [row[0] for row in up] == [row[0] for row in down]
    assert len({row[2] for row in up}) == 200
    assert forward.at(np.array([2, 0]), np.array([7, 9])).tolist() == [up[7][2], up[9][0]]


def test_no_draw_depends_on_the_other_rows():
    torch.manual_seed(0)
    logits = torch.randn(8, 50)
    temperature, top_p = np.array([0.0, 0.5, 1.0, 2.0] * 2), np.array([1.0, 0.3, 0.9, 1.0, 0.5, 1.0, 1.0, 0.7])
    uniforms = np.linspace(0.01, 0.99, 8)
    tokens, logprobs = draw(logits, temperature, top_p, uniforms)
    for row in range(8):
        part = slice(row, row + 1)
        token, logprob = draw(logits[part], temperature[part], top_p[part], uniforms[part])
        assert (token[0], logprob[0]) == (tokens[row], logprobs[row])


def test_the_ends_of_the_unit_interval_draw_possible_tokens():
    logits = torch.tensor([[-torch.inf, 0.0, 1.0, -torch.inf], [-torch.inf, 1e-7, 0.0, -torch.inf]])
    for uniform in (0.0, np.nextafter(1.0, 0.0)):
        for top_p in (1.0, 0.999):
            tokens, logprobs = draw(logits, ones(2, 0.8), ones(2, top_p), ones(2, uniform))
            assert set(tokens.tolist()) <= {1, 2}
            assert np.isfinite(logprobs).all()


@pytest.mark.parametrize("top_p", [0.05, 0.4, 0.75, 0.95])
def test_the_nucleus_is_that_of_transformers(top_p):
    torch.manual_seed(1)
    logits = 2 * torch.randn(1, 30)
    reference = TopPLogitsWarper(top_p)(None, logits / 0.8)
    support = {index for index, logit in enumerate(reference[0].tolist()) if logit != -torch.inf}
    grid = (np.arange(4000) + 0.5) / 4000
    tokens, _ = draw(logits.expand(4000, -1), ones(4000, 0.8), ones(4000, top_p), grid)
    assert set(tokens.tolist()) <= support
    frequencies = np.bincount(tokens, minlength=30) / 4000
    assert frequencies == pytest.approx(torch.softmax(reference, -1)[0].numpy(), abs=1e-3)


def test_logprobs_are_of_temperature_one():
    torch.manual_seed(2)
    logits = torch.randn(6, 20)
    tokens, logprobs = draw(logits, np.array([0.0, 0.3, 1.0, 3.0, 0.8, 0.8]), ones(6, 0.9), ones(6, 0.5))
    expected = torch.log_softmax(logits, -1)[torch.arange(6), torch.tensor(tokens)]
    assert logprobs == pytest.approx(expected.numpy(), abs=1e-6)
