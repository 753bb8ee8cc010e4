"""What ``bench/gpu.py`` measures, part by part, in a process apart; figures are told as they come."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import engine_overhead
from gpu_parts.dummy import BYTES, Shape, recipe_for_dummies, shape_of, tiny, write_dummy, write_random

from adaptive_ttc.configuration.recipe import Recipe
from adaptive_ttc.evaluation.datasets import Row, load_problems, problem_of
from adaptive_ttc.loading import MINI_POLICY, MINI_PRM
from adaptive_ttc.policies.vllm import CPU_SETTINGS, EngineHost, VLLMPolicy
from adaptive_ttc.prm import RewardModel, load_prm
from adaptive_ttc.solution import Solution
from adaptive_ttc.solver import Solver

GIB = 2**30
ACTIVATIONS = 1.5 * GIB  # what recipes allow beside weights, keys and values
SLOTS = 256
BEAMS = {"strategy": "beam_search", "n": 16, "beam_width": 4}

Told = Callable[[Mapping[str, float]], None]


@dataclass(frozen=True, slots=True)
class Setting:
    """Where it runs: ``device`` is ``cuda`` or ``cpu``; ``quick`` makes everything small, shapes included; ``eager``
    starts the engines of recipes without compilation.
    """

    device: str
    quick: bool = False
    eager: bool = False

    def engine(self, share: float, *, eager: bool = False) -> dict[str, Any]:
        """Settings of an engine with that share of the card."""
        if self.device == "cpu":
            # few blocks: an engine for tiny models would make a hundred thousand of a GiB
            return {**CPU_SETTINGS, "max_model_len": 2048, "num_gpu_blocks_override": 1024}
        return {"dtype": "bfloat16", "gpu_memory_utilization": share, "enforce_eager": eager}

    @property
    def dtype(self) -> str:
        """Of models in this process."""
        return "float32" if self.device == "cpu" else "bfloat16"

    def size(self, full: int, quick: int) -> int:
        """A number of things."""
        return quick if self.quick else full

    def shape(self, model: str) -> Shape:
        """The shape of a model, or a tiny one of its kind."""
        return tiny(shape_of(model)) if self.quick else shape_of(model)


def card_memory() -> tuple[float, float] | None:
    """GiB of the first card that are used, by whatever process, and that it has; None where there is none."""
    from vllm.third_party import pynvml

    try:
        pynvml.nvmlInit()
        memory = pynvml.nvmlDeviceGetMemoryInfo(pynvml.nvmlDeviceGetHandleByIndex(0))
    except pynvml.NVMLError:
        return None
    return memory.used / GIB, memory.total / GIB


async def overhead(setting: Setting, told: Told) -> None:
    """The embedded policy: solver and bare engine, seeds, log-probabilities, fan-out."""
    sizes = {"limit": setting.size(64, 4), "n": setting.size(16, 4), "rounds": setting.size(2, 1), "seed": 0}
    settings = VLLMPolicy.engine_settings(MINI_POLICY, max_num_seqs=SLOTS, **setting.engine(0.5))
    host = EngineHost(MINI_POLICY.name, settings)
    try:
        found = await engine_overhead.measure(host, MINI_POLICY, **sizes, stages=("fastest", "throughput"), told=told)
    finally:
        await host.aclose()
    single = found["seedless_requests_ratio"] * found["fastest_tokens_per_s"]
    told({"seeds_ratio": found["bare_tokens_per_s"] / single, "problems": sizes["limit"], "n": sizes["n"]})


async def shape_1b(setting: Setting, told: Told) -> None:
    """A dummy of Llama-3.2-1B's shape: the solver against the bare engine's fastest way."""
    shape = setting.shape("meta-llama/Llama-3.2-1B-Instruct")
    sizes = {"limit": setting.size(64, 2), "n": setting.size(16, 2), "rounds": setting.size(2, 1)}
    most = setting.size(128, 16)
    with tempfile.TemporaryDirectory() as place:
        folder = write_dummy(shape, Path(place) / "llama-1b")
        settings = {"max_num_seqs": SLOTS, "load_format": "dummy", **setting.engine(0.8)}
        host = EngineHost(folder.name, VLLMPolicy.engine_settings(folder, **settings))
        try:
            work = {"seed": 0, "max_tokens": most, "stages": ("fastest",), "told": told}
            await engine_overhead.measure(host, folder, **sizes, **work)
        finally:
            await host.aclose()
    told({"parameters": shape.parameters, "max_tokens": most, **sizes})


async def search(solver: Solver, rows: list[Row], name: str, told: Told, **request: Any) -> list[Solution]:
    """Solve all problems at once, after a small one; tells under that name how fast it was."""
    await solver.solve(rows[-1]["problem"], **{**request, "n": 4})
    start = time.perf_counter()
    solutions = await asyncio.gather(*(solver.solve(problem_of(row), **request) for row in rows))
    seconds = time.perf_counter() - start
    scored = sum(one.usage.num_prm_calls for one in solutions)
    told(
        {
            f"seconds.{name}": seconds,
            f"tokens_per_s.{name}": sum(one.usage.completion_tokens for one in solutions) / seconds,
            f"scores_per_s.{name}": scored / seconds,
            f"prm_tokens_per_s.{name}": sum(one.usage.prm_tokens for one in solutions) / seconds,
            f"tokens_per_problem.{name}": sum(one.usage.completion_tokens for one in solutions) / len(rows),
        }
    )
    return solutions


async def beside_policy(
    setting: Setting, prms: Mapping[str, Callable[[], RewardModel]], problems: int, told: Told
) -> None:
    """A beam search of the embedded policy under one PRM after another."""
    rows = load_problems("minimath-500", limit=problems)
    policy = VLLMPolicy.from_pretrained(MINI_POLICY, max_num_seqs=SLOTS, **setting.engine(0.3))
    async with Solver(policy) as solver:
        for name, make in prms.items():
            solver.prm = make()
            found = await search(solver, rows, name, told, **{**BEAMS, "n": setting.size(16, 4)})
            right = [await solver.grader.equal(row["answer"], one.answer) for row, one in zip(rows, found, strict=True)]
            told({f"accuracy.{name}": sum(right) / len(rows)})
            await solver.prm.aclose()
            solver.prm = None
    told({"problems": problems, "n": setting.size(16, 4)})


async def beams(setting: Setting, told: Told) -> None:
    """The embedded pair: beam search over 120 problems at once, with the PRM in vLLM and in this process."""
    prms = {
        "vllm_states": lambda: load_prm(MINI_PRM, engine="vllm", **setting.engine(0.2, eager=True)),
        "in_process": lambda: load_prm(MINI_PRM, device=setting.device, dtype=setting.dtype),
    }
    await beside_policy(setting, prms, setting.size(120, 2), told)


async def prm_paths(setting: Setting, told: Told) -> None:
    """A PRM of Qwen2.5-0.5B's shape with random weights, read in three ways by the same beam search."""
    shape = setting.shape("Qwen/Qwen2.5-0.5B-Instruct")
    with tempfile.TemporaryDirectory() as place:
        folder = write_random(shape, Path(place) / "prm", device=setting.device, dtype=setting.dtype)
        by_vllm = {"reader": "qwen-math", "engine": "vllm", **setting.engine(0.4, eager=True)}
        local = {"reader": "qwen-math", "device": setting.device, "dtype": setting.dtype}
        prms = {
            "vllm_states": lambda: load_prm(folder, **by_vllm),
            "vllm_scores": lambda: load_prm(folder, **by_vllm, pooling="steps"),
            "in_process": lambda: load_prm(folder, **local),
        }
        await beside_policy(setting, prms, setting.size(32, 2), told)


async def recipe(setting: Setting, told: Told, path: Path) -> None:
    """A recipe's two engines, of its shapes, with its settings: memory, room for keys and values, throughput.

    On a card larger than the recipe's its shares are made as many GiB as they are there.
    """
    known = recipe_for_dummies(path)
    before = card_memory()
    with tempfile.TemporaryDirectory() as place:
        shapes = {"policy": setting.shape(known.policy), "prm": setting.shape(str(known.prm))}
        given = {name: _engine_settings(setting, known, name, before) for name in shapes}
        reader = given["prm"].pop("reader", None)
        folders = {
            "policy": write_dummy(shapes["policy"], Path(place) / "policy"),
            "prm": write_dummy(shapes["prm"], Path(place) / "prm", reader=reader),
        }
        policy = VLLMPolicy.from_pretrained(folders["policy"], **given["policy"])
        async with Solver(policy) as solver:
            taken = await _room("policy", policy._host, shapes["policy"], known, before, told)
            solver.prm = load_prm(folders["prm"], reader=reader, **given["prm"])
            await _room("prm", solver.prm._models[0].source._host, shapes["prm"], known, taken, told)
            await _at_work(setting, solver, told)


async def _at_work(setting: Setting, solver: Solver, told: Told) -> None:
    """Whole samples under the PRM, then a beam search."""
    rows = load_problems("minimath-500", limit=setting.size(32, 2))
    most = setting.size(192, 24)
    whole = {"strategy": "weighted_best_of_n", "n": setting.size(8, 2), "max_tokens": most}
    await search(solver, rows, "weighted", told, **whole)
    await search(solver, rows[: len(rows) // 2], "beams", told, **{**BEAMS, "max_tokens": most})


def _engine_settings(setting: Setting, known: Recipe, name: str, card: tuple[float, float] | None) -> dict[str, Any]:
    """A recipe's settings of one model, for a model without weights on this machine."""
    settings = {**(known.policy_settings if name == "policy" else known.prm_settings), "load_format": "dummy"}
    if setting.device == "cpu":
        left_out = ("gpu_memory_utilization", "dtype", "max_model_len")
        return {key: of for key, of in settings.items() if key not in left_out} | setting.engine(0)
    if known.card_gib is not None and card is not None:
        settings["gpu_memory_utilization"] *= min(1.0, known.card_gib / card[1])
    return settings | ({"enforce_eager": True} if setting.eager else {})


async def _room(
    name: str, host: EngineHost, shape: Shape, known: Recipe, before: tuple[float, float] | None, told: Told
) -> tuple[float, float] | None:
    """Tell how many tokens an engine can keep and what of the card it has taken, and what the arithmetic says if it is
    the recipe's shape; returns the card's memory as it is now.
    """

    async def tokens(engine: Any) -> int:
        cache = engine.vllm_config.cache_config
        return int(cache.num_gpu_blocks * cache.block_size)

    figures: dict[str, float] = {f"{name}_parameters": shape.parameters, f"{name}_tokens": await host.call(tokens)}
    model = known.policy if name == "policy" else str(known.prm)
    share = (known.policy_settings if name == "policy" else known.prm_settings).get("gpu_memory_utilization")
    if known.card_gib is not None and share is not None and shape == shape_of(model):
        room = share * known.card_gib * GIB - shape.parameters * BYTES - ACTIVATIONS
        figures[f"{name}_tokens_by_arithmetic"] = room / shape.token_bytes
    now = card_memory()
    if now is not None and before is not None:
        figures[f"{name}_gib"] = now[0] - before[0]
    told(figures)
    return now


PARTS: Mapping[str, Callable[[Setting, Told], Awaitable[None]]] = {
    "overhead": overhead,
    "shape_1b": shape_1b,
    "beams": beams,
    "prm_paths": prm_paths,
}


async def measure(part: str, setting: Setting, told: Told) -> None:
    """Measure one part, or ``recipe:PATH``; ``told`` hears figures as they come. Errors as those of the models."""
    kind, _, path = part.partition(":")
    await (recipe(setting, told, Path(path)) if kind == "recipe" else PARTS[part](setting, told))
