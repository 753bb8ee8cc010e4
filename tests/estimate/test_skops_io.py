"""Files of estimators: what is written is read, and nothing that was changed, cut off or smuggled in is ever opened."""

import hashlib
import io
import json
import pickle
import zipfile

import numpy as np
import pytest
import skops.io
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.svm import SVC

from adaptive_ttc.errors import CalibrationError
from adaptive_ttc.estimate.skops_io import read_estimators, write_estimators

X = np.linspace(0, 1, 120).reshape(60, 2)
Y = np.arange(60) % 2


class Bomb:
    """Tells when it is unpickled."""

    went_off = False

    def __reduce__(self):
        return (setattr, (Bomb, "went_off", True))


@pytest.fixture(scope="module")
def classifier():
    return HistGradientBoostingClassifier(max_iter=2, min_samples_leaf=2, early_stopping=False).fit(X, Y)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "classifier.skops"


def digest(data):
    return hashlib.sha256(data).hexdigest()


def read_raw(path, data):
    path.write_bytes(data)
    return read_estimators(path, digest(data))


def test_estimators_answer_as_before(path, classifier):
    regressor = HistGradientBoostingRegressor(max_iter=2, min_samples_leaf=2, early_stopping=False).fit(X, Y)
    sha256 = write_estimators(path, {"c": classifier, "r": regressor, "edges": [0.5, None, "x"], "n": np.arange(3.0)})
    assert sha256 == digest(path.read_bytes())
    found = read_estimators(path, sha256)
    assert np.array_equal(found["c"].predict_proba(X), classifier.predict_proba(X))
    assert np.array_equal(found["r"].predict(X), regressor.predict(X))
    assert found["edges"] == [0.5, None, "x"]
    assert found["n"].tolist() == [0.0, 1.0, 2.0]


def test_a_file_that_is_not_the_one_of_the_metadata_is_refused(path, classifier):
    sha256 = write_estimators(path, {"c": classifier})
    whole = path.read_bytes()
    for changed in (whole[:-100], whole[:2000], b"", whole[:500] + b"x" + whole[501:]):
        path.write_bytes(changed)
        with pytest.raises(CalibrationError, match="changed or cut off"):
            read_estimators(path, sha256)
    path.unlink()
    with pytest.raises(CalibrationError, match=r"calibration\.fit"):
        read_estimators(path, sha256)


def test_a_pickle_is_never_opened(path):
    bomb = pickle.dumps(Bomb())
    with pytest.raises(CalibrationError, match="pickle is not accepted"):
        read_raw(path, bomb)
    inside = io.BytesIO()
    with zipfile.ZipFile(inside, "w") as archive:
        archive.writestr("schema.json", bomb)
    with pytest.raises(CalibrationError):
        read_raw(path, inside.getvalue())
    assert not Bomb.went_off
    pickle.loads(bomb)
    assert Bomb.went_off, "else the test would pass whatever happens"


@pytest.mark.parametrize(
    "foreign",
    [SVC(), print, np.sin, {"deep": [(SVC(),)]}, type, len, np.random.RandomState(0)],
    ids=["estimator", "function", "ufunc", "nested", "type", "builtin", "random state"],
)
def test_foreign_types_are_refused_though_skops_may_trust_them(path, foreign):
    with pytest.raises(CalibrationError, match="types that no calibration writes"):
        read_raw(path, skops.io.dumps({"stages": foreign}))
    path.unlink()
    with pytest.raises(CalibrationError):
        write_estimators(path, {"stages": foreign})
    assert not path.exists()


def rewritten(data, change):
    """The archive with its schema changed."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "schema.json":
                schema = json.loads(content)
                change(schema)
                content = json.dumps(schema).encode()
            new.writestr(name, content)
    return out.getvalue()


@pytest.mark.parametrize(
    "node",
    [
        {"__class__": "system", "__module__": "os", "__loader__": "FunctionNode", "content": "system"},
        {"__class__": "Popen", "__module__": "subprocess", "__loader__": "ObjectNode"},
        {"__class__": "str", "__module__": "builtins", "__loader__": "MethodNode", "content": {}},
        {"__class__": "dict", "__module__": "builtins", "__loader__": "ReduceNode"},
        {"__loader__": "JsonNode", "content": "1"},
    ],
)
def test_a_schema_that_names_what_runs_is_refused(path, node):
    write_estimators(path, {"a": {"b": [1]}})
    forged = rewritten(path.read_bytes(), lambda schema: schema["content"].update(a=node))
    with pytest.raises(CalibrationError, match="no calibration writes"):
        read_raw(path, forged)


def test_a_schema_that_lacks_its_arrays_is_damaged(path):
    write_estimators(path, {"n": np.arange(3.0)})
    forged = rewritten(path.read_bytes(), lambda schema: schema["content"]["n"].update(file="other.npy"))
    with pytest.raises(CalibrationError, match="damaged"):
        read_raw(path, forged)


def broken(field, value):
    model = HistGradientBoostingClassifier(max_iter=1, min_samples_leaf=2, early_stopping=False).fit(X, Y)
    tree = model._predictors[0][0]
    tree.nodes = tree.nodes.copy()
    tree.nodes[field][0 if field != "value" else -1] = value
    return model


@pytest.mark.parametrize(
    ("field", "value"),
    [("left", 10_000), ("left", 0), ("right", 2**31), ("feature_idx", 2), ("feature_idx", -1), ("is_categorical", 1),
     ("value", np.nan)],
)  # fmt: skip
def test_trees_that_lead_out_of_their_arrays_are_refused(path, field, value):
    sha256 = write_estimators(path, {"deep": [broken(field, value)]})
    with pytest.raises(CalibrationError, match="broken decision tree"):
        read_estimators(path, sha256)
