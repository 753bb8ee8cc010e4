"""Rewards for TRL: what they say without it, and that its trainer takes them."""

import math

import pytest

from adaptive_ttc.adapters.trl import AnswerReward, PRMReward, synchronous
from adaptive_ttc.errors import ConfigError, EngineError
from adaptive_ttc.loading import MINI_POLICY
from adaptive_ttc.prm import FakePRM

TEXTS = ["12 + 30 = 42\n\nThe answer is \\boxed{42}.", "It is\n\n\\boxed{\\frac{84}{2}}", "no answer", ""]
CHATS = [[{"role": "assistant", "content": text}] for text in TEXTS]
PROMPTS = ["What is 12 + 30?"] * 4
CHAT_PROMPTS = [[{"role": "system", "content": "Be brief."}, {"role": "user", "content": one}] for one in PROMPTS]


def scored(question, steps):
    assert question == PROMPTS[0]
    return 0.2 if len(steps) == 1 else 0.5 if "boxed" in steps[-1] else 0.8


@pytest.mark.parametrize(("prompts", "completions"), [(PROMPTS, TEXTS), (CHAT_PROMPTS, CHATS)])
@pytest.mark.parametrize(("how", "first"), [("last", 0.5), ("min", 0.2), ("prod", 0.1), ("mean", 0.35)])
async def test_a_prm_rewards_the_steps_of_completions(prompts, completions, how, first):
    reward = PRMReward(FakePRM(scored), how=how)
    found = await reward(prompts=prompts, completions=completions, trainer_state=None)
    assert found == [pytest.approx(first), pytest.approx(first), 0.2, None]
    assert reward.spent > 0


async def test_no_more_tokens_are_read_than_the_budget_has():
    whole = PRMReward(FakePRM(scored))
    await whole(PROMPTS, TEXTS)
    tight = PRMReward(FakePRM(scored), budget_tokens=whole.spent - 1)
    found = await tight(PROMPTS, TEXTS)
    assert sum(one is None for one in found) == 2
    assert 0 < tight.spent < whole.spent
    assert await PRMReward(FakePRM(scored), budget_tokens=0)(PROMPTS, TEXTS) == [None] * 4


async def test_a_completion_that_is_too_long_has_no_reward(caplog):
    prm = FakePRM(scored)
    count = prm.count_tokens

    def limited(request):
        if len(request.steps) > 1:
            raise ConfigError("the solution is too long for it")
        return count(request)

    prm.count_tokens = limited
    assert await PRMReward(prm)(PROMPTS, TEXTS) == [None, None, 0.2, None]
    assert "too long for it" in caplog.text


async def test_a_failed_call_is_charged_and_told():
    prm = FakePRM(scored)
    prm.fail(EngineError("it is down"))
    reward = PRMReward(prm, budget_tokens=1000)
    with pytest.raises(EngineError, match="it is down"):
        await reward(PROMPTS[:1], TEXTS[:1])
    assert reward.spent > 0


async def test_right_answers_are_rewarded_however_they_are_written():
    reward = AnswerReward()
    found = await reward(PROMPTS, CHATS, answer=["42", 42, "42", None])
    assert found == [1.0, 1.0, 0.0, None]
    with pytest.raises(ConfigError, match="column 'answer'"):
        await reward(PROMPTS, TEXTS, solution=["42"] * 4)
    reward.grader.close()


def test_a_plain_function_says_the_same():
    reward = synchronous(PRMReward(FakePRM(scored)))
    assert reward(PROMPTS, TEXTS, trainer_state=None) == [0.5, 0.5, 0.2, None]
    assert reward.__name__.endswith("_last")


def test_what_cannot_reward_is_refused():
    with pytest.raises(ConfigError, match="log-probabilities"):
        PRMReward("confidence")
    with pytest.raises(ConfigError, match="aggregation"):
        PRMReward(FakePRM(scored), how="best")


@pytest.mark.filterwarnings("ignore")
def test_the_trainer_takes_them(tmp_path):
    trl = pytest.importorskip("trl", reason="a part of `make test-adapters`")
    import datasets

    rows = [{"prompt": [{"role": "user", "content": f"Evaluate ${i} + 8$."}], "answer": str(i + 8)} for i in range(4)]
    rewards = [PRMReward("mini", how="min"), AnswerReward(), synchronous(PRMReward("mini"))]
    trainer = trl.GRPOTrainer(
        model=str(MINI_POLICY),
        reward_funcs=rewards,
        args=trl.GRPOConfig(
            output_dir=str(tmp_path), max_steps=2, per_device_train_batch_size=4, num_generations=4,
            max_completion_length=48, use_cpu=True, report_to=[], save_strategy="no", logging_steps=1, bf16=False,
        ),
        train_dataset=datasets.Dataset.from_list(rows),
    )  # fmt: skip
    trainer.train()
    logged = [one for one in trainer.state.log_history if "reward" in one]
    assert len(logged) == 2
    for reward in rewards:
        assert all(math.isfinite(one[f"rewards/{reward.__name__}/mean"]) for one in logged)
    assert rewards[0].spent > 0
