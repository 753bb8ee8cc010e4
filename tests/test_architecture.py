"""Which way imports point, what the core does without, and what it offers."""

import ast
import importlib.metadata
import subprocess
import sys
from pathlib import Path

import adaptive_ttc

ROOT = Path(adaptive_ttc.__file__).parent.parent
HEAVY = ("torch", "transformers", "vllm", "httpx", "sklearn", "datasets", "matplotlib", "sympy", "math_verify")
OUTER = ("policies", "calibration", "bench", "tests")


def imported_modules(source):
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield node.module


def loaded_after(statement):
    script = f"import sys\n{statement}\nprint(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    command = [sys.executable, "-c", script]
    return set(subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split())


def test_nothing_in_the_core_imports_what_is_built_on_it():
    files = sorted((ROOT / "adaptive_ttc").rglob("*.py"))
    assert len(files) > 20
    wrong = [
        (str(file.relative_to(ROOT)), module)
        for file in files
        for module in imported_modules(file.read_text())
        if module.split(".")[0] in OUTER
    ]
    assert wrong == []


def test_the_core_imports_no_heavy_library():
    everything = "\n".join(f"from adaptive_ttc import {name}" for name in adaptive_ttc.__all__)
    loaded = loaded_after(everything + "\nimport adaptive_ttc.voting, adaptive_ttc.answers, adaptive_ttc.prm")
    assert "anyio" in loaded
    assert loaded.isdisjoint(HEAVY)


def test_importing_the_package_imports_nothing_but_itself():
    assert "anyio" not in loaded_after("import adaptive_ttc")


def test_strategies_know_no_event_loop():
    for file in (ROOT / "adaptive_ttc" / "strategies").glob("*.py"):
        modules = {module.split(".")[0] for module in imported_modules(file.read_text())}
        assert modules.isdisjoint({"asyncio", "anyio", "threading", "random", "time"})
    loaded = loaded_after("import adaptive_ttc.strategies")
    assert loaded.isdisjoint({"anyio", *HEAVY})


def test_every_public_name_is_there_and_listed_once():
    assert sorted(set(adaptive_ttc.__all__)) == sorted(adaptive_ttc.__all__)
    for name in adaptive_ttc.__all__:
        assert getattr(adaptive_ttc, name).__name__ == name or name in ("Search",)
    assert set(adaptive_ttc.__all__) <= set(dir(adaptive_ttc))
    assert not hasattr(adaptive_ttc, "nothing_of_this_name")


def test_the_version_is_that_of_the_installed_package(monkeypatch):
    monkeypatch.setattr(importlib.metadata, "version", lambda name: {"adaptive-ttc": "7.8.9"}[name])
    monkeypatch.delitem(vars(adaptive_ttc), "__version__", raising=False)
    assert adaptive_ttc.__version__ == "7.8.9"
    del adaptive_ttc.__version__


def test_outside_an_install_the_version_says_so(monkeypatch):
    def not_installed(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", not_installed)
    monkeypatch.delitem(vars(adaptive_ttc), "__version__", raising=False)
    assert adaptive_ttc.__version__ == "0+unknown"
    del adaptive_ttc.__version__


def test_type_checkers_are_told_that_the_package_is_typed():
    assert (ROOT / "adaptive_ttc" / "py.typed").read_text() == ""
