"""The record of a run, and what is read off it: explanation, search tree, page."""
