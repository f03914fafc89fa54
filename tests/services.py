"""A Service that runs nothing: for tests of what it would say of itself."""

from pathlib import Path
from typing import Any

from aiobuildkit import Client
from function_builder.builds.builder import Builder
from function_builder.builds.credentials import RegistryCredentials
from function_builder.builds.monitor import BuildKitMonitor
from function_builder.builds.record import ContentRecords
from function_builder.builds.slots import Slots
from function_builder.server.service import Service
from function_builder.settings import Settings
from function_builder.telemetry import Metrics


def idle_service(root: Path, **settings: Any) -> Service:
    """A service whose BuildKit is not there; anybody may build."""
    client = Client(f"unix://{root}/absent.sock")
    records = ContentRecords()
    return Service(
        settings=Settings(disable_hmac=True, spool_dir=root, **settings),
        builder=Builder(
            client,
            credentials=RegistryCredentials(root),
            records=records,
            insecure=False,
            build_timeout=60,
            log_prefixes=True,
        ),
        monitor=BuildKitMonitor(client, records),
        metrics=Metrics(),
        slots=Slots(0),
        uploads=Slots(0),
    )
