"""What is seen from outside while a pool runs, and afterwards; the same in Prometheus' text format."""

from adaptive_ttc import prometheus
from adaptive_ttc.errors import EngineError
from adaptive_ttc.solver import Solver
from tests.doubles import TinyPolicy
from tests.run.test_adaptive import SAMPLES, believer, calibrated


class Seen(TinyPolicy):
    """Looks at the statistics from inside every call; the calls of one problem fail."""

    async def sample(self, request):
        self.looks.append((self.solver.statistics(), self.pool.statistics()))
        if request.prompt_ids[-2] == 100 + ord("3"):
            raise EngineError("it is down")
        return await super().sample(request)


async def test_calls_in_flight_failures_and_the_budget_are_seen_while_it_runs(caplog):
    policy = Seen()
    policy.looks = []
    async with Solver(policy, believer(), calibration=calibrated(*SAMPLES)) as solver:
        policy.solver = solver
        questions = [f"how much is {number}?" for number in range(6)]
        policy.pool = solver.solve_many(questions, budget_tokens=1500, max_concurrency=3)
        before = policy.pool.statistics()
        assert (before.arrived, before.open, before.settled, before.spent) == (0, 0, 0, 0)
        found = await policy.pool
        after, whole = policy.pool.statistics(), solver.statistics()
    assert all(of_solver.policy.in_flight >= 1 for of_solver, _ in policy.looks)
    assert all(of_pool.slices >= 1 for _, of_pool in policy.looks)
    assert all(of_pool.spent + of_pool.promised <= 1500 for _, of_pool in policy.looks)
    assert (after.arrived, after.open, after.settled, after.failed, after.slices) == (6, 0, 6, 1, 0)
    assert (after.spent, after.promised) == (policy.pool.spent, 0)
    assert after.lost_tokens == sum(one.usage.lost_tokens for one in found)
    assert (whole.policy.calls, whole.policy.in_flight) == (len(policy.looks), 0)
    assert whole.policy.failed >= 1
    assert 0 < whole.policy.loss_rate < 1
    assert whole.policy.tokens == policy.delivered
    assert whole.prm.calls == sum(one.usage.num_prm_calls for one in found)
    told = [record.getMessage() for record in caplog.records if record.name == "adaptive_ttc.run"]
    assert "a call of the policy failed: EngineError: it is down" in told
    assert f"problem {found[3].problem.id} failed: it is down" in told
    text = prometheus(whole, after)
    assert f"# TYPE adaptive_ttc_policy_calls gauge\nadaptive_ttc_policy_calls {whole.policy.calls}\n" in text
    assert "adaptive_ttc_pool_failed 1\n" in text
    assert f"adaptive_ttc_policy_loss_rate {whole.policy.loss_rate}\n" in text
    assert "adaptive_ttc_grader_waiting 0\n" in text
    assert text.endswith("\n")
