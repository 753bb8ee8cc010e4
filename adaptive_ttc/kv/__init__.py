"""Stored keys and values of token prefixes, for policies and reward models alike; it knows no model.

Importing it imports neither numpy nor torch.
"""
