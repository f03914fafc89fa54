"""An open Function Builder API: a signed tar in, a container image out."""

__version__ = "0.1.0"
