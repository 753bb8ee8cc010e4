"""Graded solutions as data for training: right ones, preference pairs, step labels."""
