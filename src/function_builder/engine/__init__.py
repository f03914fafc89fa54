"""The programs that a builder may run itself, as child processes.

This package starts, supervises and stops them; `aiobuildkit` uses BuildKit's API. Import
`seed_base_image` from `engine.base_image`, because it loads an HTTP client, which would slow down a
server's start.
"""

from __future__ import annotations

from function_builder.engine.address import ensure_free, listeners
from function_builder.engine.buildkit import BuildKitDaemon
from function_builder.engine.buildkit_config import BuildKitConfig, CacheLimits, StepLogLimits
from function_builder.engine.cgroups import StepLimits
from function_builder.engine.errors import (
    AddressTaken,
    EngineError,
    RootlessRefused,
    StartFailed,
    ToolMissing,
)
from function_builder.engine.namespaces import BuildKitNetwork, Network
from function_builder.engine.nats import NatsServer
from function_builder.engine.registry import Registry
from function_builder.engine.toml import read_config
from function_builder.engine.tools import find_tool, tools_cache

__all__ = [
    "AddressTaken",
    "BuildKitConfig",
    "BuildKitDaemon",
    "BuildKitNetwork",
    "CacheLimits",
    "EngineError",
    "NatsServer",
    "Network",
    "Registry",
    "RootlessRefused",
    "StartFailed",
    "StepLimits",
    "StepLogLimits",
    "ToolMissing",
    "ensure_free",
    "find_tool",
    "listeners",
    "read_config",
    "tools_cache",
]
