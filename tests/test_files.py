"""Files are read up to a size, plain or gzip, and the error names the file, the limit and a remedy."""

import gzip
import json

import pytest

from adaptive_ttc.configuration.recipe import read_recipe
from adaptive_ttc.errors import CalibrationError, CheckpointError, ConfigError
from adaptive_ttc.estimate import artefact
from adaptive_ttc.estimate.artefact import META, read_meta
from adaptive_ttc.evaluation import datasets, traces
from adaptive_ttc.files.bounded import read_lines, read_whole
from adaptive_ttc.policies.replay import record
from adaptive_ttc.run import checkpoint
from adaptive_ttc.tracing import trace


def test_a_file_is_read_whole_up_to_the_limit(tmp_path):
    file = tmp_path / "some.bin"
    file.write_bytes(b"x" * 3_000_000)
    assert read_whole(file, 3_000_000, ConfigError, "give less") == file.read_bytes()
    with pytest.raises(ConfigError, match=r"some\.bin holds more than 2,097,152 bytes.*: give less"):
        read_whole(file, 2 * 2**20, ConfigError, "give less")
    with pytest.raises(FileNotFoundError):
        read_whole(tmp_path / "none", 1, ConfigError, "give less")


def test_what_gzip_unpacks_to_counts(tmp_path):
    file = tmp_path / "bomb.gz"
    file.write_bytes(gzip.compress(b"[" * 30_000_000))
    assert file.stat().st_size < 2**16
    for read in (read_whole, lambda *given, **more: list(read_lines(*given, **more))):
        with pytest.raises(ConfigError, match=r"bomb\.gz.* holds more than 1,048,576 bytes"):
            read(file, 2**20, ConfigError, "give less", packed=True)


def test_lines_are_read_one_by_one_each_up_to_the_limit(tmp_path):
    file = tmp_path / "lines"
    file.write_text("é\n\nlonger\nx", encoding="utf-8")
    assert list(read_lines(file, 7, ConfigError, "cut it")) == ["é\n", "\n", "longer\n", "x"]
    with pytest.raises(ConfigError, match=r"lines, line 3 holds more than 6 bytes, the most that is read: cut it"):
        list(read_lines(file, 6, ConfigError, "cut it"))


@pytest.mark.parametrize(
    ("module", "limit", "read", "error"),
    [
        (traces, "SAMPLES", traces.read_trace_files, ConfigError),
        (traces, "SAMPLES", traces.holds_traces, ConfigError),
        (datasets, "PROBLEM", lambda path: list(datasets._file_rows(path, None, gold="needed")), ConfigError),
        (record, "SAMPLES", record.load_record, ConfigError),
        (trace, "SAMPLES", trace.Trace.load, ConfigError),
        ("adaptive_ttc.configuration.recipe", "RECIPE", read_recipe, ConfigError),
        (artefact, "CALIBRATION", lambda path: read_meta(path.parent), CalibrationError),
    ],
)
def test_every_reader_has_a_limit(monkeypatch, tmp_path, module, limit, read, error):
    file = tmp_path / META
    file.write_text(json.dumps({"x": "y" * 1000}))
    name = module if isinstance(module, str) else module.__name__
    monkeypatch.setattr(f"{name}.{limit}", 500)
    with pytest.raises(error, match="holds more than 500 bytes") as raised:
        read(file)
    assert str(file) in str(raised.value)


def test_an_entry_of_a_checkpoint_is_unpacked_up_to_the_limit(monkeypatch, tmp_path):
    monkeypatch.setattr(checkpoint, "SAMPLES", 500)
    with checkpoint.Checkpoint(tmp_path / "run.db") as file:
        problem = checkpoint.Problem.of("how?")
        file.enter(0, problem)
        with file._transaction():
            file._db.execute("UPDATE problems SET closing = ?", (checkpoint._packed(["x" * 1000]),))
        with pytest.raises(CheckpointError, match=r"run\.db is .*holds more than 500 bytes"):
            file.enter(0, problem)
