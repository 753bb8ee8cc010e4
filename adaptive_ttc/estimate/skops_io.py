"""Reads and writes files of fitted scikit-learn estimators, nothing in which is ever executed; it knows no problem.

The format is skops: JSON and arrays in a zip, no pickle. What a file may hold is a closed list of types, checked before
anything is built; as scikit-learn follows the node numbers of its trees unchecked, they are checked here, too.
"""

from __future__ import annotations

import hashlib
import io
import json
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from adaptive_ttc.errors import CalibrationError

_HIST = "sklearn.ensemble._hist_gradient_boosting"
TRUSTED = frozenset(
    {
        *(f"builtins.{name}" for name in ("bool", "dict", "float", "int", "list", "str", "tuple")),
        *(f"numpy.{name}" for name in ("dtype", "ndarray", "float64", "int64", "uint64", "uint32", "int32", "bool")),
        "numpy.random._generator.Generator",
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
_MAX_BYTES = 512 * 2**20  # unpacked: far above any calibration, far below what fills a machine


def write_estimators(path: str | Path, content: Mapping[str, Any]) -> str:
    """Write estimators and plain data.

    Returns:
        SHA-256 of the file, in hexadecimal: what :func:`read_estimators` wants to be told.

    Raises:
        CalibrationError: the content holds a type that could not be read again; nothing is written.
    """
    from skops.io import dumps

    data: bytes = dumps(dict(content), compression=zipfile.ZIP_DEFLATED)
    _check_types(data, Path(path))
    Path(path).write_bytes(data)
    return hashlib.sha256(data).hexdigest()


def read_estimators(path: str | Path, sha256: str) -> dict[str, Any]:
    """Read what :func:`write_estimators` wrote.

    Args:
        path: of the file.
        sha256: of the file, from the metadata that came with it.

    Raises:
        CalibrationError: the file is missing, is not the one that the metadata speaks of, is no skops file, or holds
            a type or a tree that no calibration writes. Nothing in it was executed then.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CalibrationError(
            f"{path} cannot be read: {error}; make it with python -m adaptive_ttc.calibration.fit"
        ) from error
    if hashlib.sha256(data).hexdigest() != sha256:
        raise CalibrationError(
            f"{path} was changed or cut off after it was written: its checksum is not that of its metadata; "
            "copy the whole calibration again, or fit anew"
        )
    _check_types(data, path)
    content = _loaded(data, path)
    _check_trees(content, path)
    return content


def _loaded(data: bytes, path: Path) -> dict[str, Any]:
    try:
        from sklearn.exceptions import InconsistentVersionWarning
        from skops.io import loads
    except ImportError as error:
        raise CalibrationError(f"{path} needs scikit-learn and skops: install both ({error})") from error
    try:
        with warnings.catch_warnings():
            # whoever reads a file of another version checks that it still answers as it did
            warnings.simplefilter("ignore", InconsistentVersionWarning)
            content = loads(data, trusted=sorted(TRUSTED))
    except Exception as error:
        raise CalibrationError(f"{path} is damaged, or of another version of skops: {error}; fit anew") from error
    if not isinstance(content, dict):
        raise CalibrationError(f"{path} holds a {type(content).__name__} where a calibration is wanted")
    return content


def _check_types(data: bytes, path: Path) -> None:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if sum(member.file_size for member in archive.infolist()) > _MAX_BYTES:
                raise CalibrationError(f"{path} unpacks to more than {_MAX_BYTES} bytes: no calibration is so large")
            schema = json.loads(archive.read("schema.json"))
    except (zipfile.BadZipFile, KeyError, ValueError, NotImplementedError, RuntimeError) as error:
        raise CalibrationError(
            f"{path} is no skops file (a pickle is not accepted, ever); make it with "
            "python -m adaptive_ttc.calibration.fit"
        ) from error
    foreign = sorted({name for name, loader in _types(schema) if name not in TRUSTED or loader not in _NODES})
    if foreign:
        raise CalibrationError(
            f"{path} holds types that no calibration writes: {', '.join(foreign)}; it was not opened, do not trust it"
        )


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


def _check_trees(content: Any, path: Path) -> None:
    """Every tree leads from its root to a leaf and asks for no feature that is not there."""
    seen: set[int] = set()
    waiting: list[tuple[Any, int]] = [(content, 0)]
    while waiting:
        one, features = waiting.pop()
        if id(one) in seen or isinstance(one, (str, int, float, bytes, type(None))):
            continue
        seen.add(id(one))
        if type(one).__name__ == "TreePredictor":
            if not _sound(one, features):
                raise CalibrationError(f"{path} holds a broken decision tree: it is damaged or forged; fit anew")
        elif isinstance(one, dict):
            waiting.extend((value, features) for value in one.values())
        elif isinstance(one, (list, tuple)):
            waiting.extend((value, features) for value in one)
        elif hasattr(one, "__dict__"):
            width = vars(one).get("n_features_in_", features)
            waiting.extend((value, width) for value in vars(one).values())


def _sound(tree: Any, features: Any) -> bool:
    import numpy as np
    from sklearn.ensemble._hist_gradient_boosting.common import PREDICTOR_RECORD_DTYPE

    nodes = getattr(tree, "nodes", None)
    if not isinstance(nodes, np.ndarray) or nodes.dtype != PREDICTOR_RECORD_DTYPE or nodes.ndim != 1 or not len(nodes):
        return False
    inner = nodes["is_leaf"] == 0
    place, asked = np.flatnonzero(inner), nodes["feature_idx"][inner]
    children = np.stack([nodes["left"][inner], nodes["right"][inner]]).astype(np.int64)
    return bool(
        isinstance(features, int)
        and (children > place).all()  # so that no walk goes round in a circle
        and (children < len(nodes)).all()
        and ((asked >= 0) & (asked < features)).all()
        and (nodes["is_categorical"] == 0).all()
        and np.isfinite(nodes["value"]).all()
    )
