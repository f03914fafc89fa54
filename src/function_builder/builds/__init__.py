"""Builds: what becomes of an accepted request."""
