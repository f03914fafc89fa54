"""Builds: running an accepted request on BuildKit."""
