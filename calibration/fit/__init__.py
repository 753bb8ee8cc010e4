"""Fits a calibration to what was collected."""
