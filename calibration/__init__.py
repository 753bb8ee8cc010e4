"""Fits the compute-optimal table and the difficulty classifier; nothing here yet."""
