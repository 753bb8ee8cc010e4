"""The solver of a pair that adapters name."""

import pytest

from adaptive_ttc.adapters.shared import NamedSolver
from adaptive_ttc.errors import ConfigError


@pytest.mark.parametrize(
    ("name", "settings", "told"),
    [
        ("mini", {"budget_token": 100}, r"mini takes no budget_token \(budget_tokens\?\)"),
        ("mini", {"prm": "owner/name"}, "mini takes no prm"),
        ("./folder", {"calibratoin": "runs"}, r"takes no calibratoin \(calibration\?\)"),
    ],
)
def test_misspelled_arguments_are_told_before_anything_is_loaded(name, settings, told):
    with pytest.raises(ConfigError, match=told):
        NamedSolver(name, settings)
