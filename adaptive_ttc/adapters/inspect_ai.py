"""A pair as a model provider of Inspect, and a solver that spends budgets; known to it by an entry point.

inspect eval task.py --model adaptive_ttc/mini -M budget_tokens=800
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from adaptive_ttc.adapters.arriving import ArrivingProblems
from adaptive_ttc.adapters.inspect_messages import options_of, output_of, turn_of
from adaptive_ttc.adapters.shared import NamedSolver, missing
from adaptive_ttc.errors import ConfigError

if TYPE_CHECKING:
    from inspect_ai.solver import Generate, TaskState
try:
    from inspect_ai.model import ChatMessage, GenerateConfig, ModelAPI, ModelOutput, get_model, modelapi
    from inspect_ai.solver import solver
except ImportError:
    ModelAPI = GenerateConfig = missing("inspect_ai", "inspect")

    def modelapi(name: str) -> Callable[[Any], Any]:  # noqa: D103
        return lambda known: known

    solver = modelapi

_shared: ContextVar[ArrivingProblems | None] = ContextVar("_shared", default=None)


class AdaptiveAPI(ModelAPI):
    """Solves what is asked. ``adaptive_ttc/mini``, ``adaptive_ttc/FILE.toml`` or ``adaptive_ttc/MODEL``.

    Model arguments are of ``Solver.load`` (``prm``, ``engine``, ...) and of ``Solver.solve`` (``budget_tokens``,
    ``strategy``, ...); the generation's own ``extra_body`` goes before them. Without a budget, strategy or number of
    choices, an answer is one sample. ``num_choices`` is ``n``: so many solutions are drawn, and all returned, the one
    that speaks for the answer first. The decision stands in the output's ``metadata``. All models of the same pair
    have one solver, which is closed at the process's end.

    ConfigError: as of ``Solver``; tools, pictures, and what else a solver cannot do.
    """

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: Any = None,
        **settings: Any,
    ) -> None:
        super().__init__(model_name, None, None, [], config or GenerateConfig())
        if base_url is not None:
            raise ConfigError("a server's address stands in -M policy_settings='{base_url: ...}', with engine=openai")
        self.pair = NamedSolver(model_name, settings)

    async def generate(
        self, input: list[ChatMessage], tools: Sequence[Any], tool_choice: Any, config: GenerateConfig
    ) -> ModelOutput:
        """The solution."""
        if tools:
            raise ConfigError("a solver calls no tools: leave them out")
        asked = [turn_of(message) for message in input]
        if (together := _shared.get()) is not None:
            solution = await together.solve(self.pair.problem(asked))
        else:
            solution = await self.pair.solve(asked, options_of(config))
        return output_of(solution, self.model_name, every=(config.num_choices or 1) > 1)

    def max_connections(self) -> int:
        """Requests at once: engines batch them."""
        return 64

    async def aclose(self) -> None:
        """Close the solver."""
        await self.pair.aclose()


@modelapi(name="adaptive_ttc")
def adaptive_ttc() -> type[ModelAPI]:
    """The provider."""
    return AdaptiveAPI


@solver(name="adaptive_budget")
def adaptive_budget(budget_tokens: int, samples: int | None = None, **options: Any) -> Any:
    """Spend a budget on each sample, or one on ``samples`` of them together (samples times epochs), where it gains
    most; ``options`` are of ``Solver.solve``, or of ``Solver.solve_many``. Needs a model of this provider.

    One budget is best spent where all samples are at work at once: ``max_connections=samples``; Inspect takes 20 at
    first by default.
    """
    together: list[ArrivingProblems] = []

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        api = get_model().api
        if not isinstance(api, AdaptiveAPI):
            raise ConfigError("adaptive_budget spends the budget of a model named adaptive_ttc/...")
        if samples is None:
            return await generate(state, extra_body={**options, "budget_tokens": budget_tokens})
        if not together or together[0].complete:
            together[:] = [ArrivingProblems(api.pair.solver, budget_tokens, samples, **options)]
        with _from(together[0]):
            return await generate(state)

    return solve


@contextmanager
def _from(problems: ArrivingProblems) -> Iterator[None]:
    token = _shared.set(problems)
    try:
        yield
    finally:
        _shared.reset(token)
