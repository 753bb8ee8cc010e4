"""``--engine openai`` without a server: told at once, before anything is loaded, with its address and the remedy."""

import socket
import time

import pytest

from adaptive_ttc.cli import main
from adaptive_ttc.cli.reachable import KNOCKING, check_servers, unreachable
from adaptive_ttc.estimate.pair_calibration import prior_of
from adaptive_ttc.loading import MINI_POLICY
from adaptive_ttc.policies.cascade import Cascade
from adaptive_ttc.policies.fake import FakePolicy
from adaptive_ttc.solver import Solver
from adaptive_ttc.wrappers import WrappedPolicy


@pytest.fixture
def nowhere():
    """The address of a server that is not there."""
    with socket.socket() as held:  # bound and not listening: nobody else takes the port meanwhile
        held.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{held.getsockname()[1]}/v1"


@pytest.mark.parametrize("command", [["solve", "q"], ["eval", "--dataset", "minimath-500", "--limit", "2"]])
def test_no_server_is_told_at_once_and_before_the_models_are_loaded(command, nowhere, monkeypatch, capsys):
    monkeypatch.setattr(Solver, "load", lambda *models, **settings: pytest.fail("loaded"))
    began = time.monotonic()
    assert main([*command, "--n", "2", "--policy", "m", "--engine", "openai", "--base-url", nowhere]) == 2
    assert time.monotonic() - began < 3
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith(f"error: no server is there ({nowhere}: Connection refused): start it")
    assert "--base-url URL" in told


def test_a_recipe_of_a_server_that_is_starting_is_not_knocked_at(nowhere, tmp_path, monkeypatch, capsys):
    recipe = tmp_path / "served.toml"
    text = f'[policy]\nmodel = "m"\nengine = "openai"\nbase_url = "{nowhere}"\n'
    recipe.write_text(text)
    assert main(["solve", "q", "--n", "2", "--strategy", "majority", "--recipe", str(recipe)]) == 2
    assert f"no server is there ({nowhere}" in capsys.readouterr().err
    recipe.write_text(f"{text}first_patience = 600\n")
    monkeypatch.setattr(Solver, "load", lambda *m, **s: Solver(FakePolicy.scripted({"q": ["\\boxed{5}"] * 2})))
    assert main(["solve", "q", "--n", "2", "--strategy", "majority", "--recipe", str(recipe)]) == 0


def test_whoever_takes_a_connection_is_there(nowhere, monkeypatch):
    monkeypatch.delenv("http_proxy", raising=False)
    monkeypatch.delenv("HTTP_PROXY", raising=False)
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        there = f"http://127.0.0.1:{server.getsockname()[1]}/v1"
        assert unreachable([nowhere, there], KNOCKING) == ""
        assert "refused" in unreachable([nowhere], KNOCKING)
    assert unreachable(["http://127.0.0.1:port"]) == "", "told where the address is read"
    monkeypatch.setenv("http_proxy", "http://proxy.example:3128")
    monkeypatch.setenv("no_proxy", "")
    assert unreachable(["http://far.example/v1"]) == "", "a proxy tells"


def test_an_address_is_for_servers(capsys):
    assert main(["solve", "q", "--n", "2", "--policy", "m", "--base-url", "http://a/v1"]) == 2
    assert "--base-url is of a server: give --engine openai" in capsys.readouterr().err


@pytest.mark.parametrize("url", ["5", "[5]", "{host = 'here'}"])
def test_a_base_url_that_is_none_is_told(url, tmp_path, capsys):
    recipe = tmp_path / "served.toml"
    recipe.write_text(f"[policy]\nmodel = '{MINI_POLICY}'\nengine = 'openai'\nbase_url = {url}\n")
    assert main(["solve", "q", "--n", "2", "--strategy", "majority", "--recipe", str(recipe)]) == 2
    assert "base_url is the URL of a server, or a list of such; got a" in capsys.readouterr().err


async def test_the_servers_of_both_policies_are_waited_for():
    ready = []

    class Served(WrappedPolicy):
        async def ready(self):
            ready.append(self.name)

    pair = [Served(FakePolicy.generative(name=name)) for name in ("small", "large")]
    rows = prior_of(100, prm=False)
    async with Solver(Cascade(*pair), calibration=rows) as solver:
        await check_servers(solver)
    assert ready == ["small", "large"]


def test_a_recipes_second_policy_is_knocked_at_too(nowhere, tmp_path, capsys):
    recipe = tmp_path / "served.toml"
    second = f'[second]\nmodel = "n"\nengine = "openai"\nbase_url = "{nowhere}"\n'
    recipe.write_text(f'[policy]\nmodel = "m"\nengine = "transformers"\n{second}')
    assert main(["solve", "q", "--budget-tokens", "90", "--recipe", str(recipe)]) == 2
    assert f"no server is there ({nowhere}" in capsys.readouterr().err
