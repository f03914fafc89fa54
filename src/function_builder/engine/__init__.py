"""The programs that a builder may run itself: BuildKit and a registry, as child processes.

Nothing here speaks BuildKit's API: the daemon is started, watched and ended; `aiobuildkit` talks
to it by its address. `seed_base_image` is imported from `engine.base_image` by those who need it,
for it brings an HTTP client, which a server's start should not wait for.
"""

from function_builder.engine.address import ensure_free, listeners
from function_builder.engine.buildkit import (
    BuildKitConfig,
    BuildKitDaemon,
    CacheLimits,
    StepLogLimits,
)
from function_builder.engine.cgroups import StepLimits
from function_builder.engine.errors import (
    AddressTaken,
    EngineError,
    RootlessRefused,
    StartFailed,
    ToolMissing,
)
from function_builder.engine.namespaces import Network
from function_builder.engine.nats import NatsServer
from function_builder.engine.registry import Registry
from function_builder.engine.toml import read_config
from function_builder.engine.tools import find_tool, tools_cache

__all__ = [
    "AddressTaken",
    "BuildKitConfig",
    "BuildKitDaemon",
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
