"""LangChain through the endpoint."""

import httpx2
import pytest

from adaptive_ttc import Solver
from adaptive_ttc.policies.fake import FakePolicy
from adaptive_ttc.serve import ServeConfig, Service

langchain = pytest.importorskip("langchain_openai", reason="a part of `make test-adapters`")

pytestmark = pytest.mark.filterwarnings("ignore")


async def test_a_chat_model_of_langchain_is_served_whole_and_streamed():
    async with Solver(FakePolicy.generative(error_rate=0.0)) as solver:
        service = Service(solver, ServeConfig(model="fake", default_budget=600))
        http = httpx2.AsyncClient(transport=httpx2.ASGITransport(app=service.app))
        model = langchain.ChatOpenAI(
            model="fake@900", base_url="http://server/v1", api_key="any", http_async_client=http, max_retries=0,
            extra_body={"max_rounds": 3},
        )  # fmt: skip
        found = await model.ainvoke([("system", "Be brief."), ("user", "What is 12 + 30 + 5?")])
        assert "\\boxed{47}" in found.content
        assert found.usage_metadata["output_tokens"] == service.statistics().spent
        said = "".join([piece.content async for piece in model.astream("What is 12 + 30 + 5?")])
        assert "\\boxed{47}" in said
        await http.aclose()
