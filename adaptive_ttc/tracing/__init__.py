"""The trace of a run, and what is made of it: explanation, search tree, page."""
