"""Fixtures of the tests of scoring and report."""

from tiny_set import scored  # noqa: F401
