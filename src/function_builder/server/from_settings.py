"""Make the parts of a builder from its settings."""

from __future__ import annotations

from function_builder.buildkits.from_settings import buildkits
from function_builder.builds.builder import Builder
from function_builder.builds.options import RegistryCache
from function_builder.builds.source_policy import SourcePolicy
from function_builder.contract.tenancy import NO_LIMITS, Limits
from function_builder.errors import StartError
from function_builder.policy.sources import builder_policy
from function_builder.registries.credentials import RegistryCredentials
from function_builder.server.claims import CurrentTenants
from function_builder.server.decisions import Audit
from function_builder.server.prometheus import Metrics
from function_builder.server.quotas import Quotas
from function_builder.server.replays import Replays
from function_builder.server.service import Service, Usage
from function_builder.server.slots import Slots
from function_builder.server.spool import SpoolSpace
from function_builder.server.unread import UnreadLogs
from function_builder.server.uploads import Uploads
from function_builder.settings import Settings


def service_of(settings: Settings) -> Service:
    """Make the service of one builder."""
    own = RegistryCredentials(settings.docker_config.expanduser(), settings.docker_auth_config)
    policy = _source_policy(settings)
    tenants = _tenants(settings, own, policy) if settings.tenants_file else None
    pools = buildkits(settings, None if tenants is None else tenants.buildkit_urls)
    metrics = Metrics()
    limits = _unlimited if tenants is None else tenants.limits
    slots = Slots(settings.max_inflight, settings.max_queue, limits=limits)
    return Service(
        settings=settings,
        builder=Builder(
            pools,
            credentials=(lambda _: own) if tenants is None else tenants.credentials,
            cache=RegistryCache(settings.cache_registry, insecure=settings.insecure),
            insecure=settings.insecure,
            confirm_pushes=settings.confirm_pushes,
            log_prefixes=settings.log_prefixes,
            source_policy=(lambda _: policy) if tenants is None else tenants.source_policy,
        ),
        pools=pools,
        metrics=metrics,
        slots=slots,
        uploads=Uploads(settings.most_uploads),
        unread=UnreadLogs(),
        space=SpoolSpace(settings.spool_dir, settings.max_spool_bytes),
        tenants=tenants,
        audit=_audit(settings.audit_log) if settings.audit_log else None,
        usage=None if tenants is None else _usage(metrics, slots),
        quotas=Quotas(limits),
        replays=Replays(settings.replay_window) if settings.replay_window else None,
    )


def _unlimited(_: str) -> Limits:
    return NO_LIMITS


def _audit(path: str) -> Audit:
    from function_builder.server.audit import AuditLog  # noqa: PLC0415 (few builders have one)

    return AuditLog(path)


def _usage(metrics: Metrics, slots: Slots) -> Usage:
    from function_builder.server.usage import TenantsUsage  # noqa: PLC0415 (as above)

    return TenantsUsage(metrics, slots)


def _source_policy(settings: Settings) -> SourcePolicy:
    try:
        return builder_policy(
            settings.source_policy,
            local_sources=settings.local_sources,
            covers_steps=settings.run_proxy,
        )
    except OSError as error:
        raise StartError(f"source_policy cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise StartError(f"source_policy cannot be used: {error}") from error


def _tenants(settings: Settings, own: RegistryCredentials, policy: SourcePolicy) -> CurrentTenants:
    from function_builder.server import tenancy  # noqa: PLC0415 (few builders have tenants)

    return tenancy.read_tenancy(settings, own, policy)
