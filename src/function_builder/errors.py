"""The error of a builder that cannot start."""

from __future__ import annotations


class StartError(Exception):
    """The builder cannot start; the text says why, and what to do."""
