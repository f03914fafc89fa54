"""What keeps a builder from starting."""


class StartError(Exception):
    """The builder cannot start; the text says why, and what to do."""
