"""Reads and writes files of boosted trees and plain data; nothing in them is ever executed.

The format is skops: JSON and arrays in a zip, no pickle. What a file may hold is a closed list of types, checked before
anything is read. Reading takes numpy alone: the trees that scikit-learn grew become arrays here, so that solving
imports neither it nor skops. Writing, which calibration does, takes skops.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adaptive_ttc.errors import CalibrationError
from adaptive_ttc.files.bounded import CALIBRATION, read_whole

REMEDY = "make it anew with adaptive-ttc calibrate --policy POLICY --prm PRM --out DIR"

Array = NDArray[np.float64]

_HIST = "sklearn.ensemble._hist_gradient_boosting"
TRUSTED = frozenset(
    {
        *(f"builtins.{name}" for name in ("bool", "dict", "float", "int", "list", "str", "tuple")),
        *(f"numpy.{name}" for name in ("dtype", "ndarray", "float64", "int64", "uint64", "uint32", "int32", "bool")),
        "numpy.random._generator.Generator",
        "_loss.CyHalfBinomialLoss",  # by its name until scikit-learn 1.8
        "_loss.CyHalfSquaredError",
        "sklearn._loss._loss.CyHalfBinomialLoss",
        "sklearn._loss._loss.CyHalfSquaredError",
        "sklearn._loss.link.IdentityLink",
        "sklearn._loss.link.Interval",
        "sklearn._loss.link.LogitLink",
        "sklearn._loss.loss.HalfBinomialLoss",
        "sklearn._loss.loss.HalfSquaredError",
        f"{_HIST}.binning._BinMapper",
        f"{_HIST}.gradient_boosting.HistGradientBoostingClassifier",
        f"{_HIST}.gradient_boosting.HistGradientBoostingRegressor",
        f"{_HIST}.predictor.TreePredictor",
        "sklearn.preprocessing._label.LabelEncoder",
    }
)
"""Every type that a file may hold: those of the estimators that calibration fits, and no other."""

_NODES = frozenset(
    f"{name}Node"
    for name in ("Dict", "DType", "Json", "List", "Loss", "NdArray", "Object", "RandomGenerator", "Tuple", "Type")
)
_ROWS = 32  # predicted at once: their arrays stay in the processor's cache
MOST_LEAVES = 64  # leaves of a tree at most: one bit each


class BoostedTrees:
    """Boosted trees as arrays, from the nodes of each as scikit-learn has them, and a baseline.

    Every inner node keeps, where a row goes right, the leaves that are not under its left child. The leaf that a row
    ends in is the first that all inner nodes keep (QuickScorer, Lucchese et al. 2015): all nodes are evaluated at once,
    and no path is walked. ValueError: nodes that are no tree, read a missing column, or have over ``MOST_LEAVES``.
    """

    def __init__(self, trees: Sequence[NDArray[Any]], baseline: float, features: int) -> None:
        if not math.isfinite(baseline) or not isinstance(features, int) or features < 1:
            raise ValueError(f"a baseline of {baseline} over {features} features")
        for nodes in trees:
            _check_tree(nodes, features)
        self.features = features
        self._baseline = baseline
        leaves = max((int((nodes["is_leaf"] != 0).sum()) for nodes in trees), default=1)
        dtype = np.dtype(next(f"u{size}" for size in (1, 2, 4, 8) if 8 * size >= leaves))
        self._all = dtype.type(np.iinfo(dtype).max)
        shape = (max(1, leaves - 1), len(trees))
        self._column = np.zeros(shape, dtype=np.intp)
        self._threshold = np.zeros(shape)
        self._keep = np.full(shape, self._all)  # of nodes that a smaller tree lacks, too
        self._values = np.zeros((len(trees), leaves))
        for number, nodes in enumerate(trees):
            self._add(number, nodes)
        self._first = np.arange(len(trees)) * leaves

    def _add(self, number: int, nodes: NDArray[Any]) -> None:
        left, right, leaf = (nodes[name].tolist() for name in ("left", "right", "is_leaf"))
        under, first = [1] * len(nodes), [0] * len(nodes)  # leaves under a node, and the number of the first of them
        for place in reversed(range(len(nodes))):  # children come after their parent
            if not leaf[place]:
                under[place] = under[left[place]] + under[right[place]]
        for place in range(len(nodes)):
            if not leaf[place]:
                first[left[place]], first[right[place]] = first[place], first[place] + under[left[place]]
        inner, outer = np.flatnonzero(nodes["is_leaf"] == 0), np.flatnonzero(nodes["is_leaf"])
        # of a row's two copies, the second holds -inf where a value is missing, which always goes left
        missing_left = nodes["missing_go_to_left"][inner] != 0
        self._column[: len(inner), number] = nodes["feature_idx"][inner] + self.features * missing_left
        self._threshold[: len(inner), number] = nodes["num_threshold"][inner]
        for row, place in enumerate(inner.tolist()):
            lost = ((1 << under[left[place]]) - 1) << first[place]
            self._keep[row, number] = int(self._all) & ~lost
        self._values[number, [first[place] for place in outer.tolist()]] = nodes["value"][outer]

    def raw(self, rows: Array) -> Array:
        """Baseline plus leaves, shape [rows], from [rows, features], nan for unknown. ValueError: another width."""
        if rows.ndim != 2 or rows.shape[1] != self.features:
            raise ValueError(f"rows of shape {rows.shape} where {self.features} features are wanted")
        parts = [self._raw(rows[start : start + _ROWS]) for start in range(0, len(rows), _ROWS)]
        return np.concatenate(parts) if parts else np.zeros(0)

    def _raw(self, rows: Array) -> Array:
        both = np.hstack([rows, np.where(np.isnan(rows), -np.inf, rows)])
        left = np.take(both, self._column, axis=1) <= self._threshold  # shape [rows, nodes, trees]; not where nan
        alive = np.bitwise_and.reduce(np.where(left, self._all, self._keep), axis=1)
        lowest = alive & (~alive + self._all.dtype.type(1))
        leaf = np.frexp(lowest.astype(np.float64))[1] - 1
        found = np.column_stack([np.full(len(rows), self._baseline), self._values.ravel()[self._first + leaf]])
        return np.asarray(np.cumsum(found, axis=1)[:, -1])  # added one after the other, as scikit-learn does


class TreeClassifier(BoostedTrees):
    """A binary classifier."""

    def predict_proba(self, X: Array) -> Array:  # noqa: N803
        """Shape [rows, 2]."""
        with np.errstate(over="ignore"):  # what overflows is a probability of 0
            positive = 1 / (1 + np.exp(-self.raw(X)))
        return np.stack([1 - positive, positive], axis=1)


class TreeRegressor(BoostedTrees):
    """A regressor by least squares."""

    def predict(self, X: Array) -> Array:  # noqa: N803
        """Shape [rows]."""
        return self.raw(X)


def write_estimators(path: str | Path, content: Mapping[str, Any]) -> str:
    """Write estimators and plain data; returns the SHA-256. CalibrationError: a type that could not be read again."""
    from skops.io import dumps

    data: bytes = dumps(dict(content), compression=zipfile.ZIP_DEFLATED)
    _Reader(data, Path(path))
    Path(path).write_bytes(data)
    return hashlib.sha256(data).hexdigest()


def read_estimators(path: str | Path, sha256: str) -> dict[str, Any]:
    """Read what :func:`write_estimators` wrote: plain data as it was, estimators as :class:`BoostedTrees`.

    ``sha256`` is from the metadata beside the file. CalibrationError: the file is missing, fails that checksum, is no
    skops file, or holds a type or a tree that no calibration writes; nothing in it was executed.
    """
    path = Path(path)
    try:
        data = read_whole(path, CALIBRATION, CalibrationError, "fit anew")
    except OSError as error:
        raise CalibrationError(f"{path} cannot be read: {error}; {REMEDY}") from error
    if hashlib.sha256(data).hexdigest() != sha256:
        raise CalibrationError(
            f"{path} was changed or cut off after it was written: its checksum is not that of its metadata; "
            "copy the whole calibration again, or fit anew"
        )
    reader = _Reader(data, path)
    try:
        content = reader.value(reader.schema)
    except CalibrationError:
        raise
    except Exception as error:
        raise CalibrationError(f"{path} is damaged, or of another version of skops: {error!r}; fit anew") from error
    if not isinstance(content, dict):
        raise CalibrationError(f"{path} holds a {type(content).__name__} where a calibration is wanted")
    return content


def _types(node: Any) -> Iterator[tuple[str, str]]:
    """Type and loader of every node of a skops schema."""
    waiting = [node]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            if "__loader__" in one or "__class__" in one:
                yield f"{one.get('__module__')}.{one.get('__class__')}", str(one.get("__loader__"))
            waiting.extend(one.values())
        elif isinstance(one, list):
            waiting.extend(one)


class _Reader:
    """Turns nodes of a skops schema into plain values, arrays and estimators; CalibrationError for all else."""

    def __init__(self, data: bytes, path: Path) -> None:
        self._path = path
        try:
            self._archive = zipfile.ZipFile(io.BytesIO(data))
            if sum(member.file_size for member in self._archive.infolist()) > CALIBRATION:
                raise CalibrationError(f"{path} unpacks to more than {CALIBRATION} bytes: no calibration is so large")
            self.schema = json.loads(self._archive.read("schema.json"))
        except (zipfile.BadZipFile, KeyError, ValueError, NotImplementedError, RuntimeError) as error:
            raise CalibrationError(f"{path} is no skops file (a pickle is not accepted, ever); {REMEDY}") from error
        named = set(_types(self.schema))
        foreign = sorted({name for name, loader in named if name not in TRUSTED or loader not in _NODES})
        if foreign:
            raise CalibrationError(
                f"{path} holds types that no calibration writes: {', '.join(foreign)}; "
                "it was not opened, do not trust it"
            )

    def value(self, node: Any) -> Any:
        match node["__loader__"]:
            case "JsonNode":
                return json.loads(node["content"])
            case "DictNode":
                # keys of JSON are texts; those of a calibration are, too
                return {key: self.value(one) for key, one in node["content"].items()}
            case "ListNode":
                return [self.value(one) for one in node["content"]]
            case "TupleNode":
                return tuple(self.value(one) for one in node["content"])
            case "NdArrayNode":
                array = np.load(io.BytesIO(self._archive.read(node["file"])), allow_pickle=False)
                return array if node["__class__"] == "ndarray" else array[()]
            case "ObjectNode" if node["__class__"].startswith("HistGradientBoosting"):
                return self._estimator(node)
        raise ValueError(f"a {node['__class__']} outside of an estimator")

    def _estimator(self, node: Any) -> BoostedTrees:
        known = node["content"]["content"]
        kind, loss = (
            (TreeClassifier, "HalfBinomialLoss")
            if node["__class__"] == "HistGradientBoostingClassifier"
            else (TreeRegressor, "HalfSquaredError")
        )
        if known["_loss"]["__class__"] != loss:
            raise ValueError(f"a {node['__class__']} with {known['_loss']['__class__']}")
        (baseline,) = np.ravel(self.value(known["_baseline_prediction"])).tolist()
        rounds = [one["content"] for one in known["_predictors"]["content"]]
        try:
            trees = [self.value(tree["content"]["content"]["nodes"]) for (tree,) in rounds]
            return kind(trees, baseline, self.value(known["n_features_in_"]))
        except (ValueError, TypeError) as error:
            raise CalibrationError(
                f"{self._path} holds a broken decision tree ({error}): it is damaged or forged; fit anew"
            ) from error


_FIELDS = {
    "value": "f",
    "num_threshold": "f",
    "feature_idx": "iu",
    "missing_go_to_left": "u",
    "left": "u",
    "right": "u",
    "is_leaf": "u",
    "is_categorical": "u",
}


def _check_tree(nodes: NDArray[Any], features: int) -> None:
    """Check that it leads from its root to every leaf by one way, and reads only columns that exist."""
    kinds = {name: nodes.dtype[name].kind for name in nodes.dtype.names or ()}
    if any(kinds.get(name, "none") not in wanted for name, wanted in _FIELDS.items()):
        raise ValueError(f"nodes of type {nodes.dtype}")
    if nodes.ndim != 1 or not 1 <= len(nodes) < 2 * MOST_LEAVES:
        raise ValueError(f"nodes of shape {nodes.shape}, where at most {MOST_LEAVES} leaves are read")
    inner = nodes["is_leaf"] == 0
    place, asked = np.flatnonzero(inner), nodes["feature_idx"][inner]
    children = np.stack([nodes["left"][inner], nodes["right"][inner]]).astype(np.int64)
    sound = (
        (children > place).all()  # so that no walk goes round in a circle
        and np.array_equal(np.sort(children, axis=None), np.arange(1, len(nodes)))
        and ((asked >= 0) & (asked < features)).all()
        and (nodes["is_categorical"] == 0).all()
        and np.isfinite(nodes["value"]).all()
    )
    if not sound:
        raise ValueError("nodes that do not lead from a root to leaves, or ask for a column that is not there")
