"""What was saved is read again, and what was cut off, edited, swapped or smuggled in is refused before it is opened."""

import hashlib
import json
import pickle
import shutil

import pytest
import skops.io
from sklearn.svm import SVC

from adaptive_ttc.calibration.fit.save import save_calibration
from adaptive_ttc.errors import CalibrationError
from adaptive_ttc.estimate.artefact import Calibrated, meta_digest, mismatch_of, read_meta
from adaptive_ttc.estimate.features import Evidence
from adaptive_ttc.policies.fake import FakePolicy
from tests.calibration.conftest import ORIGIN

FILES = ("table.json", "classifier.skops", "meta.json")


class Bomb:
    """Tells when it is unpickled."""

    went_off = False

    def __reduce__(self):
        return (setattr, (Bomb, "went_off", True))


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "copy")


def refused(folder, match):
    with pytest.raises(CalibrationError, match=match) as caught:
        Calibrated.load(folder)
    assert any(remedy in str(caught.value) for remedy in ("adaptive-ttc calibrate", "fit anew", "trust"))
    assert not Bomb.went_off


def edit_meta(folder, digest=True, **changes):
    """Change the metadata, as somebody would who knows of their digest, or does not."""
    meta = {**json.loads((folder / "meta.json").read_text()), **changes}
    if digest:
        meta["digest"] = meta_digest(meta)
    (folder / "meta.json").write_text(json.dumps(meta))


def put(folder, name, data):
    """Put other bytes in a file's place, and their checksum into the metadata."""
    (folder / name).write_bytes(data)
    files = json.loads((folder / "meta.json").read_text())["files"]
    edit_meta(folder, files={**files, name: hashlib.sha256(data).hexdigest()})


def test_what_was_saved_answers_as_what_was_learned(calibration, saved):
    calibrated = Calibrated.load(saved)
    assert calibrated.table == calibration.table
    assert calibrated.opening == calibration.opening
    states = [Evidence("1 + 1", 9), Evidence("12 + 34 - 5 more", 30)]
    assert calibrated.difficulty.posteriors(states) == calibration.difficulty.model.posteriors(states)
    if calibration.gain_model is not None:
        assert calibrated.gain.forecasts(states) == calibration.gain_model.forecasts(states)
    assert calibrated.meta["problems"] == [f"simulated-5-{number}" for number in range(40)]
    assert len(set(calibrated.meta["digests"])) == 40


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    refused(folder, name)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("left", [0, 40, -3])
def test_a_file_that_was_cut_off_is_refused(folder, name, left):
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[:left])
    refused(folder, name)


def test_a_number_edited_in_the_table_is_refused(folder):
    text = (folder / "table.json").read_text()
    data = json.loads(text)
    data["cells"]["shrunk"][4][0] = 0.99
    (folder / "table.json").write_text(json.dumps(data))
    refused(folder, "was changed")


def test_edited_metadata_are_refused(folder):
    edit_meta(folder, digest=False, fingerprints={"policy": "another", "prm": "r", "prompt": "t"})
    refused(folder, "edited")


@pytest.mark.parametrize("files", [{}, None, [], {"table.json": ""}])
def test_metadata_without_checksums_are_refused(folder, files):
    edit_meta(folder, files=files)
    refused(folder, "checksum" if files != {"table.json": ""} else "was changed")


@pytest.mark.parametrize("text", ["[]", "{"])
def test_metadata_that_are_none_are_refused(folder, text):
    (folder / "meta.json").write_text(text)
    refused(folder, "schema None" if text == "[]" else "cut off or damaged")


def test_a_table_that_means_nothing_is_refused_even_with_the_right_checksum(folder):
    data = json.loads((folder / "table.json").read_text())
    for change in ({"schema": 99}, {"share": [1.0]}, {"arms": []}, {"ballot": {"name": "loudest"}}):
        put(folder, "table.json", json.dumps({**data, **change}).encode())
        refused(folder, "table")


def test_another_schema_is_refused(folder):
    edit_meta(folder, schema=2)
    refused(folder, "schema 2")


def test_a_pickle_in_place_of_the_classifiers_is_never_opened(folder):
    put(folder, "classifier.skops", pickle.dumps(Bomb()))
    refused(folder, "pickle")


def test_a_foreign_type_among_the_classifiers_is_never_built(folder):
    put(folder, "classifier.skops", skops.io.dumps({"schema": 1, "stages": SVC()}))
    refused(folder, "SVC")


def test_another_pair_does_not_match(folder):
    policy = FakePolicy.generative()
    assert "another policy and another prm (simulated and simulated PRM)" in mismatch_of(
        read_meta(folder), policy, None
    )
    edit_meta(folder, fingerprints={"policy": policy.fingerprint, "prm": "", "prompt": "t"})
    assert mismatch_of(Calibrated.load(folder).meta, policy, None) is None


def test_saving_over_an_older_calibration_leaves_nothing_of_it(calibration, folder):
    (folder / "outlook.skops").write_bytes(b"of the older one")
    (folder / "notes.txt").write_text("mine")
    save_calibration(calibration, folder, **ORIGIN)
    assert (folder / "outlook.skops").exists() == (calibration.gain_model is not None)
    assert (folder / "notes.txt").read_text() == "mine"
    assert not folder.with_name("copy.partial").exists()


def test_what_cannot_be_written_says_so(calibration, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CalibrationError, match="--out"):
        save_calibration(calibration, tmp_path / "file" / "inside", **ORIGIN)
