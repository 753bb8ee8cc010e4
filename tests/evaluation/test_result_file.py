"""The JSON record of a measurement: complete, valid JSON, and refused early where it cannot be written."""

import json
import math

import numpy as np
import pytest

from adaptive_ttc.errors import ConfigError
from adaptive_ttc.evaluation.result_file import shown_command, writable, write_record


def test_a_record_is_valid_json_with_plain_numbers(tmp_path):
    target = tmp_path / "new" / "out.json"
    figures = {"a": np.float32(0.5), "b": np.arange(2), "c": {16: math.nan}, "d": [True, None, 3]}
    write_record(target, "trial", ["python", "-m", "x", "two words"], figures)
    record = json.loads(target.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert set(record) == {"name", "command", "git", "machine", "figures"}
    assert record["command"] == "python -m x 'two words'"
    assert record["figures"] == {"a": 0.5, "b": [0, 1], "c": {"16": None}, "d": [True, None, 3]}
    assert record["machine"]["cpus"] >= 1


def test_a_figure_that_is_none_leaves_the_old_record(tmp_path):
    target = tmp_path / "out.json"
    write_record(target, "trial", "x", {"a": 1})
    with pytest.raises(TypeError, match="a figure is a number"):
        write_record(target, "trial", "x", {"a": object()})
    assert json.loads(target.read_text())["figures"] == {"a": 1}


def test_paths_that_cannot_be_written_are_refused_beforehand(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot make the folder"):
        writable(tmp_path / "file" / "out.json")
    with pytest.raises(ConfigError, match="is a folder"):
        writable(tmp_path)


def test_a_command_is_written_without_passwords():
    words = ["eval", "--base-url=http://ann:sesame@host/v1", "a b", "who@where", "http://host/@x"]
    assert shown_command(words) == "eval '--base-url=http://***@host/v1' 'a b' who@where http://host/@x"
