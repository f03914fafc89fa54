"""Credentials for registries, and registries' token services."""
