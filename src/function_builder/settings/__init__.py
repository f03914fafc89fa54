"""All settings of the builder. No other module reads the environment for them.

They come from environment variables in lower case, as in pro-builder; a flag overrides its
variable. Durations are seconds or Go's notation (`90`, `90s`, `5m`, `1h30m`), sizes are bytes or
have a unit (`1GiB`, `512MB`).

Each subject has a module with its part of `Settings`. `values` reads a variable's text.
"""

from __future__ import annotations

from function_builder.settings.buildkit import OWN_BUILDKIT
from function_builder.settings.environment import Settings, SettingsError, near_misses
from function_builder.settings.values import EMBEDDED, Networks

__all__ = ["EMBEDDED", "OWN_BUILDKIT", "Networks", "Settings", "SettingsError", "near_misses"]
