"""The file of an export: what is there after a kill, leases, Parquet."""

import json

import pytest

from adaptive_ttc.errors import ConfigError
from adaptive_ttc.export.file import ExportFile, read_export
from tests.doubles import NearlyFull


def texts(path):
    return [line["text"] for line in read_export(path)]


def test_lines_without_an_entry_are_cut_off_and_the_problem_is_done_again(tmp_path):
    path = tmp_path / "out.jsonl"
    with ExportFile(path, {"format": "sft"}) as file:
        file.add("a", [{"text": "1"}, {"text": "2"}], {"lines": 2})
        file.add("b", [], {"lines": 0})
    with path.open("a") as lines:
        lines.write('{"text": "of a problem whose entry is missing"}\n{"te')
    with (tmp_path / "out.jsonl.progress").open("a") as journal:
        journal.write('{"id": "c", "end"')
    with ExportFile(path, {"format": "sft"}) as file:
        assert (file.done, file.counts["lines"], file.complete) == ({"a", "b"}, 2, False)
        file.add("c", [{"text": "3"}], {"lines": 1})
        file.finish()
    assert texts(path) == ["1", "2", "3"]
    with ExportFile(path, {"format": "sft"}) as file:
        assert (file.complete, file.counts["lines"]) == (True, 3)


def test_a_lease_that_a_kill_cut_off_stays_charged(tmp_path):
    path = tmp_path / "out.jsonl"
    with ExportFile(path, {}) as file:
        file.lease("a", 100)
        file.lease("b", 50)
        assert file.charged == 150
        file.add("a", [], {}, spent=30)
        assert file.charged == 80
    with ExportFile(path, {}) as file:
        assert file.charged == 80
        file.lease("b", 20)
        file.add("b", [], {}, spent=5)
        assert file.charged == 30 + 50 + 5
    with ExportFile(path, {}) as file:
        assert file.charged == 85
        file.lease("c", 40)
        file.keep("c", 7)
    with ExportFile(path, {}) as file:
        assert file.charged == 92


def test_another_run_and_files_of_something_else_are_refused(tmp_path):
    path = tmp_path / "out.jsonl"
    ExportFile(path, {"format": "dpo"}).close()  # nothing came of it
    with ExportFile(path, {"format": "sft", "most": 1}) as file:
        file.add("a", [{"text": "1"}], {})
    with pytest.raises(ConfigError, match=r"other arguments.*most 1 there and 2 here"):
        ExportFile(path, {"format": "sft", "most": 2})
    other = tmp_path / "mine.jsonl"
    other.write_text("{}\n")
    with pytest.raises(ConfigError, match="begun by no export"):
        ExportFile(other, {})
    assert other.read_text() == "{}\n"
    path.write_text("")
    with pytest.raises(ConfigError, match="holds less than"):
        ExportFile(path, {"format": "sft", "most": 1})
    (tmp_path / "out.jsonl.progress").write_text("nonsense\n")
    with pytest.raises(ConfigError, match="damaged"):
        ExportFile(path, {"format": "sft", "most": 1})


def test_two_processes_do_not_write_to_one_file(tmp_path):
    with ExportFile(tmp_path / "out.jsonl", {}), pytest.raises(ConfigError, match="another process"):
        ExportFile(tmp_path / "out.jsonl", {})


def test_parquet_is_made_at_the_end_from_lines_that_survive_a_kill(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "out.parquet"
    with ExportFile(path, {}) as file:
        file.add("a", [{"text": "1", "score": None, "labels": [True]}], {"lines": 1})
    assert not path.exists()
    with ExportFile(path, {}) as file:
        file.add("b", [{"text": "2", "score": 0.5, "labels": [False, True]}], {"lines": 1})
        file.finish()
    assert parquet.read_table(path).to_pylist() == [
        {"text": "1", "score": None, "labels": [True]},
        {"text": "2", "score": 0.5, "labels": [False, True]},
    ]
    assert not (tmp_path / "out.parquet.lines").exists()
    with ExportFile(path, {}) as file:
        assert file.complete
    with ExportFile(tmp_path / "none.parquet", {}) as file:
        file.finish()  # there is nothing that tells its columns
        assert file.complete
    assert not (tmp_path / "none.parquet").exists()


def test_without_pyarrow_the_remedy_is_named_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    with pytest.raises(ConfigError, match=r"pip install .*\.jsonl"):
        ExportFile(tmp_path / "out.parquet", {})


def test_lines_are_json_whatever_the_model_wrote(tmp_path):
    path = tmp_path / "out.jsonl"
    with ExportFile(path, {}) as file:
        file.add("a", [{"text": "half \ud83d\u2028 line\n"}], {})
    (line,) = path.read_bytes().splitlines()
    assert json.loads(line)["text"].startswith("half")


@pytest.mark.parametrize("part", ["_lines", "_journal"])
def test_a_full_disk_ends_the_run_and_costs_one_problem(part, tmp_path):
    path = tmp_path / "out.jsonl"
    with ExportFile(path, {}) as file:
        file.add("a", [{"text": "1"}], {"lines": 1})
        whole = getattr(file, part)
        setattr(file, part, NearlyFull(whole))
        with pytest.raises(ConfigError, match=r"takes no more lines .*make room"):
            file.add("b", [{"text": "2 and what does not fit"}], {"lines": 1})
        setattr(file, part, whole)
    with ExportFile(path, {}) as file:
        assert file.done == {"a"}
        file.add("b", [{"text": "2"}], {"lines": 1})
        file.finish()
    assert texts(path) == ["1", "2"]
