"""The server against its own OpenAPI description, with requests that schemathesis makes up, right and wrong ones."""

import pytest

from adaptive_ttc import Solver
from adaptive_ttc.policies.fake import FakePolicy
from adaptive_ttc.prm import FakePRM
from adaptive_ttc.serve import Key, ServeConfig, Service

schemathesis = pytest.importorskip("schemathesis", reason="a part of `make test-adapters`")
hypothesis = pytest.importorskip("hypothesis")

pytestmark = pytest.mark.filterwarnings("ignore")

SETTINGS = hypothesis.settings(
    max_examples=100, derandomize=True, deadline=None, database=None, suppress_health_check=list(hypothesis.HealthCheck)
)


def schema_of(**settings):
    solver = Solver(FakePolicy.generative(error_rate=0.0), FakePRM(lambda question, steps: 0.5))
    config = ServeConfig(model="fake", default_budget=100, most_budget=200, **settings)
    return schemathesis.openapi.from_asgi("/openapi.json", Service(solver, config).app)


open_to_all, with_keys = schema_of(), schema_of(keys=(Key.of("ann", "secret"),))


def made_sensible(body):
    """With what a JSON schema cannot say: that the last message is the user's, which answers there are, and budgets."""
    messages = [*body["messages"], {"role": "user", "content": "What is 12 + 30 + 5?"}]
    found = {**body, "model": f"fake@{len(body['model'])}", "messages": messages}
    if body.get("answers") is not None:
        found["answers"] = ("math", "number", "choice", "text", "json:a")[len(body["answers"]) % 5]
    return found


def does_not_go_together(reply, body):
    """Whether fields were refused of which each alone is right, or one of a strategy's, which are not described."""
    return reply.status_code == 400 and (reply.json()["error"]["param"] in {None, "options", *(body["options"] or ())})


@open_to_all.parametrize()
@SETTINGS
def test_replies_are_as_described(case):
    right = case.meta.generation.mode.is_positive and isinstance(case.body, dict)
    if right:
        case.body = made_sensible(case.body)
    reply = case.call()
    without = []
    if right and does_not_go_together(reply, {"options": None, **case.body}):
        without = [schemathesis.checks.positive_data_acceptance]
    case.validate_response(reply, excluded_checks=without)


@with_keys.parametrize()
@hypothesis.settings(SETTINGS, max_examples=20)
def test_nothing_is_had_without_a_key_that_is_not_open_to_all(case):
    case.call_and_validate(
        headers={"Authorization": "Bearer secret"},
        checks=[getattr(schemathesis.checks, name) for name in ("ignored_auth", "not_a_server_error")],
    )
