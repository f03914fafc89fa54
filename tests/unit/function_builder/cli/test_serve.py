"""What a BuildKit of the builder's own is told, and where the parts of `up` are reached."""

from pathlib import Path

import pytest

from function_builder.cli.serve import own_buildkit
from function_builder.cli.up import MIRRORED, Stack
from function_builder.settings import Settings


def test_an_own_buildkit_is_told_what_the_settings_say():
    settings = Settings.from_environment(
        {
            "registry_mirrors": "ghcr.io=mirror:5000/ghcr,quay.io=mirror:5000",
            "plain_http_registries": "mirror:5000",
            "registry_authorities": "a.internal=/one.crt,a.internal=/two.crt",
            "run_dns": "10.0.0.2",
            "buildkit_cache_size": "5GiB",
            "buildkit_log_level": "warn",
        }
    )
    config = own_buildkit(settings, mirrored=MIRRORED, registry="127.0.0.1:5000")
    # The operator's mirrors come first.
    assert config.mirrors == {
        "ghcr.io": ["mirror:5000/ghcr", "127.0.0.1:5000"],
        "quay.io": ["mirror:5000"],
        "docker.io": ["127.0.0.1:5000"],
    }
    assert config.plain_http == ["mirror:5000", "127.0.0.1:5000"]
    assert config.authorities == {"a.internal": [Path("/one.crt"), Path("/two.crt")]}
    assert list(config.nameservers) == ["10.0.0.2"]
    assert config.log_level == "warn"
    assert config.cache.most == str(5 * 2**30)


@pytest.mark.parametrize(
    ("listen", "host"),
    [("127.0.0.1", "127.0.0.1"), ("", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("[::]", "[::1]")],
)
def test_what_up_starts_is_reached_wherever_it_listens(listen, host):
    stack = Stack(
        listen=f"{listen}:8080",
        metrics_listen=f"{listen}:8081",
        registry_listen=f"{listen}:5000",
        state=Path("/s"),
        example=Path("/hello"),
    )
    assert stack.url == f"http://{host}:8080"
    assert stack.image == f"{host}:5000/hello:latest"
