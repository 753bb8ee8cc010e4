"""Names that mean one model, and calibrations of recorded samples for the model that wrote them."""

import pytest

from adaptive_ttc.estimate.artefact import mismatch_of
from adaptive_ttc.estimate.model_names import fingerprint_of_traces, models_of_traces, same_model


class Model:
    def __init__(self, name, fingerprint="weights", parameters=0):
        self.name, self.fingerprint, self.parameters = name, fingerprint, parameters


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Qwen/Qwen2.5-0.5B-Instruct", "qwen2.5-0.5b-instruct", True),
        ("qwen2.5:0.5b-instruct", "models/Qwen2.5-0.5B-Instruct/", True),
        ("qwen2.5-1.5b-instruct T=0.5", "Qwen/Qwen2.5-1.5B-Instruct (replay)", True),
        ("Qwen2.5-0.5B-Instruct", "Qwen2.5-1.5B-Instruct", False),
        ("Qwen2.5-0.5B-Instruct", "Qwen2.5-0.5B", False),
        ("", "", False),
    ],
)
def test_names_are_compared_without_owner_case_and_settings(one, other, same):
    assert same_model(one, other) is same_model(other, one) is same


def test_names_stand_in_the_fingerprint_of_traces():
    assert models_of_traces(fingerprint_of_traces(["qwen2.5:0.5b", "b"], "d1")) == ("qwen2.5:0.5b", "b")
    assert models_of_traces(fingerprint_of_traces([], "d1")) == ()
    assert models_of_traces("weights") is None


def meta(policy, prm="", name="m"):
    return {"fingerprints": {"policy": policy, "prm": prm}, "models": {"policy": name, "prm": None}}


def test_a_calibration_of_traces_fits_the_model_of_that_name_and_no_other():
    made = meta(fingerprint_of_traces(["qwen2.5-0.5b-instruct"], "d1"))
    assert mismatch_of(made, Model("Qwen/Qwen2.5-0.5B-Instruct"), None) is None
    assert "another policy" in mismatch_of(made, Model("Qwen/Qwen2.5-7B-Instruct"), None)
    assert "another prm" in mismatch_of(made, Model("qwen2.5-0.5b-instruct"), Model("judge"))
    unnamed = fingerprint_of_traces([], "d1")
    assert mismatch_of(meta(unnamed), Model("m", unnamed), None) is None
    assert "another policy" in mismatch_of(meta(unnamed), Model("m"), None)


def test_a_calibration_of_a_model_fits_traces_of_that_name():
    made = meta("weights", name="Qwen2.5-0.5B-Instruct")
    traced = Model("qwen2.5-0.5b-instruct (replay)", fingerprint_of_traces(["qwen2.5-0.5b-instruct"], "d2"))
    assert mismatch_of(made, traced, None) is None
    assert "another policy" in mismatch_of(made, Model("Qwen2.5-0.5B-Instruct", "other weights"), None)


def test_scores_of_traces_fit_any_prm_as_nobody_says_whose_they_are():
    made = meta(fingerprint_of_traces(["m"], "d"), fingerprint_of_traces([], "d"))
    assert mismatch_of(made, Model("m"), Model("judge")) is None
    assert "another prm" in mismatch_of(made, Model("m"), None)
