"""A small calibration of simulated problems, made once for all tests that read one."""

import pytest

from adaptive_ttc.calibration.collect.arms import parse_arms
from adaptive_ttc.calibration.collect.records import Weights
from adaptive_ttc.calibration.fit.pipeline import Settings, calibrate
from adaptive_ttc.calibration.fit.rows import GainSettings
from adaptive_ttc.calibration.fit.save import save_calibration
from tests.calibration.simulated import simulated_records

ARMS = parse_arms(["greedy", "majority:1,4,8", "weighted_best_of_n:4,8", "dvts:4x4,8x4", "beam_search:16x4"])
ORIGIN = {
    "models": {"policy": "simulated", "prm": "simulated PRM"},
    "fingerprints": {"policy": "p", "prm": "r", "prompt": "t"},
    "dataset": {"name": "simulated", "fingerprint": "d", "problems": 40},
    "counts": {"units": 1},
    "command": "python -m calibration.fit --dataset simulated",
}


@pytest.fixture(scope="session")
def calibration():
    settings = Settings(Weights(prm=2.0), folds=2, learning=GainSettings(states=400, iterations=10, leaf=10))
    return calibrate(simulated_records(40, 12, 5), ARMS, settings, "simulated")


@pytest.fixture(scope="session")
def saved(calibration, tmp_path_factory):
    """The folder of that calibration; a test that changes it takes a copy."""
    folder = tmp_path_factory.mktemp("calibrations") / "simulated"
    save_calibration(calibration, folder, **ORIGIN)
    return folder
