"""Engines behind the ``Policy`` protocol; this package imports none of them by itself."""
