"""The recorder and its file: what is kept, what is left out, what is refused; where tokens end in a text."""

from __future__ import annotations

import json
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptive_ttc.errors import ConfigError, EngineError
from adaptive_ttc.policies.fake import FakePolicy, toy_right_so_far
from adaptive_ttc.policies.fake.writers import decode_tokens, encode_text
from adaptive_ttc.policies.replay import Recorder, ReplayPolicy, SampleSettings, load_record, save_record
from adaptive_ttc.policies.replay.recorder import LeftOutWarning, text_ends
from adaptive_ttc.policy import Policy
from adaptive_ttc.prm import FakePRM, RewardModel
from adaptive_ttc.solver import Solver
from adaptive_ttc.types import Problem

QUESTION = "Add 17 + 25 + 31 + 8."


def recorder_of(**settings):
    return Recorder(
        FakePolicy.generative(error_rate=0.15), FakePRM.truthful(toy_right_so_far), settings=SampleSettings(**settings)
    )


async def solved(recorder, **request):
    async with Solver(recorder.policy, recorder.prm) as solver:
        return await solver.solve(request.pop("question", QUESTION), **request)


async def test_what_is_recorded_is_what_was_handed_in():
    recorder = recorder_of()
    assert isinstance(recorder.policy, Policy)
    assert isinstance(recorder.prm, RewardModel)
    solution = await solved(recorder, strategy="best_of_n", n=6)
    [problem] = recorder.record().problems
    assert problem.messages == solution.problem.messages
    for sample, candidate in zip(problem.samples, solution.candidates, strict=True):
        prefix = candidate.prefix
        assert (sample.path, sample.token_ids, sample.text) == (prefix.path, prefix.token_ids, prefix.text)
        assert (sample.finish, sample.scores) == (prefix.finish, prefix.scores)
        assert sum(sample.logprobs) == pytest.approx(prefix.logprob)
        assert sample.prompt_tokens + sample.cached_tokens == len(problem.prompt_ids)


async def test_recording_changes_nothing():
    recorder = recorder_of()
    recorded = await solved(recorder, strategy="best_of_n", n=6)
    async with Solver(FakePolicy.generative(error_rate=0.15), FakePRM.truthful(toy_right_so_far)) as solver:
        plain = await solver.solve(QUESTION, strategy="best_of_n", n=6)
    assert recorded.candidates == plain.candidates
    assert recorded.usage.prm_tokens == plain.usage.prm_tokens


async def test_leases_are_put_together_and_what_the_budget_cut_is_left_out():
    whole = recorder_of()
    expected = {one.prefix.path: one.prefix for one in (await solved(whole, strategy="majority", n=6)).candidates}
    recorder = recorder_of()
    solution = await solved(recorder, strategy="majority", n=6, budget_tokens=400)
    cut = [one for one in solution.candidates if one.prefix.finish == "budget"]
    assert cut
    assert solution.usage.num_calls > len(solution.candidates)
    with pytest.warns(LeftOutWarning, match=f"{len(cut)} samples were begun and did not end"):
        record = recorder.record()
    assert record.left_out == len(cut)
    samples = record.problems[0].samples
    assert len(samples) == len(solution.candidates) - len(cut) > 0
    assert all(sample.token_ids == expected[sample.path].token_ids for sample in samples)


async def test_a_sample_that_is_drawn_again_is_recorded_once_and_ends_what_was_cut():
    recorder = recorder_of()
    async with Solver(recorder.policy) as solver:
        await solver.solve(QUESTION, strategy="majority", n=4, budget_tokens=250)
        for n in (2, 4, 3):
            await solver.solve(QUESTION, strategy="majority", n=n)
        assert [sample.path for sample in recorder.record().problems[0].samples] == [(0,), (1,), (2,), (3,)]
        await solver.solve(QUESTION, strategy="majority", n=2, seed=1)
    record = recorder.record()
    assert [sample.path for sample in record.problems[0].samples] == [(0,), (0,), (1,), (1,), (2,), (3,)]
    assert record.left_out == 0


async def test_samples_cut_at_max_tokens_are_whole_as_recorded():
    recorder = recorder_of(max_tokens=20)
    solution = await solved(recorder, strategy="majority", n=3)
    assert {one.prefix.finish for one in solution.candidates} == {"length"}
    record = recorder.record()
    assert [sample.finish for sample in record.problems[0].samples] == ["length"] * 3
    async with Solver(ReplayPolicy(record)) as solver:
        assert (await solver.solve(QUESTION, strategy="majority", n=3)).candidates == solution.candidates
        shorter = await solver.solve(QUESTION, strategy="majority", n=3, max_tokens=7)
        assert [len(one.prefix.token_ids) for one in shorter.candidates] == [7] * 3
        assert {one.prefix.finish for one in shorter.candidates} == {"length"}


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        ({"strategy": "beam_search", "n": 4}, "beam_search cannot be recorded"),
        ({"strategy": "revision", "n": 4}, "revision cannot be recorded"),
        ({"strategy": "majority", "n": 2, "temperature": 1.0}, r"SampleSettings\(temperature=1\)"),
        ({"strategy": "majority", "n": 2, "max_tokens": 30}, r"SampleSettings\(max_tokens=30\)"),
    ],
)
async def test_what_could_not_be_replayed_is_refused_before_it_is_drawn(request_, reason):
    recorder = recorder_of()
    with pytest.raises(ConfigError, match=reason):
        await solved(recorder, **request_)
    with pytest.raises(ConfigError, match="nothing was recorded"):
        recorder.record()


async def test_settings_of_the_record_stand_where_none_are_named():
    recorder = recorder_of(temperature=0.5, max_tokens=300)
    solution = await solved(recorder, strategy="majority", n=2)
    assert (solution.strategy.config.temperature, solution.strategy.config.max_tokens) == (0.5, 300)


async def test_failures_lose_no_sample():
    policy = FakePolicy.generative(error_rate=0.15)
    policy.lose_connection(after_tokens=5, times=2)
    recorder = Recorder(policy)
    solution = await solved(recorder, strategy="majority", n=4)
    assert solution.usage.lost_tokens > 0
    samples = recorder.record().problems[0].samples
    assert [sample.token_ids for sample in samples] == [one.prefix.token_ids for one in solution.candidates]
    policy.fail(EngineError("broken"))
    with pytest.raises(EngineError):
        await Solver(recorder.policy).solve("Add 1 + 2 + 3.", strategy="majority", n=1)
    assert len(recorder.record().problems) == 1


async def test_a_file_gives_back_the_record(tmp_path):
    recorder = recorder_of()
    async with Solver(recorder.policy, recorder.prm) as solver:
        await solver.solve(QUESTION, strategy="weighted_best_of_n", n=4)
        await solver.solve("Füge 3 + 4 + 5 zusammen… 🙂", strategy="majority", n=3)
    record = recorder.save(tmp_path / "new" / "record.jsonl")
    assert load_record(tmp_path / "new" / "record.jsonl") == record
    save_record(load_record(tmp_path / "new" / "record.jsonl"), tmp_path / "again.jsonl")
    assert (tmp_path / "again.jsonl").read_bytes() == (tmp_path / "new" / "record.jsonl").read_bytes()


async def test_foreign_and_damaged_files_are_refused(tmp_path):
    recorder = recorder_of()
    await solved(recorder, strategy="best_of_n", n=2)
    path = tmp_path / "record.jsonl"
    recorder.save(path)
    header, problem = path.read_text().splitlines()

    def refused(text, reason):
        path.write_text(text)
        with pytest.raises(ConfigError, match=reason):
            load_record(path)

    refused(header.replace('"version": 1', '"version": 2') + "\n" + problem, "has version 2, this library reads 1")
    refused(header, "without problems")
    refused(f"{header}\n{problem[:-9]}", "line 2 is damaged")
    refused(f"{header}\n{problem}\n{problem}", "two problems of a record have the same messages")
    for field, value in (("ends", [1]), ("logprobs", [-1.0]), ("scores", [0.5] * 99), ("finish", "budget")):
        entry = json.loads(problem)
        entry["samples"][1][field] = value
        refused(f"{header}\n{json.dumps(entry)}", "is damaged")
    entry = json.loads(problem)
    entry["prompt_ids"][0] = -1
    refused(f"{header}\n{json.dumps(entry)}", "is damaged .*token ids lie between 0 and")
    refused('{"problem": "1 + 1", "answer": "2"}\n', "is no record")
    refused("no JSON at all", "is no record")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_record(tmp_path)
    with pytest.raises(ConfigError, match="cannot be read"):
        load_record(tmp_path / "missing.jsonl")


@given(st.text(max_size=120), st.integers(0, 3))
def test_half_a_solution_has_the_text_that_its_tokens_stand_for(text, repeated):
    text = text * (1 + repeated)
    ids = encode_text(text)
    for k, end in enumerate(text_ends(decode_tokens, ids, text), start=1):
        # half a character is not there yet
        assert text[:end] == bytes(ids[:k]).decode(errors="ignore")


WORDS = ["", "▁So", "▁7", "▁", "+", "1", "\n\n", "▁ü", ".", "▁the"]


def strips_a_leading_blank(ids):
    text = "".join(WORDS[one] for one in ids).replace("▁", " ")
    return text.removeprefix(" ")


def merges_blanks_before_dots(ids):
    return strips_a_leading_blank(ids).replace(" .", ".").replace(" +", "+")


@pytest.mark.parametrize("decode", [strips_a_leading_blank, merges_blanks_before_dots])
@settings(max_examples=50)
@given(ids=st.lists(st.integers(0, len(WORDS) - 1), min_size=1, max_size=80))
def test_decoders_that_look_at_what_stands_before_are_followed(decode, ids):
    text = decode(ids)
    ends = text_ends(decode, ids, text)
    assert list(ends) == sorted(ends)
    assert ends[-1] == len(text)
    for k in range(1, len(ids)):
        said = decode(ids[:k])
        # what a later token takes back is not said yet
        assert text[: ends[k - 1]] == said or (not text.startswith(said) and said.startswith(text[: ends[k - 1]][:-1]))


def test_long_solutions_are_decoded_in_short_pieces():
    lengths = []

    def decode(ids):
        lengths.append(len(ids))
        return decode_tokens(ids)

    text = "So 17 + 25 = 42.\n\n" * 200
    ends = text_ends(decode, encode_text(text), text)
    assert ends == tuple(range(1, len(text) + 1))
    assert max(lengths) < 50


async def test_a_replay_can_be_recorded_again():
    first = recorder_of()
    await solved(first, strategy="best_of_n", n=5)
    again = Recorder(ReplayPolicy(first.record()), settings=first.settings)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        async with Solver(again.policy) as solver:
            with pytest.raises(ConfigError, match="holds 5 samples"):
                await solver.solve(QUESTION, strategy="majority", n=6)
            await solver.solve(Problem.of(QUESTION), strategy="majority", n=5)
        copy = again.record()
    ids = [[sample.token_ids for sample in one.problems[0].samples] for one in (first.record(), copy)]
    assert ids[0] == ids[1]
