"""Which way imports point, that none goes round in a circle, what the core does without, and what it offers."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import adaptive_ttc

ROOT = Path(adaptive_ttc.__file__).parent.parent
HEAVY = (
    "torch",
    "transformers",
    "vllm",
    "httpx",
    "httpx2",
    "sklearn",
    "skops",
    "datasets",
    "matplotlib",
    "sympy",
    "math_verify",
)
OUTER = ("adaptive_ttc.policies", "adaptive_ttc.calibration", "policies", "calibration", "bench", "tests")

LAYERS = (
    ("types", "errors", "events", "files"),
    (
        "cost",
        "ledger",
        "voting",
        "stopping",
        "policy",
        "prm",
        "answers",
        "tracing",
        "loading",
        "wrappers",
        "tasks",
        "database",
        "display",
    ),
    ("strategies",),
    ("driver",),
    ("estimate",),
    ("allocation",),
    ("solution", "run"),
    ("configuration",),
    ("solver",),
    ("evaluation", "serve", "adapters"),
    ("doctor", "export"),
    ("training",),
    ("cli",),
    ("mini",),
    ("__main__",),
)
"""Packages and modules of ``adaptive_ttc``; each imports those of its own row and of the rows above it."""

LATER = {("evaluation.datasets", "mini.settings"), ("loading", "evaluation.datasets")}
"""Imports inside a function, of what lies above."""


def sources(folder: str) -> dict[str, str]:
    """Module name -> source, of a folder of the clone; of ``adaptive_ttc`` without what lies in folders of its own."""
    found = {}
    for file in sorted((ROOT / folder).rglob("*.py")):
        parts = file.relative_to(ROOT).with_suffix("").parts
        if folder != "adaptive_ttc" or parts[1] not in ("policies", "calibration"):
            name = ".".join(parts).removesuffix(".__init__")
            found[name if folder == "adaptive_ttc" else f"adaptive_ttc.{name}"] = file.read_text(encoding="utf-8")
    return found


def imports(source: str, *, everywhere: bool) -> Iterator[str]:
    """The modules that a source imports, each name of a ``from`` with its module; those of type checking left out."""
    waiting: list[ast.AST] = [ast.parse(source)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            waiting += node.orelse
        elif everywhere or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            waiting += ast.iter_child_nodes(node)


def own(name: str, modules: dict[str, str]) -> str | None:
    """The module of ours that an imported name is, or is in."""
    while name and name not in modules:
        name = name.rpartition(".")[0]
    return name or None


def loaded_after(statement: str) -> set[str]:
    script = f"import sys\n{statement}\nprint(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    command = [sys.executable, "-c", script]
    return set(subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split())


def test_nothing_in_the_core_imports_what_is_built_on_it():
    modules = sources("adaptive_ttc")
    assert len(modules) > 80
    wrong = [
        (name, imported)
        for name, source in modules.items()
        for imported in imports(source, everywhere=True)
        if any(imported == outer or imported.startswith(f"{outer}.") for outer in OUTER)
    ]
    assert wrong == []


def test_every_layer_imports_only_those_below_it():
    modules = sources("adaptive_ttc")
    height = {part: number for number, row in enumerate(LAYERS) for part in row}
    parts = {name.split(".")[1] for name in modules if "." in name}
    assert parts == set(height), "every package and module has its place"
    wrong = []
    for name, source in modules.items():
        if name == "adaptive_ttc":
            continue
        for imported in imports(source, everywhere=True):
            target = own(imported, modules)
            if target is None or target == "adaptive_ttc":
                continue
            pair = (name.removeprefix("adaptive_ttc."), target.removeprefix("adaptive_ttc."))
            if height[pair[0].split(".")[0]] < height[pair[1].split(".")[0]] and pair not in LATER:
                wrong.append(pair)
    assert wrong == []


@pytest.mark.parametrize("folder", ["adaptive_ttc", "policies", "calibration"])
def test_no_imports_go_round_in_a_circle(folder):
    """Between modules, by what is imported when they are; a package is imported before what lies in it."""
    modules = sources(folder)
    graph = {
        name: {
            target
            for imported in imports(source, everywhere=False)
            if (target := own(imported, modules)) not in (None, name)
        }
        for name, source in modules.items()
    }
    circles, done = [], set()

    def walk(name, path):
        if name in path:
            circles.append([*path[path.index(name) :], name])
        elif name not in done:
            for target in sorted(graph[name]):
                walk(target, [*path, name])
            done.add(name)

    for name in graph:
        walk(name, [])
    assert circles == []


def test_the_core_imports_no_heavy_library():
    everything = "\n".join(f"from adaptive_ttc import {name}" for name in adaptive_ttc.__all__)
    loaded = loaded_after(everything + "\nimport adaptive_ttc.voting, adaptive_ttc.answers, adaptive_ttc.prm")
    assert "anyio" in loaded
    assert loaded.isdisjoint(HEAVY)


def test_importing_the_package_imports_nothing_but_itself():
    loaded = loaded_after("import adaptive_ttc")
    assert loaded.isdisjoint({"anyio", "numpy", *HEAVY})


def test_a_folder_of_the_same_name_shadows_nothing(tmp_path):
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "__init__.py").touch()
    (tmp_path / "calibration.py").write_text("raise RuntimeError('this is not the one')")
    script = (
        "import sys; sys.path.insert(0, '')\n"
        "from adaptive_ttc.policies.fake import FakePolicy\n"
        "import adaptive_ttc.calibration.show\n"
        "from adaptive_ttc.loading import POLICY_GROUP, PRM_GROUP\n"
        "from importlib.metadata import entry_points\n"
        "assert {entry.value.split('.')[0] for group in (POLICY_GROUP, PRM_GROUP) "
        "for entry in entry_points(group=group)} == {'adaptive_ttc'}\n"
    )
    command = [sys.executable, "-c", script]
    environment = {"PYTHONPATH": str(ROOT), "PATH": ""}
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)


def test_strategies_know_no_event_loop():
    for name, source in sources("adaptive_ttc").items():
        if name.startswith("adaptive_ttc.strategies"):
            modules = {imported.split(".")[0] for imported in imports(source, everywhere=True)}
            assert modules.isdisjoint({"asyncio", "anyio", "threading", "random", "time"})
    loaded = loaded_after("import adaptive_ttc.strategies")
    assert loaded.isdisjoint({"anyio", *HEAVY})


def test_functions_and_files_are_short():
    long_files, long_functions = [], []
    for folder in ("adaptive_ttc", "policies", "calibration"):
        for name, source in sources(folder).items():
            if name.startswith("adaptive_ttc.mini"):
                continue
            if source.count("\n") > 400:
                long_files.append(name)
            long_functions += [
                (name, node.name)
                for node in ast.walk(ast.parse(source))
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno - node.lineno >= 60
            ]
    assert (long_files, long_functions) == ([], [])
    assert len(list((ROOT / "adaptive_ttc").glob("*.py"))) <= 15


def test_every_public_name_is_there_and_listed_once():
    assert sorted(set(adaptive_ttc.__all__)) == sorted(adaptive_ttc.__all__)
    for name in adaptive_ttc.__all__:
        if name != "__version__":
            assert getattr(adaptive_ttc, name).__name__ == name or name in ("Search",)
    assert set(adaptive_ttc.__all__) <= set(dir(adaptive_ttc))
    assert not hasattr(adaptive_ttc, "nothing_of_this_name")
