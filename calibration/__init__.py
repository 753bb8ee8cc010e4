"""Calibration: draw units of work on problems with known answers, fit what an allocator needs, judge and report it."""
