"""Checks a pair of models before work is given to it, and says what to change."""
