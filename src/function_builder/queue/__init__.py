"""Builds that outlive their connection: kept and run from a queue."""
