"""Files of trees: read without scikit-learn; nothing that was changed, cut off or smuggled in is ever opened."""

import hashlib
import io
import json
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import skops.io
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.svm import SVC

import adaptive_ttc
from adaptive_ttc.errors import CalibrationError
from adaptive_ttc.estimate.artefact import Calibrated
from adaptive_ttc.estimate.difficulty import DifficultyModel, StageModel
from adaptive_ttc.estimate.features import Attempt, Evidence, FirstStep, Unit
from adaptive_ttc.estimate.gain import Estimators, LearnedGainModel
from adaptive_ttc.estimate.skops_io import TRUSTED, read_estimators, write_estimators

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
    with pytest.raises(CalibrationError, match=r"adaptive-ttc calibrate"):
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


def grown(estimator, rows, features, seed, **options):
    """An estimator of many trees over rows that lack values, in a column even all of one kind."""
    rng = np.random.default_rng(seed)
    known = rng.normal(size=(rows, features))
    known[rng.random(known.shape) < 0.2] = np.nan
    known[:, 0] = np.where(rng.random(rows) < 0.5, np.nan, 1.0)  # only whether it is known can be asked
    target = np.nansum(known[:, :3], axis=1) + np.isnan(known[:, 1])
    if estimator is HistGradientBoostingClassifier:
        target = target > 0
    return estimator(early_stopping=False, max_iter=40, min_samples_leaf=3, **options).fit(known, target)


@pytest.mark.parametrize("leaves", [2, 8, 31, 64])
@pytest.mark.parametrize("estimator", [HistGradientBoostingClassifier, HistGradientBoostingRegressor])
def test_predictions_are_those_of_scikit_learn_whatever_is_missing(path, estimator, leaves):
    model = grown(estimator, 600, 7, leaves, max_leaf_nodes=leaves)
    assert max(tree.get_n_leaf_nodes() for (tree,) in model._predictors) == leaves
    asks_what_is_missing = [np.isinf(tree.nodes["num_threshold"]).any() for (tree,) in model._predictors]
    assert any(asks_what_is_missing)
    found = read_estimators(path, write_estimators(path, {"m": model}))["m"]
    rng = np.random.default_rng(1)
    for rows in (1, 2, 31, 32, 33, 500):
        asked = rng.normal(size=(rows, 7)) * 2
        asked[rng.random(asked.shape) < 0.3] = np.nan
        asked[rng.random(asked.shape) < 0.05] = np.inf
        asked[rng.random(asked.shape) < 0.05] = -np.inf
        if estimator is HistGradientBoostingClassifier:
            np.testing.assert_allclose(found.predict_proba(asked), model.predict_proba(asked), rtol=0, atol=1e-9)
        else:
            np.testing.assert_allclose(found.predict(asked), model.predict(asked), rtol=0, atol=1e-9)
    with pytest.raises(ValueError, match="7 features"):
        found.raw(np.zeros((2, 8)))
    assert found.raw(np.zeros((0, 7))).shape == (0,)


def test_trees_of_more_leaves_than_are_read_are_refused(path):
    model = grown(HistGradientBoostingRegressor, 1200, 7, 0, max_leaf_nodes=80)
    sha256 = write_estimators(path, {"m": model})
    with pytest.raises(CalibrationError, match="at most 64 leaves"):
        read_estimators(path, sha256)


MINI = Path(adaptive_ttc.__file__).parent / "mini" / "models" / "calibration"
STATES = [
    Evidence("1 + 1", 9),
    Evidence("12 + 34 - 5", 14, (Unit("greedy", (Attempt("41", (0.9, 0.8), 30, -3.0),), (FirstStep(0.9, 9, -1.0),)),)),
    Evidence("7 * 8", 11, (Unit("greedy", (Attempt("56", (), 30, -3.0),)),)),
    Evidence(
        "2 * (3 + 4)",
        18,
        tuple(
            Unit("dvts-4", (Attempt(answer, (score, score / 2), 60, -9.0),), (FirstStep(score, 9, -1.0),))
            for answer, score in (("14", 0.9), ("14", 0.7), ("10", 0.4), (None, 0.2))
        ),
    ),
]


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.InconsistentVersionWarning")  # with older releases
def test_the_shipped_calibration_tells_what_scikit_learn_tells():
    ours = Calibrated.load(MINI)
    grown, told = (
        skops.io.loads((MINI / name).read_bytes(), trusted=sorted(TRUSTED))
        for name in ("classifier.skops", "outlook.skops")
    )
    stages = {name: StageModel.of_data(data) for name, data in grown["stages"].items()}
    model = DifficultyModel(grown["edges"], ours.difficulty.reading, stages)
    np.testing.assert_allclose(ours.difficulty.posteriors(STATES), model.posteriors(STATES), rtol=0, atol=1e-9)
    learned = ours.gain
    estimators = Estimators(**told["estimators"], curve=learned.estimators.curve)
    known = (learned.actions, learned.reading, learned.most, learned.bins)
    theirs = LearnedGainModel(estimators, *known).forecasts(STATES)
    for one, other in zip(learned.forecasts(STATES), theirs, strict=True):
        assert one.right == pytest.approx(other.right, abs=1e-9)
        assert [option.action for option in one.options] == [option.action for option in other.options]
        for figure in ("gain", "generated", "prm", "cost"):
            expected = [getattr(option, figure) for option in other.options]
            assert [getattr(option, figure) for option in one.options] == pytest.approx(expected, abs=1e-9)


def test_who_solves_imports_neither_scikit_learn_nor_skops():
    script = f"""
import sys
from adaptive_ttc.estimate.artefact import Calibrated
from adaptive_ttc.estimate.features import Evidence
calibrated = Calibrated.load({str(MINI)!r})
states = [Evidence("1 + 1", 9)]
assert calibrated.gain.forecasts(states)[0].options and calibrated.difficulty.posteriors(states)
print(*sorted({{"sklearn", "skops", "scipy", "torch"}} & set(sys.modules)))
"""
    found = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert found.stdout.strip() == ""


@pytest.mark.parametrize("package", ["estimate", "allocation"])
def test_importing_what_estimates_and_allocates_loads_no_heavy_library(package):
    folder = Path(adaptive_ttc.__file__).parent / package
    names = ", ".join(f"adaptive_ttc.{package}.{file.stem}" for file in sorted(folder.glob("[!_]*.py")))
    script = f"import sys, {names}; print(*({{'sklearn', 'skops', 'scipy', 'torch', 'matplotlib'}} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert found.stdout.strip() == ""


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


def test_a_tree_is_checked_for_every_estimator_that_has_it(path):
    wide = HistGradientBoostingClassifier(max_iter=1, min_samples_leaf=2, early_stopping=False).fit(X, Y)
    wide._predictors[0][0].nodes["feature_idx"] = 1
    narrow = HistGradientBoostingClassifier(max_iter=1, min_samples_leaf=2, early_stopping=False).fit(X[:, :1], Y)
    narrow._predictors = wide._predictors
    sha256 = write_estimators(path, {"wide": wide, "narrow": narrow})
    with pytest.raises(CalibrationError, match="broken decision tree"):
        read_estimators(path, sha256)
    read_estimators(path, write_estimators(path, {"wide": wide, "again": wide}))


def test_a_node_with_two_parents_is_refused(path):
    sha256 = write_estimators(path, {"deep": [broken("left", 2)]})
    with pytest.raises(CalibrationError, match="broken decision tree"):
        read_estimators(path, sha256)


def test_an_estimator_of_another_loss_or_several_classes_is_refused(path, classifier):
    regressor = HistGradientBoostingRegressor(max_iter=2, min_samples_leaf=2, early_stopping=False).fit(X, Y)
    regressor._loss = classifier._loss
    several = HistGradientBoostingClassifier(max_iter=2, min_samples_leaf=2, early_stopping=False).fit(X, Y)
    several._predictors = [[tree, tree] for (tree,) in several._predictors]
    for wrong in (regressor, several):
        sha256 = write_estimators(path, {"m": wrong})
        with pytest.raises(CalibrationError, match="damaged"):
            read_estimators(path, sha256)
