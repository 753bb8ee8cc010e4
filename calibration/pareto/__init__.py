"""Accuracy against compute: a calibrated pair beside every strategy, published rules and oracles."""
