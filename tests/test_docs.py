"""README.md and docs/: their Python runs, their command lines parse, and what they name is there.

A ```python block is run, after those above it on its page. One with ``no-run`` in its fence line is compiled, and its
imports and the settings that it gives ``Solver.load`` are looked up; one with ``needs-PACKAGE`` is compiled only where
that package is missing. In ```sh and ```bash blocks, the command lines of this project are read by the real parsers.
"""

from __future__ import annotations

import ast
import asyncio
import importlib
import importlib.util
import inspect
import re
import shlex
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

import adaptive_ttc
from adaptive_ttc import cli
from adaptive_ttc.calibration import show
from adaptive_ttc.calibration.collect import __main__ as collect
from adaptive_ttc.calibration.fit import __main__ as fit
from adaptive_ttc.calibration.pareto import __main__ as pareto
from adaptive_ttc.cli import evaluate, solve
from adaptive_ttc.cli.options import request_of
from adaptive_ttc.driver.engines import DriverConfig
from adaptive_ttc.estimate.artefact import Calibrated
from adaptive_ttc.loading import MINI_CALIBRATION, MINI_FINISH_TOKENS, POLICY_GROUP, PRM_GROUP
from adaptive_ttc.policies.openai import FleetConfig, OpenAIPolicy
from adaptive_ttc.policies.transformers import TransformersPolicy
from adaptive_ttc.prm import registry as prm_registry
from adaptive_ttc.solver import Solver
from adaptive_ttc.strategies import registry as strategy_registry
from adaptive_ttc.strategies import strategy_names
from adaptive_ttc.wrappers import WrappedPolicy, WrappedPRM

ROOT = Path(adaptive_ttc.__file__).parent.parent
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "recipes" / "README.md")
NAMED = (*PAGES, ROOT / "CHANGELOG.md")
README_LINES = 120
KNOWN_SETTINGS = {
    "transformers": {*inspect.signature(TransformersPolicy.from_pretrained).parameters},
    "openai": {*inspect.signature(OpenAIPolicy.from_pretrained).parameters, *FleetConfig.__dataclass_fields__},
}
PARSERS = {f"adaptive_ttc.calibration.{name}": one.parser for name, one in (("collect", collect), ("show", show))}


@dataclass(frozen=True)
class Block:
    page: Path
    line: int
    language: str
    options: tuple[str, ...]
    text: str

    @property
    def needed(self) -> list[str]:
        """Packages without which it does not run."""
        return [option.removeprefix("needs-") for option in self.options if option.startswith("needs-")]

    @property
    def code(self) -> Any:
        """Compiled so that errors name the page's own lines."""
        source = "\n" * self.line + self.text
        return compile(source, str(self.page), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)


def blocks(page: Path, *languages: str) -> Iterator[Block]:
    fence = re.compile(r"^([ ]*)```(\w+)([^\n]*)\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)
    text = page.read_text(encoding="utf-8")
    for match in fence.finditer(text):
        if match[2] in languages:
            line = text.count("\n", 0, match.start()) + 1
            yield Block(page, line, match[2], tuple(match[3].split()), textwrap.dedent(match[4]))


def prose(page: Path) -> str:
    return re.sub(r"^([ ]*)```.*?^\1```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


class KeptPolicy(WrappedPolicy):
    async def aclose(self) -> None:
        """Stays open for the other pages."""


class KeptPRM(WrappedPRM):
    async def aclose(self) -> None:
        """Stays open for the other pages."""


@pytest.fixture(scope="module")
def mini() -> Iterator[Solver]:
    with Solver.mini() as solver:
        yield solver


@pytest.fixture
def one_pair(mini: Solver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every ``Solver.mini()`` of a page has the one pair; what a page registers is forgotten after it."""
    calibrated = Calibrated.load(MINI_CALIBRATION)
    config = DriverConfig(finish_tokens=MINI_FINISH_TOKENS)
    assert mini.prm is not None
    pair = KeptPolicy(mini.policy), KeptPRM(mini.prm)
    monkeypatch.setattr(Solver, "mini", lambda **given: Solver(*pair, config=config, calibration=calibrated, **given))
    for module, name in (
        (strategy_registry, "_STRATEGIES"),
        (strategy_registry, "_ALIASES"),
        (prm_registry, "_READERS"),
    ):
        monkeypatch.setattr(module, name, dict(getattr(module, name)))


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_python_blocks_run(
    page: Path, one_pair: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    page_names: dict[str, Any] = {"__name__": "__page__"}
    with asyncio.Runner() as runner:
        for block in blocks(page, "python"):
            if any(importlib.util.find_spec(package) is None for package in block.needed):
                assert block.code
                continue
            if "no-run" in block.options:
                resolve_imports(block)
                continue
            work = eval(block.code, page_names)
            if inspect.iscoroutine(work):
                runner.run(work)
    capsys.readouterr()


def resolve_imports(block: Block) -> None:
    assert block.code
    for node in ast.walk(ast.parse(block.text)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                importlib.import_module(alias.name)
        elif isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module or "")
            assert not [alias.name for alias in node.names if not hasattr(module, alias.name)]
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "Solver.load":
            check_settings({word.arg: word.value for word in node.keywords})


def check_settings(given: dict[str | None, ast.expr]) -> None:
    """Whether ``Solver.load`` takes these arguments, and the engine, where it can be imported here, its settings."""
    inspect.signature(Solver.load).bind("policy", "prm", **dict.fromkeys(map(str, given)))
    engine = ast.literal_eval(given["engine"]) if "engine" in given else "transformers"
    settings = given.get("policy_settings")
    if engine in KNOWN_SETTINGS and isinstance(settings, ast.Dict):
        keys = {ast.literal_eval(key) for key in settings.keys if key is not None}
        assert keys <= KNOWN_SETTINGS[engine], f"{engine} takes no {keys - KNOWN_SETTINGS[engine]}"


def command_lines() -> list[tuple[str, list[str]]]:
    """Page and line, and the words of every command line of this project."""
    found = []
    for page in PAGES:
        for block in blocks(page, "sh", "bash"):
            lines = block.text.replace("\\\n", " ").splitlines()
            for words in (shlex.split(line, comments=True) for line in lines):
                if words[:3] and (words[0] == "adaptive-ttc" or words[0] == "python"):
                    found.append((f"{named(page)}:{block.line}: {shlex.join(words)}", words))
    return found


def test_command_lines_are_those_of_the_real_parsers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    asked = []
    for module in (solve, evaluate, cli.export, cli.show, cli.serve, cli.doctor, cli.train_prm, cli.train_policy):
        monkeypatch.setattr(module, "run", lambda options: asked.append(options))
    read = 0
    for where, words in command_lines():
        match words:
            case ["adaptive-ttc", "calibrate" | "pareto" as name, *rest]:
                assert {"calibrate": fit, "pareto": pareto}[name].parser().parse_args(rest), where
            case ["adaptive-ttc", *rest] | ["python", "-m", "adaptive_ttc", *rest]:
                assert cli.main(rest) == 0, where
            case ["python", "-m", module, *rest] if module in PARSERS:
                assert PARSERS[module]().parse_args(rest), where
            case ["python", "-m", module, *_] if module.startswith("adaptive_ttc."):
                assert importlib.util.find_spec(module), where
            case ["python", "-m", module, *_] if module.startswith("vllm."):
                continue
            case ["python", "-m", module, *_]:  # a name that is there in a clone alone
                raise AssertionError(f"{where}: {module} is not in the installed package")
            case ["python", script, *_]:
                assert (ROOT / script).is_file(), where
        read += 1
    assert read > 10
    for options in asked:
        if "strategy" in options and "sources" not in options:
            request_of(options)  # refused early where no models could carry it out


@pytest.mark.parametrize("page", NAMED, ids=named)
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path) if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(target)
    assert broken == []


def anchors(page: Path) -> set[str]:
    """The names that GitHub gives to headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_named_files_and_modules_are_there(page: Path) -> None:
    missing = [span for span in re.findall(r"`([^`\n]+)`", prose(page)) if not there(span, page)]
    for block in blocks(page, "text"):
        paths = (word for word in re.split(r"[\s,:]+", block.text) if "/" in word)
        missing += [path for path in paths if not (ROOT / path).exists()]
    assert missing == []


def there(span: str, page: Path) -> bool:
    """Whether a path or a dotted name of this project exists; True of everything else."""
    if span in (POLICY_GROUP, PRM_GROUP):
        return bool(entry_points(group=span))
    if re.fullmatch(r"adaptive_ttc(\.\w+)+", span):
        return resolves(span)
    is_path = re.fullmatch(r"(?!n/|N/)[\w-][\w.-]*(/[\w.-]+)*/|[\w-][\w.-]*(/[\w.-]+)*\.(py|md|toml|html|jsonl)", span)
    if not is_path or ("/" not in span and span.endswith((".html", ".jsonl"))):  # files of the reader's own
        return True
    return any((home / span).exists() for home in (ROOT, ROOT / "adaptive_ttc", page.parent))


def resolves(dotted: str) -> bool:
    module, _, name = dotted.rpartition(".")
    try:
        importlib.import_module(dotted)
    except ImportError:
        return hasattr(importlib.import_module(module), name)
    return True


def test_the_readme_is_short_and_lists_every_strategy() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= README_LINES
    assert [name for name in strategy_names() if f"| `{name}`" not in text] == []
