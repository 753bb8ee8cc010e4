"""The kinds of files that ``fuzz_artefacts.py`` mutates: how a sound one is made, forged, read and used."""

from __future__ import annotations

import hashlib
import io
import json
import random
import shutil
import sqlite3
import warnings
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
from mutations import as_text, mutated_bytes, mutated_json, mutated_lines

from adaptive_ttc.calibration.collect.store import Store
from adaptive_ttc.calibration.collect.units import Drawn, PoolKey, Start, Work
from adaptive_ttc.configuration.recipe import read_recipe
from adaptive_ttc.estimate.artefact import META, Calibrated, meta_digest
from adaptive_ttc.estimate.features import Attempt, Evidence, FirstStep, Unit
from adaptive_ttc.evaluation.traces import read_trace_files
from adaptive_ttc.loading import MINI_CALIBRATION
from adaptive_ttc.policies.fake import FakePolicy, toy_right_so_far
from adaptive_ttc.policies.replay import ReplayPolicy
from adaptive_ttc.policies.replay.record import (
    Model,
    Record,
    RecordedProblem,
    RecordedSample,
    SampleSettings,
    load_record,
    save_record,
)
from adaptive_ttc.prm.fake import FakePRM
from adaptive_ttc.solver import Solver
from adaptive_ttc.tracing.trace import Trace
from adaptive_ttc.tracing.tree import search_tree
from adaptive_ttc.types import Message, Prefix, Problem

_ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Kind:
    """One kind of file: how a sound one is made, forged in place, and read and used."""

    make: Callable[[Path], None]
    forge: Callable[[Path, random.Random], None]
    use: Callable[[Path], None]


def _solve(**settings: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Solver(settings.pop("policy", None) or FakePolicy.generative(), **settings) as solver:
            solver.solve_sync("Add 3 + 4.", budget_tokens=300)


def _make_calibration(path: Path) -> None:
    shutil.copytree(MINI_CALIBRATION, path)


def _forge_calibration(path: Path, rng: random.Random) -> None:
    meta = json.loads((path / META).read_text())
    name = rng.choice([*meta["files"], META])
    file = path / name
    if rng.random() < 0.3:
        file.write_bytes(mutated_bytes(file.read_bytes(), rng))
    elif name.endswith(".skops"):
        file.write_bytes(_forged_archive(file.read_bytes(), rng))
    else:
        file.write_bytes(as_text(mutated_json(json.loads(file.read_text()), rng)))
    if rng.random() < 0.9:
        if name == META:
            try:
                meta = json.loads(file.read_text())
                meta["digest"] = meta_digest(meta)
            except (ValueError, TypeError, AttributeError, RecursionError):
                return
        else:
            meta["files"][name] = hashlib.sha256(file.read_bytes()).hexdigest()
            meta["digest"] = meta_digest(meta)
        (path / META).write_text(json.dumps(meta))


def _forged_archive(data: bytes, rng: random.Random) -> bytes:
    archive = zipfile.ZipFile(io.BytesIO(data))
    members = {one.filename: archive.read(one) for one in archive.infolist()}
    name = "schema.json" if rng.random() < 0.5 else rng.choice(list(members))
    if name == "schema.json":
        members[name] = as_text(mutated_json(json.loads(members[name]), rng))
    elif rng.random() < 0.5:
        members[name] = members[rng.choice(list(members))]  # an array of another estimator
    else:
        members[name] = mutated_bytes(members[name], rng)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as forged:
        for name, content in members.items():
            forged.writestr(name, content)
    return out.getvalue()


def _use_calibration(path: Path) -> None:
    loaded = Calibrated.load(path)
    loaded.gain.forecasts([Evidence("Add 3 + 4.", 5)])
    if loaded.difficulty is not None:
        loaded.difficulty.posterior(Evidence("Add 3 + 4.", 5))
    loaded.table.explain(1000.0)
    loaded.opening.within(500.0, 1.0, 1.0)


def _make_recipe(path: Path) -> None:
    shutil.copy(sorted((_ROOT / "recipes").glob("*.toml"))[0], path)


def _forge_recipe(path: Path, rng: random.Random) -> None:
    lines = path.read_bytes().splitlines()
    number = rng.randrange(len(lines))
    if b"=" in lines[number] and rng.random() < 0.6:
        value = rng.choice(
            (b"1", b"[]", b"{}", b"nan", b"'x'", b"[[1]]", b"1979-05-27", b"true", b"[" * 5000, b"9" * 9999)
        )
        lines[number] = lines[number].partition(b"=")[0] + b"= " + value
    elif rng.random() < 0.5:
        lines[number:number] = [
            rng.choice((b"[policy]", b"[prm]", b"[[policy]]", b"model = 1", b"policy = 1", b"x.y.z = 1"))
        ]
    else:
        lines = mutated_bytes(path.read_bytes(), rng).splitlines()
    path.write_bytes(b"\n".join(lines))


def _use_recipe(path: Path) -> None:
    read_recipe(path)


def _make_trace(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Solver(FakePolicy.generative()) as solver:
            solution = solver.solve_sync("Add 3 + 4.", budget_tokens=200)
    solution.trace.save(path)


def _forge_json(path: Path, rng: random.Random) -> None:
    if rng.random() < 0.3:
        path.write_bytes(mutated_bytes(path.read_bytes(), rng))
    else:
        path.write_bytes(as_text(mutated_json(json.loads(path.read_bytes()), rng)))


def _use_trace(path: Path) -> None:
    search_tree(Trace.load(path))


def _make_traces(path: Path) -> None:
    rows = [
        {
            "id": f"p{i}",
            "gold": "7",
            "question": f"Add 3 + {i}.",
            "model": "m-1b",
            "samples": [
                {"answer": "7", "tokens": 10 + k, "logprob": -0.5, "score": 0.5, "correct": k % 2 == 0}
                for k in range(4)
            ],
        }
        for i in range(3)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _forge_lines(path: Path, rng: random.Random) -> None:
    data = path.read_bytes()
    path.write_bytes(mutated_bytes(data, rng) if rng.random() < 0.3 else mutated_lines(data, rng))


def _use_traces(path: Path) -> None:
    traces = read_trace_files(path)
    policy = ReplayPolicy.from_pretrained(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Solver(policy) as solver:
            solver.solve_sync(traces.texts[0], budget_tokens=100)


def _make_record(path: Path) -> None:
    text = "3 + 4 = 7. The answer is \\boxed{7}."
    samples = tuple(
        RecordedSample(
            path=(i,),
            token_ids=tuple(range(1, 1 + len(text))),
            text=text,
            ends=tuple(range(1, 1 + len(text))),
            finish="eos",
            logprobs=(-0.5,) * len(text),
        )
        for i in range(3)
    )
    problem = RecordedProblem(id="p", messages=(Message("user", "Add 3 + 4."),), prompt_ids=(1, 2, 3), samples=samples)
    model = Model(name="m", fingerprint="f", parameters=10)
    save_record(Record(policy=model, prm=None, settings=SampleSettings(), max_context=4000, problems=(problem,)), path)


def _use_record(path: Path) -> None:
    record = load_record(path)
    with Solver(ReplayPolicy(record)) as solver:
        solver.solve_sync(record.problems[0].question, strategy="majority", n=2)


def _make_store(path: Path) -> None:
    key = PoolKey(policy="p", prm="q", prompt="", dataset="d")
    with Store(path) as store:
        for i in range(3):
            row = {"problem": f"Add 3 + {i}.", "answer": str(3 + i), "unique_id": str(i)}
            number = store.problem(key, row, 9)
            unit = Unit("sample", (Attempt("7", (0.5,), 12, -3.0),), (FirstStep(0.5, 4, -1.0),), 12, 20)
            work = Work(12, 20, 9, 100.0)
            whole = Prefix((1, 2, 3), "abc", (0.5,), -3.0, "eos", (0,))
            store.add(number, Drawn(0, unit, work, Start(whole, work, whole, work)))


_STORE_VALUES = (None, -1, 0, 2**62, "x", "", b"\xff", "[]", "{}", "[[1]]", "[[[[]]]]", "NaN", "[" * 50_000, 1e308)


def _forge_tables(path: Path, rng: random.Random, tables: tuple[str, ...]) -> None:
    """A database with bytes changed, a table dropped, or made a view without end, or a column replaced."""
    if rng.random() < 0.4:
        path.write_bytes(mutated_bytes(path.read_bytes(), rng))
        return
    with sqlite3.connect(path, isolation_level=None) as base:
        base.execute("PRAGMA ignore_check_constraints = 1")
        table = rng.choice(tables)
        columns = [row[1] for row in base.execute(f"PRAGMA table_info({table})")]
        try:
            match rng.randrange(5):
                case 0:
                    base.execute(f"DROP TABLE {table}")
                case 1:
                    counting = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c LIMIT 2000000000)"
                    named = ", ".join(f"x AS {column}" for column in columns)
                    base.execute(f"DROP TABLE {table}")
                    base.execute(f"CREATE VIEW {table} AS {counting} SELECT {named} FROM c")
                case _:
                    base.execute(f"UPDATE {table} SET {rng.choice(columns)} = ?", (rng.choice(_STORE_VALUES),))
        except sqlite3.Error:
            pass
    base.close()


def _forge_store(path: Path, rng: random.Random) -> None:
    _forge_tables(path, rng, ("pools", "problems", "units", "starts", "classes", "undecided"))


def _use_store(path: Path) -> None:
    with Store(path) as store:
        for key in list(store.keys()):
            for one in store.holdings(key):
                assert isinstance(one.answers, set)
            for name in ("0", "1"):
                row = {"problem": f"Add 3 + {name}.", "answer": str(3 + int(name)), "unique_id": name}
                number = store.find(key, row)
                if number is not None:
                    store.indices(number)
                    store.starts(number, [0])


def _solve_many(path: Path, deadline: float | None = None) -> None:
    """A pool of three problems that keeps a checkpoint; answers are checked, and known to be wrong or not at all."""

    def check(problem: Problem, answer: str) -> bool | None:
        return None if answer == "7" else False

    async def solve() -> None:
        policy, prm = FakePolicy.generative(error_rate=0.3), FakePRM.truthful(toy_right_so_far)
        async with Solver(policy, prm, verify=check) as solver:
            questions = [f"Add 3 + {number}." for number in range(3)]
            pool = solver.solve_many(questions, budget_tokens=900, max_tokens=120, checkpoint=path, deadline=deadline)
            for solution in await pool:
                solution.explain()
            pool.report()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        anyio.run(solve)


def _make_checkpoint(path: Path) -> None:
    """Of a call of which one problem is settled, and another one was cut off in the midst of a slice."""
    _solve_many(path)
    with sqlite3.connect(path, isolation_level=None) as base:
        base.execute("UPDATE problems SET closing = NULL WHERE number > 0")
        last = "SELECT max(id) FROM slices WHERE problem = 2"
        base.execute(f"UPDATE slices SET drawn = NULL WHERE id = ({last})")
    base.close()


def _forge_checkpoint(path: Path, rng: random.Random) -> None:
    if rng.random() < 0.5:
        _forge_tables(path, rng, ("call", "problems", "slices", "verdicts"))
        return
    with sqlite3.connect(path, isolation_level=None) as base:
        column, table, key = rng.choice((("drawn", "slices", "id"), ("closing", "problems", "number")))
        found = base.execute(f"SELECT {key}, {column} FROM {table} WHERE {column} IS NOT NULL").fetchall()
        name, blob = rng.choice(found)
        forged = zlib.compress(as_text(mutated_json(json.loads(zlib.decompress(blob)), rng)))
        base.execute(f"UPDATE {table} SET {column} = ? WHERE {key} = ?", (forged, name))
    base.close()


KINDS: Mapping[str, Kind] = {
    "calibration": Kind(_make_calibration, _forge_calibration, _use_calibration),
    "recipe": Kind(_make_recipe, _forge_recipe, _use_recipe),
    "trace": Kind(_make_trace, _forge_json, _use_trace),
    "traces": Kind(_make_traces, _forge_lines, _use_traces),
    "record": Kind(_make_record, _forge_lines, _use_record),
    "store": Kind(_make_store, _forge_store, _use_store),
    "checkpoint": Kind(_make_checkpoint, _forge_checkpoint, _solve_many),
}
