"""Which calibration a pair is used with: files are read when it is selected, never later."""

import shutil
from pathlib import Path

import pytest

import adaptive_ttc
from adaptive_ttc.errors import CalibrationError, CalibrationWarning
from adaptive_ttc.estimate.features import Evidence
from adaptive_ttc.estimate.pair_calibration import SelectedCalibration
from adaptive_ttc.policies.fake import FakePolicy

MINI = Path(adaptive_ttc.__file__).parent / "mini" / "models" / "calibration"


@pytest.fixture
def folder(tmp_path):
    return shutil.copytree(MINI, tmp_path / "calibration")


def test_files_are_read_when_a_calibration_is_selected_and_not_once_more(folder):
    selected = SelectedCalibration(folder, FakePolicy.generative(), None, allow_mismatch=True)
    shutil.rmtree(folder)
    with pytest.warns(CalibrationWarning, match=r"another policy.*adaptive-ttc calibrate"):
        calibrated = selected.calibrated(256)
    assert selected.calibrated(256) is calibrated
    assert calibrated.gain.forecasts([Evidence("1 + 1", 9)])[0].options


def test_damaged_files_are_told_before_anything_is_solved(folder):
    (folder / "classifier.skops").write_bytes(b"")
    with pytest.raises(CalibrationError, match="was changed since it was made"):
        SelectedCalibration(folder, FakePolicy.generative(), None, allow_mismatch=True)
