"""What messages send their reader to: pages that are there, commands that work as they are printed."""

import re
import shlex
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

import adaptive_ttc
from adaptive_ttc import errors, loading
from adaptive_ttc.errors import ConfigError, install_command, see
from tests.test_docs import anchors

ROOT = Path(adaptive_ttc.__file__).parent.parent
SOURCES = [path for folder in ("adaptive_ttc", "policies", "calibration") for path in (ROOT / folder).rglob("*.py")]


def test_pages_that_messages_name_are_there():
    named = {page for path in SOURCES for page in re.findall(r"\bsee\([\"']([^\"']+)[\"']\)", path.read_text())}
    assert len(named) > 8
    for page in named:
        name, _, anchor = page.partition("#")
        file = ROOT / see(name).strip("()")
        assert file.is_file(), page
        assert not anchor or anchor in anchors(file), page


def test_no_message_installs_the_package_from_where_it_is_not():
    assert [str(path) for path in SOURCES if re.search(r"pip install '?adaptive.ttc", path.read_text())] == []


@pytest.mark.parametrize("extra", ["datasets", "openai", "plot", "ray", "serve", "vllm"])
def test_an_extra_is_installed_by_the_names_of_its_packages(extra, monkeypatch):
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    lines = [f"{package}; extra == '{name}'" for name, packages in wanted.items() for package in packages]
    monkeypatch.setattr(errors.metadata, "requires", lambda name: ["anyio>=4.9", *lines])
    assert install_command(extra) == f"pip install {shlex.join(wanted[extra])}"

    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(errors.metadata, "requires", missing)
    assert install_command(extra) == f"pip install '.[{extra}]' (in a clone)"


def test_an_engine_without_its_library_names_the_command(monkeypatch):
    class Entry:
        name = "openai"

        def load(self):
            raise ModuleNotFoundError("No module named 'httpx2'", name="httpx2")

    monkeypatch.setattr(loading, "entry_points", lambda group: [Entry()])
    with pytest.raises(ConfigError, match=r"No module named 'httpx2': pip install 'httpx2>="):
        loading.load_policy("a/b", engine="openai")
    monkeypatch.setattr(loading, "entry_points", lambda group: [])
    with pytest.raises(ConfigError, match=rf"none: install the package \(pip install {ROOT}\)"):
        loading.load_policy("a/b")
