"""The policy over servers in virtual time."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

from adaptive_ttc.policies.chat_model import read_chat_model
from adaptive_ttc.policies.fake import EOS, ToyModel
from adaptive_ttc.policies.fake.servers import Server, VirtualServers
from adaptive_ttc.policies.openai import FleetConfig, OpenAIPolicy
from adaptive_ttc.policy import SampleRequest
from tests.policies.openai_server import folder

CONTEXT = 4096


class Endless:
    """Writes the same letter for ever, or, where a length is drawn, so many."""

    def __init__(self, mean: int | None = None) -> None:
        self._mean, self._random = mean, Random(7)

    def write(self, request: SampleRequest) -> Any:
        length = None if self._mean is None else self._random.randint(1, 2 * self._mean)
        while length is None or length > 1:
            yield ord("a"), -0.1
            length = None if length is None else length - 1
        yield EOS, -0.1

    def cut(self, request: SampleRequest, tokens: Sequence[int]) -> None:
        pass


class Purse:
    """Has so many tokens to spare."""

    def __init__(self, most: int = 10**9) -> None:
        self.most, self.tokens = most, 0

    def reserve(self, tokens: int) -> bool:
        enough = self.tokens + tokens <= self.most
        self.tokens += tokens * enough
        return enough


def virtual_policy(servers: Sequence[Server], writer: Any = None, seed: int = 0, **settings: Any) -> OpenAIPolicy:
    urls = tuple(f"http://replica{index}/v1" for index in range(len(servers)))
    config = FleetConfig(base_urls=urls, **settings)
    links = VirtualServers(config, CONTEXT, servers, writer or ToyModel(0.1), Random(seed))
    model = read_chat_model(folder(), system_prompt=None, revision=None)
    return OpenAIPolicy(model, config, CONTEXT, links)


def asked(number: int, **settings: Any) -> SampleRequest:
    fields = {"prompt_ids": (number % 200, 1, 2), "max_tokens": 64, "seed": number, "seeded": False}
    return SampleRequest(id=str(number), **{**fields, **settings})
