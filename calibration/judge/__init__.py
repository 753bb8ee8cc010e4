"""Measures a calibration on problems that it was not fitted on."""
