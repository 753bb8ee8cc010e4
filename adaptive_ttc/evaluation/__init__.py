"""Data sets, graded runs over them, metrics, result files."""
