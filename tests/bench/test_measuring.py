import argparse
import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))

measuring = pytest.importorskip("measuring")


def test_a_report_is_one_object_with_stable_keys(tmp_path, monkeypatch):
    script = Path(measuring.__file__).with_name("throughput.py")
    monkeypatch.setattr(sys, "argv", [str(script), "--json", "out file.json"])
    parser = argparse.ArgumentParser()
    measuring.add_json_option(parser)
    path = parser.parse_args(["--json", str(tmp_path / "deep" / "out.json")]).json
    measuring.write_report(path, "throughput", {"ratio": 0.9, "curve": [1, 2]})
    written = json.loads(path.read_text())
    assert set(written) == {"name", "command", "git", "machine", "figures"}
    assert written["command"] == "python bench/throughput.py --json 'out file.json'"
    assert written["figures"] == {"ratio": 0.9, "curve": [1, 2]}
    assert written["git"]
    assert written["machine"]["cpus"] >= 1


def test_without_a_file_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    measuring.write_report(None, "throughput", {"ratio": 0.9})
    assert list(tmp_path.iterdir()) == []


def test_figures_that_are_no_numbers_are_refused(tmp_path):
    with pytest.raises(TypeError, match="number"):
        measuring.write_report(tmp_path / "out.json", "throughput", {"ratio": object()})


def test_a_file_that_cannot_be_written_is_refused_before_the_measuring(tmp_path, capsys):
    parser = argparse.ArgumentParser()
    measuring.add_json_option(parser)
    with pytest.raises(SystemExit):
        parser.parse_args(["--json", str(tmp_path)])
    assert "is a folder; name a file" in capsys.readouterr().err


def test_figures_are_printed_a_line_each_and_written(tmp_path, capsys):
    path = tmp_path / "out.json"
    measuring.report(path, "throughput", {"ratio": 0.91237, "tokens": 12345, "curve": [1, 2.5]})
    assert capsys.readouterr().out.splitlines() == ["ratio   0.9124", "tokens  12,345", "curve   1 2.5"]
    assert json.loads(path.read_text())["figures"]["ratio"] == 0.91237
