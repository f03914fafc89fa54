"""An open Function Builder API: a signed tar in, a container image out."""

from __future__ import annotations

__version__ = "0.1.0"
