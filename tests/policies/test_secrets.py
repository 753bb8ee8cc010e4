"""Keys and passwords are checked before they are sent, sent where they belong, and shown nowhere."""

from __future__ import annotations

import json
import traceback
from typing import Any

import httpx2
import pytest

from adaptive_ttc.errors import ConfigError, EngineError
from adaptive_ttc.policies.openai import FleetConfig, OpenAIPolicy
from adaptive_ttc.policies.openai.fleet import Replica, UnavailableError
from adaptive_ttc.policies.openai.http import Connections
from adaptive_ttc.policies.openai.retries import MisfitError
from adaptive_ttc.policies.secrets import redacted, split_credentials, without_password
from adaptive_ttc.policies.served_prm import ServedStates
from tests.policies.openai_server import folder

KEY, PASSWORD = "sk-proj-Abc123", "pass-w0rd"


@pytest.mark.parametrize(
    "key", [f"{KEY}\n", f" {KEY}", f"{KEY}\r\nX-Other: 1", f"{KEY}é", "   ", f"{KEY}\x00", "\ud800"]
)
def test_a_key_that_no_header_can_carry_is_refused_and_not_shown(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="strip it") as refused:
        FleetConfig(base_urls=("http://host/v1",), api_key=key)
    assert KEY not in str(refused.value)
    if "\x00" not in key and key.isprintable() | key.isascii():
        monkeypatch.setenv("OPENAI_API_KEY", key)
        with pytest.raises(ConfigError, match="strip it"):
            OpenAIPolicy.from_pretrained(folder())


def test_a_key_is_taken_from_the_variable_that_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OTHER_KEY", "other")

    def key(**settings: Any) -> str | None:
        return OpenAIPolicy.from_pretrained(folder(), **settings)._config.api_key

    assert key() == KEY
    assert key(api_key_env="OTHER_KEY") == "other"
    assert key(api_key_env=None) is None
    assert key(api_key="given") == "given"
    assert not key(api_key="")


def test_neither_key_nor_password_is_part_of_what_is_printed() -> None:
    config = FleetConfig(base_urls=(f"https://me:{PASSWORD}@host:8000/v1/",), api_key=KEY)
    assert config.base_urls == ("https://host:8000/v1/",)
    assert config.credentials == {"https://host:8000/v1": ("me", PASSWORD)}
    assert KEY not in repr(config)
    assert PASSWORD not in repr(config)
    said = config.redacted(f"no such key: {KEY}; Basic bWU6cGFzcy13MHJk; {PASSWORD}")
    assert said == "no such key: ***; Basic ***; ***"


@pytest.mark.parametrize(
    "url",
    [
        f"htp://me:{PASSWORD}@host/v1",
        f"me:{PASSWORD}@host/v1",
        f"http://me:{PASSWORD}/x@host",
        f"http://me:{PASSWORD}@",
        f"http://me:{PASSWORD}@[::1/v1",
        f"http://me:{PASSWORD}@host:x/v1",
        f"http://host/v1?key={PASSWORD}",
    ],
)
def test_a_url_that_is_none_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(ConfigError, match="is no base URL") as refused:
        split_credentials(url, example="http://localhost:8000/v1")
    assert PASSWORD not in str(refused.value)
    assert PASSWORD not in without_password(url)


def test_credentials_are_read_as_they_were_meant() -> None:
    split = split_credentials("http://a%40b:p%3Aq%2F@host:1/v1", example="")
    assert split == ("http://host:1/v1", ("a@b", "p:q/"))
    assert split_credentials("http://token@host/v1", example="") == ("http://host/v1", ("token", ""))
    assert redacted("token:", [("token", ""), None]) == "token:"


def test_a_served_prm_is_named_without_its_password() -> None:
    states = ServedStates(f"http://me:{PASSWORD}@host:8000", "model")
    assert states.name == "model at http://host:8000"


@pytest.mark.parametrize("status", [200, 400, 401, 429, 500])
async def test_the_password_reaches_the_server_and_no_error_repeats_it_or_the_key(status: int) -> None:
    """The server says in its answer what it was sent."""
    heard: list[str] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        heard.append(request.headers["authorization"])
        said = f"{heard[-1]} {KEY} {PASSWORD}"
        content = json.dumps({"error": said}) if status != 200 else f"data: {said}\n\n"
        return httpx2.Response(status, text=content, headers={"content-type": "text/event-stream"})

    config = FleetConfig(base_urls=(f"http://me:{PASSWORD}@host/v1",), api_key=KEY)
    connections = Connections(config, 64)
    connections.enter()
    connections._client = httpx2.AsyncClient(transport=httpx2.MockTransport(answer))
    replica = Replica(config.base_urls[0], 0)
    with pytest.raises((EngineError, UnavailableError, MisfitError)) as failed:
        await anext(connections.events(replica, "/completions", {}, 1))
    assert heard == ["Basic bWU6cGFzcy13MHJk"]
    shown = "".join(traceback.format_exception(failed.value))
    for secret in (KEY, PASSWORD, "bWU6cGFzcy13MHJk"):
        assert secret not in shown
    assert "***" in str(failed.value)
    await connections.aclose()
