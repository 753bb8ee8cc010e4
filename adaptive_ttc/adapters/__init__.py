"""Frameworks that this project is used from; each module needs the package that it is named after (docs/adapters.md).

``inspect_ai`` (extra ``inspect``): a model provider and a solver; ``lm_eval`` (extra ``lm-eval``): a model and a
filter; ``trl`` (extra ``trl``): reward functions. The modules can be imported without these packages, and say what is
missing when they are used.
"""
