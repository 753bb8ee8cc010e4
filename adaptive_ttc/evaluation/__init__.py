"""Data sets, graded runs over them, unbiased estimators, result files."""
