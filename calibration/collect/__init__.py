"""Draws the units of work that a calibration is fitted on, into a store."""
