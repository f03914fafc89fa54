"""A request's build context: its tree, its digests, and the files that BuildKit already has."""
