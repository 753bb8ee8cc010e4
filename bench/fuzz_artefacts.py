"""Damaged and forged files: every reader accepts them, or refuses them with a typed error, and raises nothing else.

    python bench/fuzz_artefacts.py [--mutations 300] [--kinds all] [--seed 0] [--json FILE]

For every kind of file that this library reads, a sound one is made and mutated, ``mutations`` times: bytes are changed,
cut or repeated, and values inside of it replaced by ones of other types, sizes and depths, with checksums made anew, as
a forger would. What is accepted is used for one problem. Kinds: ``calibration`` (JSON and trees), ``recipe``,
``trace`` (of a solution), ``traces`` (samples of others), ``record`` (of a Recorder), ``store`` (of units).

Figures, for every kind and in all: ``<kind>_mutated``, ``_refused`` (with a CalibrationError or ConfigError),
``_accepted``, ``_foreign`` (any other exception; the kinds of the first few are printed), ``_slowest`` (seconds of
processor time for one file).
"""

from __future__ import annotations

import copy
import hashlib
import io
import json
import random
import shutil
import sqlite3
import tempfile
import time
import traceback
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from measuring import Figures, run_measurement

from adaptive_ttc.calibration.collect.store import Store
from adaptive_ttc.calibration.collect.units import Drawn, PoolKey, Start, Work
from adaptive_ttc.cli.options import read_recipe
from adaptive_ttc.errors import CalibrationError, ConfigError
from adaptive_ttc.estimate.artefact import META, Calibrated, meta_digest
from adaptive_ttc.estimate.features import Attempt, Evidence, FirstStep, Unit
from adaptive_ttc.evaluation.traces import read_trace_files
from adaptive_ttc.loading import MINI_CALIBRATION
from adaptive_ttc.policies.fake import FakePolicy
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
from adaptive_ttc.solver import Solver
from adaptive_ttc.tracing.trace import Trace
from adaptive_ttc.tracing.tree import search_tree
from adaptive_ttc.types import Message, Prefix

Json = Any
_ROOT = Path(__file__).resolve().parents[1]

_VALUES: tuple[Callable[[random.Random], Json], ...] = (
    lambda rng: None,
    lambda rng: rng.choice((True, False)),
    lambda rng: rng.choice((0, -1, 1, 10**12, 2**63, -(2**63), 10**400)),
    lambda rng: rng.choice((0.5, -0.5, 1e308, 5e-324, float("nan"), float("inf"), float("-inf"))),
    lambda rng: rng.choice(("", "x", "\ud800", "\x00", "é" * 3, "9" * 5000, "../../etc/passwd", "nan")),
    lambda rng: [],
    lambda rng: {},
    lambda rng: [[]] * 3,
    lambda rng: {"": None, "x": [1]},
    lambda rng: _deep(rng.choice((30, 300))),
    lambda rng: list(range(2000)),
)


def _deep(levels: int) -> Json:
    value: Json = 1
    for _ in range(levels):
        value = [value]
    return value


def mutated_json(document: Json, rng: random.Random) -> Json:
    """A copy with one value anywhere in it replaced, removed, repeated or moved."""
    document = copy.deepcopy(document)
    at = document
    while True:
        if isinstance(at, dict) and at:
            key: Any = rng.choice(list(at))
        elif isinstance(at, list) and at:
            key = rng.randrange(len(at))
        else:
            return rng.choice(_VALUES)(rng)
        inner = at[key]
        if not isinstance(inner, dict | list) or not inner or rng.random() < 0.25:
            break
        at = inner
    match rng.randrange(5):
        case 0:
            del at[key]
        case 1 if isinstance(at, list):
            at.insert(key, copy.deepcopy(rng.choice(at)))
        case 1:
            at[f"{key}x"] = inner
        case 2:
            other = rng.choice(list(at)) if isinstance(at, dict) else rng.randrange(len(at))
            at[key], at[other] = at[other], at[key]
        case _:
            at[key] = rng.choice(_VALUES)(rng)
    return document


def mutated_bytes(data: bytes, rng: random.Random) -> bytes:
    """A copy with some bytes changed, cut, repeated or put in."""
    content = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 4, 30))):
        at = rng.randrange(len(content) + 1)
        match rng.randrange(5):
            case 0:
                content[at : at + 1] = bytes([rng.randrange(256)])
            case 1:
                del content[at : at + rng.choice((1, 10, len(content)))]
            case 2:
                content[at:at] = content[at // 2 : at // 2 + 50]
            case 3:
                content[at:at] = rng.choice((b"[" * 100_000, b"\xff\xfe", b"\x00", b"-", b'"', b"NaN", b"1e999"))
            case _:
                content[at : at + 4] = rng.randbytes(4)
        if not content:
            break
    return bytes(content)


def _text(document: Json) -> bytes:
    return json.dumps(document).encode("ascii")


def _mutated_lines(data: bytes, rng: random.Random) -> bytes:
    """JSON Lines with one line mutated as JSON, or as bytes."""
    lines = data.splitlines()
    number = rng.randrange(len(lines))
    lines[number] = _text(mutated_json(json.loads(lines[number]), rng))
    return b"\n".join(lines) + b"\n"


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
        file.write_bytes(_text(mutated_json(json.loads(file.read_text()), rng)))
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
        members[name] = _text(mutated_json(json.loads(members[name]), rng))
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
        path.write_bytes(_text(mutated_json(json.loads(path.read_bytes()), rng)))


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
    path.write_bytes(mutated_bytes(data, rng) if rng.random() < 0.3 else _mutated_lines(data, rng))


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


def _forge_store(path: Path, rng: random.Random) -> None:
    if rng.random() < 0.4:
        path.write_bytes(mutated_bytes(path.read_bytes(), rng))
        return
    with sqlite3.connect(path, isolation_level=None) as base:
        base.execute("PRAGMA ignore_check_constraints = 1")
        table = rng.choice(("pools", "problems", "units", "starts", "classes"))
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


KINDS: Mapping[str, Kind] = {
    "calibration": Kind(_make_calibration, _forge_calibration, _use_calibration),
    "recipe": Kind(_make_recipe, _forge_recipe, _use_recipe),
    "trace": Kind(_make_trace, _forge_json, _use_trace),
    "traces": Kind(_make_traces, _forge_lines, _use_traces),
    "record": Kind(_make_record, _forge_lines, _use_record),
    "store": Kind(_make_store, _forge_store, _use_store),
}


@dataclass
class Count:
    """What became of the mutated files of one kind."""

    refused: int = 0
    accepted: int = 0
    foreign: int = 0
    slowest: float = 0.0


def fuzz(name: str, mutations: int, seed: int, folder: Path, found: Counter[str] | None = None) -> Count:
    """Mutate and read so many files of one kind; ``found`` counts foreign exceptions by their words."""
    kind, count = KINDS[name], Count()
    sound = folder / f"sound_{name}"
    kind.make(sound)
    kind.use(sound)
    for number in range(mutations):
        rng = random.Random(f"{seed} {name} {number}")
        forged = folder / f"forged_{name}"
        if sound.is_dir():
            shutil.rmtree(forged, ignore_errors=True)
            shutil.copytree(sound, forged)
        else:
            for left in folder.glob(f"forged_{name}*"):
                left.unlink()
            shutil.copy(sound, forged)
        kind.forge(forged, rng)
        began = time.process_time()
        try:
            kind.use(forged)
        except (CalibrationError, ConfigError) as error:
            count.refused += 1
            if forged.name not in str(error) and found is not None:
                found[f"names no file: {str(error)[:90]}"] += 1
        except Exception as error:
            count.foreign += 1
            if found is not None:
                where = traceback.extract_tb(error.__traceback__)[-1]
                at = [one for one in traceback.extract_tb(error.__traceback__) if "adaptive_ttc" in one.filename][-1:]
                place = f"{Path(at[0].filename).name}:{at[0].lineno}" if at else where.filename
                found[f"FOREIGN {place} #{number} {type(error).__name__}: {str(error)[:70]}"] += 1
        else:
            count.accepted += 1
        count.slowest = max(count.slowest, time.process_time() - began)
    return count


async def measure(mutations: int, kinds: str, seed: int) -> Figures:
    import anyio.to_thread

    return await anyio.to_thread.run_sync(_measure, mutations, kinds, seed)


def _measure(mutations: int, kinds: str, seed: int) -> Figures:
    figures: dict[str, float] = {}
    counts = []
    for name in KINDS if kinds == "all" else kinds.split(","):
        found: Counter[str] = Counter()
        with tempfile.TemporaryDirectory() as folder:
            count = fuzz(name, mutations, seed, Path(folder), found)
        for words, times in found.most_common(12):
            print(f"{name}: {times} x {words!a}", flush=True)
        counts.append(count)
        figures |= {f"{name}_mutated": mutations}
        figures |= {f"{name}_{field}": value for field, value in vars(count).items()}
        print(name, vars(count), flush=True)
    for field in ("refused", "accepted", "foreign"):
        figures[field] = sum(getattr(count, field) for count in counts)
    return {"mutated": mutations * len(counts), **figures}


if __name__ == "__main__":
    run_measurement(
        "fuzz_artefacts",
        __doc__,
        measure,
        mutations=(300, "mutated files of every kind"),
        kinds=("all", "kinds of files, separated by commas"),
        seed=(0, "of the mutations"),
    )
