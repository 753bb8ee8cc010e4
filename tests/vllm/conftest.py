"""What the tests against the real engine share: vLLM imported without its warnings, engines ended with the session."""

import importlib
import warnings
from collections.abc import Iterator
from importlib.util import find_spec

import pytest

# Not ours: vLLM goes on importing while it starts. The last rule that fits a warning decides.
_RULES = (
    "default::DeprecationWarning",
    "default::FutureWarning",
    "default::UserWarning",
    "error::pytest.PytestWarning",
)

if find_spec("vllm") is not None:
    # what it builds on warns while it is imported, which the other tests take for an error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        importlib.import_module("adaptive_ttc.policies.vllm")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = __file__.rpartition("/")[0]
    for item in items:
        if str(item.path).startswith(here):
            # an engine takes its time to start, most of all on a busy machine
            item.add_marker(pytest.mark.timeout(900))
            item.add_marker(pytest.mark.filterwarnings(*_RULES))


@pytest.fixture(scope="session", autouse=True)
def _engines_end() -> Iterator[None]:
    yield
    if find_spec("vllm") is not None:
        from tests.vllm.engines import close_all

        close_all()
