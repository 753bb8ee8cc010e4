"""Graded records to fit a calibration on, from a store of drawn units, and their origin."""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from adaptive_ttc.calibration.collect.__main__ import (
    affords,
    check_workers,
    draw_missing,
    drawable,
    leave_over,
    policies_of,
)
from adaptive_ttc.calibration.collect.arms import Arm, demand
from adaptive_ttc.calibration.collect.records import ProblemRecord, Weights, load_records, with_second
from adaptive_ttc.calibration.collect.store import Store
from adaptive_ttc.calibration.collect.units import PoolKey, pool_key
from adaptive_ttc.calibration.fit.difficulty import check_enough
from adaptive_ttc.cli.options import answers_of, load_solver
from adaptive_ttc.configuration.recipe import read_recipe
from adaptive_ttc.errors import CalibrationError, ConfigError
from adaptive_ttc.estimate.features import Unit, family_of
from adaptive_ttc.evaluation.datasets import Row, load_problems, spaces_of
from adaptive_ttc.policies.cascade import cascade_fingerprint, cascade_name, weight_of
from adaptive_ttc.prm.base import traits_of
from adaptive_ttc.solver import Solver
from adaptive_ttc.strategies.base import AGGREGATIONS
from adaptive_ttc.types import Aggregation

# what a budget is counted in: tokens of the policy, those of the PRM weighed by its size, or alike, or not at all
COUNTS = ("flops", "generated+prm", "generated")


@dataclass(frozen=True, slots=True)
class FitData:
    """Graded records and their origin."""

    records: list[ProblemRecord]  # of the problems whose units are all there
    models: Mapping[str, str | None]  # ``policy`` and ``prm``, as a person calls them
    fingerprints: Mapping[str, str]  # ``policy``, ``prm``, ``prompt``, and ``answers`` where these are not ``math``
    dataset: Mapping[str, Any]  # ``name``, ``fingerprint``, and how many ``problems`` were asked for
    weights: Weights  # what a token costs
    counts: Mapping[str, int]  # ``problems``, ``units``, ``generated_tokens`` and ``prm_tokens`` of the records
    aggregations: tuple[Aggregation, ...] = AGGREGATIONS  # by which step scores may be reduced
    doubted: bool = False  # whether the scores are the policy's own confidence
    notes: tuple[str, ...] = ()  # what must be said of them
    # reading_seconds, reading_cpu_seconds: that reading the complete records took
    reading_seconds: float = 0.0
    reading_cpu_seconds: float = 0.0
    second_weight: float | None = None  # tokens of the first policy that one of the second counts; None without one

    @property
    def source(self) -> str:
        """The origin in one sentence."""
        models = " scored by ".join(name for name in self.models.values() if name is not None)
        return f"measured on {len(self.records)} problems of {self.dataset['name']} solved by {models}"


def from_store(options: argparse.Namespace, arms: Sequence[Arm], console: Console) -> FitData:
    """Draw what the store lacks, and read the complete problems; CalibrationError where there are none or too few."""
    check_workers(options)
    if options.resume and not options.store.is_file():
        raise ConfigError(f"--resume: there is no {options.store} to go on with; leave --resume out to begin")
    asked = policies_of(options)
    rows = load_problems(options.dataset, options.limit, answers=answers_of(options))
    check_enough(len(rows), options.folds)  # before hours of drawing
    parts = list[_Drawn]()
    for part in asked:
        parts.append(_drawn(part, arms, rows, console, beside=tuple(one.key for one in parts)))
        leave_over(part, parts[-1].generated, asked)
    first, second = parts[0], parts[1] if len(parts) > 1 else None
    records, key, models = first.records, first.key, dict(first.models)
    fingerprint, weight, counts = key.policy, None, counts_of_work(records)
    if second is not None:
        joint = {record.id for record in records} & {record.id for record in second.records}
        both = [[one for one in part.records if one.id in joint] for part in parts]
        counts = dict(sum(map(Counter, map(counts_of_work, both)), Counter[str]())) | {"problems": len(joint)}
        weight = weight_of(first.parameters, second.parameters, _weight_asked(options))
        records = with_second(records, second.records, weight)
        fingerprint = cascade_fingerprint(key.policy, second.key.policy)
        models["policy"] = cascade_name(str(models["policy"]), str(second.models["policy"]))
    if not records:
        raise CalibrationError(
            f"none of {len(rows)} problems has all the units that the arms need: give the same command again to go on, "
            "or allow more with --max-tokens-total"
        )
    weighed = {} if weight is None else {"second_weight": repr(weight)}
    return FitData(
        records,
        models,
        {"policy": fingerprint, "prm": key.prm, "prompt": key.prompt, **weighed, **told_answers(key.answers)},
        {"name": options.dataset, "fingerprint": dataset_fingerprint(rows), "problems": len(rows)},
        weights_of(options.count, first.prm_parameters / max(first.parameters, 1), weight or 0.0),
        counts,
        doubted=first.doubted,
        reading_seconds=sum(part.seconds for part in parts),
        reading_cpu_seconds=sum(part.cpu_seconds for part in parts),
        second_weight=weight,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Drawn:
    """What a store holds of one policy."""

    records: list[ProblemRecord]
    key: PoolKey
    models: Mapping[str, str | None]
    parameters: int  # of the policy
    prm_parameters: int
    doubted: bool
    generated: int  # tokens, in this run
    seconds: float
    cpu_seconds: float


def _drawn(
    options: argparse.Namespace,
    arms: Sequence[Arm],
    rows: Sequence[Row],
    console: Console,
    *,
    beside: Sequence[PoolKey],
) -> _Drawn:
    """Draw what the store lacks of one policy, ``beside`` the units of others, and read what is complete."""
    load = partial(load_solver, options, options.sampling_seed, spaces=spaces_of(rows))
    with Store(options.store) as store, load() as solver:
        settings = {name: getattr(options, name) for name in ("temperature", "max_tokens")}
        key = pool_key(solver, options.dataset, rows, seed=options.sampling_seed, **settings)
        others = store.keys()
        _explain_others([one for one in others if one not in beside], key, options, console)
        started, cpu = time.perf_counter(), time.process_time()
        wanted = demand(drawable(arms, solver, options), options.repeats)
        records = load_records(store, key, rows, wanted)
        seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu
        models = named(solver, embedded=options.policy is None and options.recipe is None)
        parameters, prm = solver.policy.parameters, 0 if solver.prm is None else solver.prm.parameters
        doubted, generated = traits_of(solver.prm).free, 0
        done = {record.id for record in records}
        lacking = [row for row in rows if row["unique_id"] not in done]
        if lacking and (not beside or affords(options)):
            generated = draw_missing(options, lacking, wanted, store, key, solver, load, console)
            records = load_records(store, key, rows, wanted)
    return _Drawn(
        records=records, key=key, models=models, parameters=parameters, prm_parameters=prm, doubted=doubted,
        generated=generated, seconds=seconds, cpu_seconds=cpu_seconds,
    )  # fmt: skip


def _weight_asked(options: argparse.Namespace) -> float | None:
    given: float | None = options.second_weight
    return given if options.recipe is None else read_recipe(options.recipe).second_weight


def told_answers(answers: str) -> dict[str, str]:
    """The answer space among the fingerprints; a calibration without one was made with ``math``."""
    return {} if answers == "math" else {"answers": answers}


def named(solver: Solver, *, embedded: bool) -> dict[str, str | None]:
    """Names of ``policy`` and ``prm`` for people: a folder by its last part, the embedded pair by ``mini``."""
    if embedded:
        return {"policy": "mini", "prm": "mini PRM"}
    found = {"policy": solver.policy.name, "prm": None if solver.prm is None else solver.prm.name}
    return {part: Path(name).name if name and Path(name).is_absolute() else name for part, name in found.items()}


def weights_of(count: str | None, ratio: float, second: float = 0.0) -> Weights:
    """Cost of a token under one of :data:`COUNTS`; ``ratio``: PRM parameters to policy parameters, 0 without a PRM;
    ``second``: tokens of the policy that one of the second counts, 0 without one.
    """
    prompt = second if count in (None, "flops") else 0.0
    if count == "generated" or not ratio:
        return Weights(second_prompt=prompt)
    return Weights(prm=1.0 if count == "generated+prm" else ratio, second_prompt=prompt)


def dataset_fingerprint(rows: Sequence[Row]) -> str:
    """Digest of problems, answers and their order."""
    text = json.dumps([[row["problem"], row["answer"]] for row in rows], ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def counts_of_work(records: Sequence[ProblemRecord]) -> dict[str, int]:
    """Units and tokens of records; tokens that a tree or chain starts from count once, with the sample."""
    units = [one.unit for record in records for drawn in record.units.values() for one in drawn]
    return {
        "problems": len(records),
        "units": len(units),
        "generated_tokens": sum(unit.generated - _begun(unit) for unit in units),
        "prm_tokens": sum(unit.prm for unit in units),
    }


def _begun(unit: Unit) -> int:
    family = family_of(unit.kind)
    if family in ("dvts", "beam_search"):
        return sum(step.tokens for step in unit.first_steps)
    return unit.attempts[0].tokens if family == "revision" and unit.attempts else 0


def _explain_others(keys: Sequence[PoolKey], key: PoolKey, options: argparse.Namespace, console: Console) -> None:
    """Say what a store was begun with where the settings differ; ConfigError where --resume is given."""
    if key in keys or not keys:
        return
    mine = asdict(key)
    theirs = min((asdict(other) for other in keys), key=lambda one: len(_differing(one, mine)))
    told = ", ".join(f"{name} {theirs[name]} there and {mine[name]} here" for name in _differing(theirs, mine))
    if options.resume:
        raise ConfigError(
            f"--resume: {options.store} was begun with other settings ({told}): give those, or leave --resume out to "
            "draw anew beside them"
        )
    note = f"note: {options.store} was begun with other settings ({told}): nothing of it is used, nothing is lost"
    console.print(Text(note, style="yellow"))


def _differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    return [name for name, value in one.items() if other.get(name) != value]
