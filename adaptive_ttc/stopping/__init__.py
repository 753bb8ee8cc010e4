"""Published rules that say when to stop sampling, and for which problem to sample next, without a calibration."""
