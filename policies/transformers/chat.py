"""The former place of :mod:`policies.chat`, for code that imports it from here."""

from policies.chat import ChatFormat

__all__ = ["ChatFormat"]
