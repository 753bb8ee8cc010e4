"""Features as scikit-learn's boosted trees bin them, in a fraction of the time; it knows no label and no weight.

With weights the library looks for every threshold of every column by itself, which takes many times as long as growing
the trees. Of a column with few distinct values it takes the midpoints between them at once.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

MOST = 63
"""Values that are left in a column; what fits the trees has ``max_bins`` of at least this."""


def coarse(features: Array) -> Array:
    """Every value replaced by the nearest of at most :data:`MOST` quantiles of its column; nan stays.

    Thresholds between two of these lie half-way, as do those by which values are replaced here: trees grown on this
    divide the features themselves alike. A column of which no value is known becomes 0, as it cannot be binned.

    Args:
        features: shape [rows, columns].
    """
    found = np.array(features, dtype=np.float64, order="F")
    for column in found.T:
        known = ~np.isnan(column)
        if not known.any():
            column[:] = 0.0
            continue
        kept = np.unique(column[known])
        if len(kept) > MOST:
            kept = np.unique(np.quantile(column[known], np.linspace(0, 1, MOST), method="nearest"))
            column[known] = kept[np.searchsorted((kept[:-1] + kept[1:]) / 2, column[known])]
    return found


def fillable(features: Array) -> Array:
    """With 0 in columns of which no value is known, as rows that were chosen among coarse ones may have."""
    return np.where(np.isnan(features).all(axis=0), 0.0, features)
