"""What each check says of pairs that are in order, and of pairs with one thing wrong each."""

import json
from dataclasses import replace

import pytest

from adaptive_ttc.cli import main
from adaptive_ttc.doctor.check import by_share
from adaptive_ttc.doctor.examine import examine
from adaptive_ttc.doctor.model_checks import check_calibration
from adaptive_ttc.doctor.policy_checks import COMMON_PROMPT
from adaptive_ttc.doctor.problems import WORKED, rows
from adaptive_ttc.errors import EngineError
from adaptive_ttc.estimate.pair_calibration import prior_of
from adaptive_ttc.loading import MINI_CALIBRATION, MINI_POLICY, MINI_PRM, load_policy
from adaptive_ttc.policies.cascade import Cascade
from adaptive_ttc.policies.fake import FakePolicy
from adaptive_ttc.policies.openai import OpenAIPolicy
from adaptive_ttc.prm import ConfidencePRM, load_prm
from adaptive_ttc.prm.fake import FakePRM
from adaptive_ttc.solver import Solver
from adaptive_ttc.stopping.registry import make_rule
from adaptive_ttc.types import join_steps
from tests.policies.openai_server import ToyServer, folder
from tests.policies.server_profiles import MODEL, VLLM

RIGHT = {one.problem: join_steps(one.right) for one in WORKED}
WRONG = {one.problem: join_steps(one.wrong) for one in WORKED}


def writes(text=RIGHT.get, other=None, **settings):
    """A policy whose solutions of a problem are these; every second one the other."""
    script = {}
    for one in WORKED:
        first, second = text(one.problem), (other or text)(one.problem)
        script[one.problem] = [first, second] * 4
        script[" ".join([one.problem] * COMMON_PROMPT)] = ["It is 1."] * 4
    return FakePolicy.scripted(script, **settings)


def knows(question, steps):
    """Scores that tell right solutions from wrong ones."""
    return 0.9 if RIGHT[question].startswith(join_steps(steps)) else 0.1


async def found(policy, prm=None, **settings):
    async with Solver(policy, prm, calibration=prior_of(2048, prm=False)) as solver:
        return {check.name: check async for check in examine(solver, rows(), **settings)}


async def test_a_pair_in_order_has_no_fault():
    checks = await found(writes(other=WRONG.get), FakePRM(knows))
    assert {check.status for check in checks.values()} <= {"ok", "warning"}
    assert checks["answers"].figures == {"share": 1.0, "right": 0.5}
    assert checks["PRM polarity"].figures == {"pairs": 25, "share": 1.0, "own_share": 1.0, "worked_share": 1.0}
    assert checks["steps"].status == checks["ends"].status == "ok"
    assert checks["speed"].figures["tokens_per_second"] > 0
    assert checks["calibration"].status == "warning"  # there is none
    assert all(check.remedy for check in checks.values() if check.status != "ok")
    assert not any(check.remedy for check in checks.values() if check.status == "ok")


async def test_without_a_prm_its_checks_are_left_out():
    checks = await found(writes())
    assert not [name for name in checks if name.startswith("PRM")]
    assert checks["answers"].status == "ok"


WRONG_WITH_POLICIES = {
    "no answers": (writes(lambda problem: "It is\n\n10"), {}, "answers", "fault", r"\\boxed"),
    "no steps": (writes(lambda problem: "\\boxed{10}"), {}, "steps", "warning", "blank line"),
    "nothing right": (writes(WRONG.get), {}, "answers", "warning", "better policy"),
    "no end": (writes(lambda problem: "on and on " * 20), {"max_tokens": 20}, "ends", "fault", "raise max_tokens"),
    "no room": (writes(max_context=1900), {}, "chat template", "warning", "max_tokens="),
}


@pytest.mark.parametrize("case", WRONG_WITH_POLICIES)
async def test_what_is_wrong_with_a_policy_is_told_with_the_remedy(case):
    policy, settings, name, status, remedy = WRONG_WITH_POLICIES[case]
    check = (await found(policy, **settings))[name]
    assert check.status == status
    assert remedy.replace("\\\\", "\\") in check.remedy


async def test_a_template_that_loses_the_problem_ends_the_checks():
    policy = writes()
    policy.encode = lambda problem: (1, 2, 3)
    checks = await found(policy)
    assert [(name, check.status) for name, check in checks.items()] == [("chat template", "fault")]


async def test_a_prm_that_scores_the_wrong_way_round_is_a_fault():
    check = (await found(writes(other=WRONG.get), FakePRM(lambda *of: 1 - knows(*of))))["PRM polarity"]
    assert (check.status, check.figures["share"]) == ("fault", 0.0)
    assert "turned round" in check.remedy
    indifferent = (await found(writes(), FakePRM(lambda *of: 0.5)))["PRM polarity"]
    assert (indifferent.status, indifferent.figures["share"]) == ("warning", 0.5)


async def test_a_prm_that_gives_too_few_scores_is_a_fault_and_no_end():
    prm = FakePRM(knows)
    score = prm.score

    async def too_few(request):
        scored = await score(request)
        return replace(scored, scores=scored.scores[:1])

    prm.score = too_few
    checks = await found(writes(), prm)
    assert checks["PRM"].status == checks["PRM scores"].status == "fault"
    assert "1 scores for 3 steps" in checks["PRM scores"].found
    assert checks["answers"].status == "ok"


async def test_confidence_is_judged_by_samples_alone():
    checks = await found(writes(other=WRONG.get), ConfidencePRM())
    assert "PRM scores" not in checks
    assert "PRM cache" not in checks
    assert "worked_share" not in checks["PRM polarity"].figures


async def test_an_engine_that_is_not_there_is_a_fault():
    policy = writes()

    async def fails(request):
        raise EngineError("no server answers at http://localhost:1")

    policy.sample = fails
    checks = await found(policy)
    assert list(checks) == ["chat template", "samples"]
    assert "no server answers" in checks["samples"].found


async def test_a_calibration_of_another_pair_is_a_fault(tmp_path):
    checks = await found(writes(), calibration=MINI_CALIBRATION)
    assert checks["calibration"].status == "fault"
    assert "another policy" in checks["calibration"].found
    assert (await found(writes(), calibration=tmp_path))["calibration"].status == "fault"
    allowed = (await found(writes(), calibration=MINI_CALIBRATION, allow_mismatch=True))["calibration"]
    assert allowed.status == "warning"
    assert "may not hold here" in allowed.found
    assert "another policy" in allowed.found


async def test_both_policies_of_a_cascade_are_checked_and_what_one_is_worth_beside_the_other():
    large = writes(name="large", parameters=4000)
    checks = await found(Cascade(writes(other=WRONG.get), large), FakePRM(knows))
    own = [name for name in checks if name.startswith("second: ")]
    assert [name.removeprefix("second: ") for name in own] == [
        name for name in checks if f"second: {name}" in checks
    ], "the second policy has the checks of the first, in their order"
    assert {"second: chat template", "second: answers", "second: PRM polarity", "second: speed"} <= {*own}
    assert list(checks).count("PRM scores") == 1
    assert (checks["answers"].figures["right"], checks["second: answers"].figures["right"]) == (0.5, 1.0)
    assert (checks["cascade"].status, checks["cascade"].figures["weight"]) == ("ok", 4.0)
    assert "a token of large counts 4 of the first policy's" in checks["cascade"].found
    assert checks["calibration"].status == "fault", "nothing else knows what a second policy gains"
    assert "--second large" in checks["calibration"].found


async def test_what_is_wrong_with_a_second_policy_is_told_as_its_own():
    checks = await found(Cascade(writes(), writes(lambda problem: "It is\n\n10"), 1.0))
    assert (checks["answers"].status, checks["second: answers"].status) == ("ok", "fault")
    assert (checks["cascade"].status, "no larger" in checks["cascade"].remedy) == ("warning", True)
    checks = await found(Cascade(writes(), writes(WRONG.get, parameters=5000), 7.0))
    assert "counts 7 of the first policy's, where the ratio of the parameters is 5" in checks["cascade"].found
    assert "right less often" in checks["cascade"].remedy
    lost = writes()
    lost.encode = lambda problem: (1, 2, 3)
    checks = await found(Cascade(writes(), lost, 1.0))
    assert checks["second: chat template"].status == "fault"
    assert not {"cascade", "memory", "calibration", "second: steps"} & {*checks}


def test_a_calibration_is_judged_as_a_solver_judges_it():
    def judged(policy=None, *, folder=MINI_CALIBRATION, rule=None, answers="math"):
        with Solver(
            policy or load_policy(MINI_POLICY), load_prm(MINI_PRM), calibration=prior_of(2048, prm=False)
        ) as one:
            check = check_calibration(one, folder, rule, {answers})
        return check.status, check.found

    assert judged() == ("ok", f"{MINI_CALIBRATION} is of these models")
    assert judged(folder=None, rule=make_rule("esc")) == ("ok", "none, as the rule esc allocates budgets")
    refused = {
        "another policy": {"policy": Cascade(load_policy(MINI_POLICY), writes(), 2.0)},
        "answers='math', and here they are number": {"answers": "number"},
        "without a calibration: give the rule or the calibration": {"rule": make_rule("esc")},
    }
    for told, settings in refused.items():
        status, found = judged(**settings)
        assert (status, told in found) == ("fault", True), found


def test_shares_are_judged():
    assert [by_share(share, well=0.8, badly=0.3) for share in (0.8, 0.5, 0.3, 0.29)] == [
        "ok", "warning", "warning", "fault",
    ]  # fmt: skip


def test_the_embedded_pair_is_in_order(capsys):
    assert main(["doctor", "--json"]) == 0
    checks = {one["name"]: one for one in json.loads(capsys.readouterr().out)["checks"]}
    assert {one["status"] for one in checks.values()} == {"ok"}
    assert checks["prefix cache"]["figures"]["cached_tokens"] > 0
    assert checks["PRM cache"]["figures"]["cached_tokens"] > 0


@pytest.mark.parametrize("by_recipe", [False, True])
def test_a_second_policy_is_named_by_option_or_recipe(capsys, tmp_path, by_recipe):
    recipe = tmp_path / "own.toml"
    models = {"policy": MINI_POLICY, "second": MINI_POLICY, "prm": MINI_PRM}
    recipe.write_text("\n".join(f"[{name}]\nmodel = '{model}'" for name, model in models.items()))
    named = ["--recipe", str(recipe)] if by_recipe else ["--second", str(MINI_POLICY), "--second-weight", "1"]
    assert main(["doctor", "--samples", "1", *named]) == 1, "there is no calibration of both"
    told = capsys.readouterr().out
    assert "ok       second: answers: " in told
    assert "warning  cascade: a token of policy counts 1 of the first policy's" in told
    assert "fault    calibration: " in told


def test_faults_and_impossible_requests_have_codes_of_their_own(capsys, tmp_path):
    assert main(["doctor", "--policy", str(tmp_path)]) == 1
    assert "fault    models: " in (told := capsys.readouterr().out)
    assert "holds no config.json" in told
    assert main(["doctor", "--samples", "0"]) == 2
    assert main(["doctor", "--recipe", "none"]) == 2
    capsys.readouterr()
    assert main(["doctor", "--engine", "replay", "--policy", "record.jsonl"]) == 2
    assert "runs no model that could be checked" in capsys.readouterr().err


def test_every_problem_is_what_its_solutions_say():
    for one in WORKED:
        assert f"\\boxed{{{one.answer}}}" in one.right[-1]
        assert f"\\boxed{{{one.answer}}}" not in one.wrong[-1]
        assert eval(one.problem.split("$")[1].replace("\\cdot", "*")) == int(one.answer)


@pytest.mark.parametrize("api", ["tokens", "chat"])
async def test_servers_are_checked_as_well(api):
    with ToyServer(VLLM) as server:
        policy = OpenAIPolicy.from_pretrained(folder(), base_url=server.url, model=MODEL, api=api)
        checks = await found(policy, samples=2)
    assert checks["chat template"].status == checks["ends"].status == "ok"
    assert checks["prefix cache"].figures["second_seconds"] >= 0
