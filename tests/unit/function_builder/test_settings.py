"""Settings, read from the environment as pro-builder's users write it."""

from dataclasses import fields
from ipaddress import ip_network
from pathlib import Path

import pytest

from function_builder.contract.callback_url import CallbackHosts
from function_builder.contract.log import LogPrefixes
from function_builder.settings import Settings, SettingsError, near_misses


def test_what_pro_builders_deployment_sets():
    settings = Settings.from_environment(
        {
            "buildkit_url": "tcp://buildkit:1234",
            "buildkit_server_name": "buildkit",
            "insecure": "true",
            "disable_hmac": "false",
            "max_inflight": "3",
            "enable_lchown": "false",
            "build_secrets_private_key_path": "/var/secrets/buildkit/key",
            "secret_mount_path": "/var/secrets",
            "AWS_SHARED_CREDENTIALS_FILE": "/var/aws/credentials",
        },
        tls_ca="/var/secrets/certs/ca.crt",
        tls_cert=None,
    )
    assert settings.buildkit_url == "tcp://buildkit:1234"
    assert settings.insecure is True
    assert settings.disable_hmac is False
    assert settings.max_inflight == 3
    assert settings.secret_mount_path == Path("/var/secrets")
    assert settings.tls_ca == "/var/secrets/certs/ca.crt"
    assert settings.tls_cert == ""


def test_an_empty_variable_is_the_default():
    assert Settings.from_environment({"max_inflight": "", "listen": ""}) == Settings()


@pytest.mark.parametrize(
    ("variable", "text", "value"),
    [
        ("upload_timeout", "90", 90.0),
        ("upload_timeout", "0.5", 0.5),
        ("upload_timeout", "1h30m", 5400.0),
        ("upload_timeout", "1.5s", 1.5),
        ("upload_timeout", "250ms", 0.25),
        ("max_body_bytes", "1000", 1000),
        ("max_body_bytes", "2GiB", 2 << 30),
        ("max_body_bytes", "5 MB", 5_000_000),
        ("listen", ":8080", ("", 8080)),
        (
            "registry_mirrors",
            "ghcr.io=m:5000/ghcr, a.b=c",
            (("ghcr.io", "m:5000/ghcr"), ("a.b", "c")),
        ),
        ("registry_mirrors", "", ()),
        ("plain_http_registries", "a:1,[::1]:5000", ("a:1", "[::1]:5000")),
        ("registry_authorities", "a:1=/ca.crt", (("a:1", "/ca.crt"),)),
        ("cache_registry", "[fd00::1]:5000/cache", "[fd00::1]:5000/cache"),
        ("run_dns", "10.0.0.2, ::1", ("10.0.0.2", "::1")),
        ("buildkit_log_level", "debug", "debug"),
        ("BUILDKIT_STEP_LOG_MAX_SIZE", "10MiB", 10 << 20),
        ("BUILDKIT_STEP_LOG_MAX_SPEED", "-1", -1),
        ("listen", "127.0.0.1:0", ("127.0.0.1", 0)),
        ("listen", "[::1]:80", ("::1", 80)),
        ("insecure", "T", True),
        ("log_prefixes", "full", LogPrefixes.FULL),
        ("log_prefixes", "Time", LogPrefixes.TIME),
        ("log_prefixes", "none", LogPrefixes.NONE),
        ("log_prefixes", "true", LogPrefixes.FULL),
        ("log_prefixes", "0", LogPrefixes.NONE),
        ("allowed_frontends", "a/b, c/d", ("a/b", "c/d")),
        ("allowed_frontends", "", ()),
        ("allowed_frontends", "a/b:1,[::1]:5/c=built-in", ("a/b:1", "[::1]:5/c=built-in")),
        ("allowed_frontends", f"a/b@sha256:{'0' * 64}", (f"a/b@sha256:{'0' * 64}",)),
        ("trusted_proxies", "10.0.0.0/8, ::1", (ip_network("10.0.0.0/8"), ip_network("::1/128"))),
        ("trusted_proxies", "", ()),
        ("callback_hosts", "*.a.example:*", CallbackHosts.parse("*.a.example:*")),
        ("callback_hosts", "", CallbackHosts()),
        ("cache_registry", "registry:5000/build/cache/", "registry:5000/build/cache"),
    ],
)
def test_forms(variable, text, value):
    (name,) = [f.name for f in fields(Settings) if f.metadata["variable"] == variable]
    assert getattr(Settings.from_environment({variable: text}), name) == value


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("max_inflight", "many"),
        ("max_inflight", "-1"),
        ("trusted_proxies", "proxy.internal"),
        ("callback_hosts", "https://hooks.example.com"),
        ("callback_hosts", "10.0.0.1/8"),
        ("trusted_proxies", "10.0.0.1/8"),
        ("insecure", "maybe"),
        ("log_prefixes", "short"),
        ("upload_timeout", "soon"),
        ("upload_timeout", "5 parsecs"),
        ("upload_timeout", "-1"),
        ("max_body_bytes", "1XB"),
        ("listen", "8080"),
        ("listen", "host:99999"),
        ("listen", "::1:80"),
        ("allowed_frontends", "a/b=builtin"),
        ("allowed_frontends", "a/b@sha256:1"),
        ("allowed_frontends", "a" * 100 + "!"),
        ("registry_mirrors", "ghcr.io"),
        ("registry_mirrors", "https://ghcr.io=m"),
        ("registry_mirrors", "ghcr.io=https://m"),
        ("plain_http_registries", "http://a:1"),
        ("registry_authorities", "/ca.crt"),
        ("run_dns", "dns.internal"),
        ("buildkit_log_level", "loud"),
        ("BUILDKIT_STEP_LOG_MAX_SIZE", "2GiB"),
        ("BUILDKIT_STEP_LOG_MAX_SPEED", "-2"),
        ("cache_registry", "https://registry/cache"),
        ("cache_registry", "registry/cache:tag"),
        ("cache_registry", "registry"),
    ],
)
def test_nonsense_is_named(variable, text):
    with pytest.raises(SettingsError, match=f"{variable}='{text}': must"):
        Settings.from_environment({variable: text})


def test_every_setting_explains_itself():
    for setting in fields(Settings):
        assert setting.metadata["doc"].endswith(".")


@pytest.mark.parametrize(
    ("settings", "most"),
    [
        ({}, 256),
        ({"max_inflight": "1"}, 16),
        ({"max_inflight": "8"}, 32),
        # What the queue has room for may be on its way at once.
        ({"max_inflight": "1", "max_queue": "100"}, 101),
        ({"max_inflight": "8", "max_queue": "100", "max_uploads": "3"}, 3),
        ({"max_uploads": "3"}, 3),
    ],
)
def test_the_bound_on_uploads_follows_slots_and_queue_unless_it_is_set(settings, most):
    assert Settings.from_environment(settings).most_uploads == most


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("MAX_INFLIGHT", "max_inflight"),
        ("max_inflght", "max_inflight"),
        ("maxInflight", "max_inflight"),
        ("max-inflight", "max_inflight"),
        ("LOG_PREFIX", "log_prefixes"),
        ("listn", "listen"),
        ("tls_cert", "tlscert"),
        ("docker_config", "DOCKER_CONFIG"),
        ("STATE_DIR", "state_dir"),
    ],
)
def test_a_near_miss_of_a_name_is_found(name, meant):
    assert near_misses({name: "s3cret", "max_queue": "1"}, ["state_dir"]) == {name: meant}


@pytest.mark.parametrize(
    "name",
    ["PATH", "LISTEN_FDS", "OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"]
    + ["BUILDKIT_HOST", "http_proxy", "AWS_REGION", "SSL_CERT_DIR", "DOCKER_CONTEXT", "license"]
    + [setting.metadata["variable"] for setting in fields(Settings)],
)
def test_other_programs_variables_are_not_taken_for_one(name):
    assert near_misses({name: ""}) == {}


def test_an_idle_connection_outlives_those_of_proxies_and_clients():
    """nginx and AWS 60 s, Go 90 s, Prometheus 5 min, Google's load balancer 10 min."""
    assert Settings().keep_alive_timeout > 600
