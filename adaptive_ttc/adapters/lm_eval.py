"""A pair as a model of EleutherAI's lm-eval, and the library's majority as one of its filters.

Importing this module registers the model ``adaptive_ttc`` and the filter ``adaptive_ttc_majority``; on the command line
``python -m adaptive_ttc.adapters.lm_eval run --model adaptive_ttc --model_args pretrained=mini,budget_tokens=800 ...``
does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import anyio

from adaptive_ttc.adapters.lm_eval_filter import MajorityFilter as MajorityFilter
from adaptive_ttc.adapters.shared import LoopThread, NamedSolver, missing
from adaptive_ttc.errors import ConfigError
from adaptive_ttc.run.summary import told
from adaptive_ttc.tasks import side_by_side

try:
    from lm_eval.api.model import LM
    from lm_eval.api.registry import register_model
except ImportError:
    LM = missing("lm_eval", "lm-eval")

    def register_model(name: str) -> Callable[[type], type]:  # noqa: D103
        return lambda known: known


_SAMPLING = ("temperature", "top_p", "seed")
_UNUSED = frozenset({"until", "do_sample", "max_gen_toks", "max_tokens", "max_length"})


@register_model("adaptive_ttc")
class AdaptiveLM(LM):
    """Solves what tasks generate; log-likelihoods, which a solver does not have, are refused (ConfigError).

    Args:
        pretrained: ``mini``, a recipe's file, or a policy's folder or Hub name.
        concurrency: requests solved at once.
        device: of ``Solver.load``; ``cuda:0``, which lm-eval gives if it is not told, takes a GPU if there is one.
        batch_size, max_batch_size: which lm-eval gives; engines batch by themselves.
        **settings: of ``Solver.load`` (``prm``, ``engine``, ``seed``, ...) and of ``Solver.solve`` (``budget_tokens``,
            ``strategy``, ``n``, ...). Without a budget, strategy or n, an answer is one sample.

    With ``repeats`` in a task, every copy is solved by itself, and drawn anew. Chats (``--apply_chat_template``) are
    sent as they are. What a task says of sampling goes before ``settings``, but a temperature of 0 where more
    than one is drawn. Texts end before the first of ``until``, which is no use for solutions in several steps.
    """

    def __init__(
        self,
        pretrained: str = "mini",
        *,
        concurrency: int = 32,
        batch_size: object = None,
        max_batch_size: object = None,
        device: str | None = None,
        **settings: Any,
    ) -> None:
        super().__init__()
        if device not in (None, "cuda:0") and pretrained != "mini":
            settings["device"] = device
        self.pair = NamedSolver(pretrained, settings)
        self.spent = 0  # units of all budgets
        self._chats: dict[str, list[dict[str, str]]] = {}
        self._concurrency, self._thread = concurrency, LoopThread()
        self._thread.at_end(self.pair.aclose)

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """The text of one solution for each request. ConfigError: a task asks for what cannot be had."""
        found = [""] * len(requests)
        limit = anyio.Semaphore(self._concurrency)

        async def solve(place: int, context: str, given: Mapping[str, Any]) -> None:
            async with limit:
                solution = await self.pair.solve(self._chats.get(context, context), self._sampling(given))
            self.spent += solution.spent
            found[place] = _cut(told(solution)["content"], given.get("until"))

        async def solve_all() -> None:
            async with side_by_side() as tasks:
                for place, request in enumerate(requests):
                    context, given = request.args
                    tasks.start_soon(solve, place, context, given)

        self._thread.run(solve_all)
        for request, text in zip(requests, found, strict=True):
            self.cache_hook.add_partial("generate_until", request.args, text)
        return found

    def _sampling(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """What ``Solver.solve`` takes of a task's ``generation_kwargs``."""
        if unknown := set(given) - _UNUSED - set(_SAMPLING):
            raise ConfigError(f"a solver does not know the task's generation_kwargs {', '.join(sorted(unknown))}")
        found = {name: given[name] for name in _SAMPLING if given.get(name) is not None}
        if given.get("do_sample") is False:
            found["temperature"] = 0
        if not self.pair.single(found) and not found.get("temperature"):
            found.pop("temperature", None)
        for name in ("max_gen_toks", "max_tokens"):
            if given.get(name):
                found["max_tokens"] = int(given[name])
        return found

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """ConfigError."""
        raise ConfigError(
            "this task scores given answers by their log-likelihood, and a solver writes answers: take a generative "
            "task (output_type: generate_until)"
        )

    loglikelihood_rolling = loglikelihood

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """A name for a chat, which is sent as it is: the policy's own template is put around it."""
        name = "\n\n".join(f"{turn['role']}: {turn['content']}" for turn in chat_history)
        self._chats[name] = chat_history
        return name

    @property
    def tokenizer_name(self) -> str:
        """Of the policy, for caches of requests."""
        return self.pair.solver.policy.name.replace("/", "__")

    def close(self) -> None:
        """Close the models, which happens at the process's end otherwise."""
        self._thread.close()


def _cut(text: str, until: str | Sequence[str] | None) -> str:
    """The text before the first of ``until``."""
    for end in [until] if isinstance(until, str) else until or ():
        text = text.split(end, 1)[0] if end else text
    return text


if __name__ == "__main__":
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()
