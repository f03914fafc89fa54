"""A request's build context: its tree, its digests, and what BuildKit holds of it."""
