"""Options that several commands share: the models, and the request to the solver."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterable
from dataclasses import replace
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from adaptive_ttc.answers.spaces.mathematics import MATH
from adaptive_ttc.answers.spaces.registry import SPELLINGS, space_of
from adaptive_ttc.cli.interruption import GRACE
from adaptive_ttc.cli.reachable import knock
from adaptive_ttc.configuration.defaults import of_pools, split, with_defaults
from adaptive_ttc.configuration.recipe import DEFAULT_ENGINE, Recipe, read_recipe, recipe_names
from adaptive_ttc.cost import COUNTS
from adaptive_ttc.driver.engines import DriverConfig
from adaptive_ttc.errors import ConfigError
from adaptive_ttc.estimate.pair_calibration import prior_of, selected_rule
from adaptive_ttc.evaluation.datasets import Row, problem_of
from adaptive_ttc.loading import MINI_FINISH_TOKENS, MINI_POLICY, MINI_PRM, REPLAY, mini_calibration
from adaptive_ttc.prm.checkpoint import is_hub_name
from adaptive_ttc.prm.registry import spelled
from adaptive_ttc.run.request import check_early
from adaptive_ttc.solver import Solver
from adaptive_ttc.stopping.registry import RULES
from adaptive_ttc.strategies import strategy_names
from adaptive_ttc.strategies.base import Strategy

NOTHING_ANSWERED = 3
"""Exit code of a command that solved, and found no answer to anything."""

EXIT_CODES = """exit codes:
  0 at least one problem has an answer, 1 an engine failed, 2 an impossible request, 3 nothing was answered,
  130 Ctrl-C, 143 SIGTERM
"""

_FIELDS = (
    "strategy",
    "n",
    "beam_width",
    "temperature",
    "max_tokens",
    "think_tokens",
    "waits",
    "budget_tokens",
    "count",
    "min_gain",
    "max_rounds",
)

_MOST_DIGITS = 30  # of a budget; FLOPs of all machines together in a year have 28

_PLACING = ("device", "dtype", "system_prompt", "max_model_len")
_MODELS = ("policy", "prm", "second", "second_weight", "engine", "base_url", *_PLACING)
"""Options that cannot be given beside a recipe."""


def units(text: str) -> int:
    """A budget as it is typed: 2000000, 2_000_000 or 2e6."""
    try:
        number = Decimal(text)
    except InvalidOperation:
        number = Decimal("nan")
    if not number.is_finite() or number.adjusted() > _MOST_DIGITS or number != number.to_integral_value():
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number, such as 2000000, 2_000_000 or 2e6")
    return int(number)


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--policy``, ``--prm``, how they are run, and their calibration."""
    group = add_pair_options(parser)
    group.add_argument(
        "--calibration",
        metavar="DIR",
        help="of this pair, for allocating budgets (default: the embedded pair's own, else a rough prior)",
    )
    group.add_argument(
        "--rule",
        metavar="NAME",
        help="allocate budgets by a published rule in place of a calibration, such as adaptive_consistency or "
        f"cite:level=0.99: {', '.join(RULES)}",
    )
    group.add_argument("--allow-mismatch", action="store_true", help="use a calibration fitted for another model pair")


def add_pair_options(parser: argparse.ArgumentParser) -> Any:
    """Add ``--policy``, ``--prm`` and how they are run, without a calibration; returns this group of options."""
    group = parser.add_argument_group("models (by default the embedded pair)")
    option = group.add_argument
    option(
        "--recipe",
        metavar="NAME|FILE",
        help=f"a known pair with its settings: {', '.join(recipe_names())}, or a file (recipes/README.md)",
    )
    option(
        "--api-key-env", metavar="NAME", help="environment variable with the API key that the recipe's servers may have"
    )
    option("--trust-remote-code", action="store_true", help="let vLLM run code that comes with the recipe's models")
    option("--policy", metavar="MODEL", help="folder, Hub name or recorded file; without a PRM unless --prm names one")
    option(
        "--prm",
        metavar="MODEL",
        help="folder, Hub name or recorded file; READER:MODEL names what reads it, confidence scores by the policy's "
        "own log-probabilities (docs/verifiers.md)",
    )
    option(
        "--second",
        metavar="MODEL",
        help="a larger policy, which a budget turns to where it is worth its price; needs a calibration of both "
        "(docs/cascades.md)",
    )
    option(
        "--second-weight",
        type=float,
        metavar="W",
        help="tokens of the policy that one of the second counts (default: the ratio of the parameters)",
    )
    option(
        "--engine",
        default=DEFAULT_ENGINE,
        help="what runs the policy; replay answers from files (default: %(default)s)",
    )
    option("--base-url", metavar="URL", help="of the server, with --engine openai (default: http://localhost:8000/v1)")
    option("--device", help="such as cpu or cuda:1, for both models (default: the GPU if there is one)")
    option(
        "--dtype", help="such as float32 or bfloat16, for both models (default: float32 on a CPU, bfloat16 on a GPU)"
    )
    option(
        "--system-prompt",
        metavar="TEXT",
        help="put before the problem (default: for general instruct models one that asks for steps and a box; '' is "
        "none)",
    )
    option("--max-model-len", type=int, metavar="T", help="tokens of a problem and its solution together")
    option(
        "--answers",
        metavar="SPACE",
        help=f"what answers are: {', '.join(SPELLINGS)} (default: the data set's own, else math; docs/answers.md)",
    )
    return group


def add_request_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of :meth:`~adaptive_ttc.solver.Solver.solve`."""
    option = parser.add_argument_group("request").add_argument
    option("--budget-tokens", type=units, metavar="T", help="most that may be spent on a problem (see --count)")
    option(
        "--count",
        choices=COUNTS,
        help="what a budget bounds: generated tokens, those and the PRM's, or FLOPs of both (default: generated)",
    )
    option(
        "--strategy",
        help=f"{', '.join(strategy_names())} (default: with a budget alone, evidence decides what it is spent on; "
        "with --n, weighted_best_of_n, or majority without a PRM)",
    )
    option("--n", type=int, help="samples or beams")
    option(
        "--min-gain",
        type=float,
        metavar="G",
        help="with a budget alone: rise of the probability of a right answer, per 1,000 units, under which nothing is "
        "bought; 0 buys all that is expected to gain (default: 0.001 for what a first solution costs)",
    )
    option(
        "--max-rounds",
        type=int,
        metavar="R",
        help="with a budget alone: most slices of a problem one after the other (default: no limit)",
    )
    option("--beam-width", type=int, metavar="M", help="children per kept beam")
    option("--temperature", type=float, metavar="T", help="0 is greedy (default: 0.8)")
    option("--max-tokens", type=int, metavar="T", help="most tokens of one solution (default: 2048)")
    option("--think-tokens", type=int, metavar="T", help="most tokens that a reasoning model thinks in one solution")
    option("--waits", type=int, metavar="K", help="how often a thought that ends is made to go on (default: never)")
    option(
        "--option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="another option of the strategy, such as agg_strategy=min; may be repeated",
    )


def answers_of(options: argparse.Namespace) -> str | None:
    """The answer space that is asked for, by the options or their recipe. ConfigError: there is no such space."""
    named: str | None = options.answers
    if named is None and options.recipe is not None:
        named = read_recipe(options.recipe).answers
    space_of(named)
    return named


def _unboxed(recipe: Recipe) -> Recipe:
    """The recipe whose policies are asked for no box, but for prompts of its own."""
    first, second = ({"system_prompt": "", **own} for own in (recipe.policy_settings, recipe.second_settings))
    return replace(recipe, policy_settings=first, second_settings=second)


def load_solver(
    options: argparse.Namespace,
    seed: int | None,
    *,
    defaults: bool = False,
    spaces: Iterable[str | None] = (),
    calibrated: bool = True,
) -> Solver:
    """Load the models that the options name, with their calibration if asked for.

    Args:
        options: of the command.
        seed: of the solver.
        defaults: whether calls of the solver take what the recipe says of them.
        spaces: answer spaces that problems name; a general model is asked to put answers into a box only where these
            all are such.
        calibrated: False where strategies are asked for by name alone: no calibration is read, nor does a cascade need
            one.

    Raises:
        ConfigError: a model cannot be loaded.
    """
    check_beside(options)
    knock(options)
    boxed = all(space_of(one).asks == MATH.asks for one in spaces)
    calibration = _calibration(options) if calibrated else {"calibration": prior_of(Strategy.max_tokens, prm=False)}
    if options.recipe is not None:
        word = {"api_key_env": options.api_key_env, "trust_remote_code": options.trust_remote_code}
        word |= {"config": DriverConfig(grace=GRACE), "answers": options.answers, **calibration}
        word |= {} if defaults else {"defaults": None}
        recipe, part = read_recipe(options.recipe), getattr(options, "part", None)
        recipe = recipe if part is None else recipe.alone(second=part == "second")
        return Solver.recipe(recipe if boxed else _unboxed(recipe), seed=seed, **word)
    if options.api_key_env is not None or options.trust_remote_code:
        raise ConfigError("--api-key-env and --trust-remote-code are for what a --recipe names")
    if not any(is_hub_name(model) for model in (options.policy, options.prm) if model is not None):
        os.environ.setdefault("TQDM_DISABLE", "1")  # bars of downloads are wanted, those of reading local files are not
    settings = {name: value for name in _PLACING if (value := getattr(options, name)) is not None}
    if options.base_url is not None:
        if options.engine != "openai":
            raise ConfigError("--base-url is of a server: give --engine openai, or leave it out")
        settings["policy_settings"] = {"base_url": options.base_url}
    if options.engine == REPLAY:
        settings |= _of_replay(options, settings, seed)
    if not boxed:
        settings.setdefault("system_prompt", "")
    cascade = {"second": options.second, "second_weight": options.second_weight}
    settings |= {name: value for name, value in cascade.items() if value is not None}
    return Solver.load(
        options.policy or MINI_POLICY,
        options.prm or (None if options.policy else MINI_PRM),
        engine=options.engine,
        seed=seed,
        answers=options.answers,
        config=DriverConfig(finish_tokens=None if options.policy else MINI_FINISH_TOKENS, grace=GRACE),
        **settings,
        **calibration,
    )


def calibration_of(options: argparse.Namespace) -> str | Path | None:
    """The folder of the calibration that is named, else the recipe's, else the embedded pair's own; None: there is
    none, or a rule is named in its place. ConfigError: the recipe cannot be read.
    """
    if options.calibration is not None or options.rule is not None:
        named: str | None = options.calibration
        return named
    return own_calibration(options) if options.recipe is None else read_recipe(options.recipe).calibration


def own_calibration(options: argparse.Namespace) -> Path | None:
    """The embedded pair's own; None where other models or answers are named."""
    other = options.recipe or options.policy or options.prm or options.second or options.answers not in (None, "math")
    return None if other else mini_calibration()


def _calibration(options: argparse.Namespace) -> dict[str, Any]:
    """The solver's arguments about its calibration."""
    if "calibration" not in options:
        return {} if options.recipe is None else {"calibration": None}
    calibration = calibration_of(options)
    rule = selected_rule(options.rule, calibration)
    given = {} if rule is None else {"rule": rule}
    return {"calibration": calibration, "allow_mismatch": options.allow_mismatch, **given}


def _has_prm(options: argparse.Namespace) -> bool:
    """Whether there will be a PRM. ConfigError: the recipe cannot be read, or models are named beside it."""
    if options.recipe is None:
        return options.prm is not None or options.policy is None
    check_beside(options)
    return read_recipe(options.recipe).prm is not None


def second_of(options: argparse.Namespace) -> str | None:
    """The second policy that the options or their recipe name."""
    named: str | None = options.second
    return named if options.recipe is None else read_recipe(options.recipe).second


def check_beside(options: argparse.Namespace) -> None:
    """Refuse models beside a recipe, and the weight of a second policy that is not named (ConfigError)."""
    beside = [name for name in _MODELS if getattr(options, name) not in (None, DEFAULT_ENGINE)]
    if options.recipe is not None and beside:
        raise ConfigError(f"the recipe says which models are run and how: leave out {_flags(beside)}, or the recipe")
    if options.second is None and options.second_weight is not None:
        raise ConfigError("--second-weight is of a second policy: name it with --second MODEL, or leave it out")


def _defaults(options: argparse.Namespace) -> dict[str, Any]:
    """What the recipe says of requests."""
    if options.recipe is None:
        return {}
    said = dict(read_recipe(options.recipe).solve)
    return of_pools(said) if shared(options) else said


def _of_replay(options: argparse.Namespace, given: Iterable[str], seed: int | None) -> dict[str, Any]:
    """Settings of a replay. It alone takes the seed here: others get it with every request."""
    if options.policy is None:
        raise ConfigError("--engine replay answers from a file: name it as --policy FILE, and as --prm FILE for scores")
    if given:
        raise ConfigError(f"--engine replay runs no model: leave out {_flags(given)}")
    reader, _ = spelled(options.prm or "")
    recorded = reader is None or reader.runs_model
    return {"policy_settings": {"seed": seed or 0}, "prm_settings": {"reader": REPLAY} if recorded else {}}


def _flags(names: Iterable[str]) -> str:
    return ", ".join(f"--{name.replace('_', '-')}" for name in names)


def request_of(options: argparse.Namespace) -> dict[str, Any]:
    """Keyword arguments of ``Solver.solve``, the recipe's where the options give none; ConfigError for what
    can be refused before the models are loaded.
    """
    prm = _has_prm(options)
    request = {name: value for name in _FIELDS if (value := getattr(options, name)) is not None}
    for text in options.option:
        name, equals, value = text.partition("=")
        name = name.replace("-", "_")
        if not equals or not name.isidentifier():
            raise ConfigError(f"--option {text} must be NAME=VALUE")
        try:
            request[name] = json.loads(value)
        except ValueError:
            request[name] = value
    request = with_defaults(_defaults(options), request)
    of_strategy, asked = split({**request, **shared(options)})
    check_early(asked.get("strategy"), asked.get("budget_tokens"), of_strategy, prm=prm)
    return request


def shared(options: argparse.Namespace) -> dict[str, int]:
    """The shared budget, as an argument of ``Solver.solve_many``; refuses options that contradict it (ConfigError)."""
    if getattr(options, "shared_budget", None) is None:
        return {}
    beside = [name for name in ("budget_tokens", "strategy", "n") if getattr(options, name)]
    if beside:
        raise ConfigError(f"--shared-budget is allocated over the problems: leave out {_flags(beside)}")
    return {"budget_tokens": options.shared_budget}


def check_request(solver: Solver, request: dict[str, Any], rows: Iterable[Row]) -> None:
    """Refuse, before any work, what would fail for every problem with these models (ConfigError)."""
    refusal: ConfigError | None = None
    for row in rows:
        try:
            solver.stream(problem_of(row), **request)  # checked, but not begun
            return
        except ConfigError as error:
            refusal = refusal or error
    if refusal is not None:
        raise refusal
