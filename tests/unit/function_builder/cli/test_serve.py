"""What a BuildKit of the builder's own is told, and where the parts of `up` are reached."""

from pathlib import Path

import pytest

from function_builder.cli.serve import own_buildkit
from function_builder.cli.stack import Stack
from function_builder.cli.up import MIRRORED
from function_builder.engine import BuildKitNetwork, EngineError
from function_builder.settings import Settings


def test_an_own_buildkit_is_told_what_the_settings_say(tmp_path):
    one, two = (tmp_path / name for name in ("one.crt", "two.crt"))
    for file in (one, two):
        file.touch()
    settings = Settings.from_environment(
        {
            "registry_mirrors": "ghcr.io=mirror:5000/ghcr,quay.io=mirror:5000",
            "plain_http_registries": "mirror:5000",
            "registry_authorities": f"a.internal={one},a.internal={two}",
            "run_dns": "10.0.0.2",
            "buildkit_cache_size": "5GiB",
            "buildkit_log_level": "warn",
        }
    )
    config = own_buildkit(settings, mirrored=MIRRORED, registry="127.0.0.1:5000")
    # The operator's mirrors come first.
    assert config.mirrors == {
        "ghcr.io": ["mirror:5000/ghcr", "127.0.0.1:5000/ghcr.io"],
        "quay.io": ["mirror:5000"],
        "docker.io": ["127.0.0.1:5000/docker.io"],
    }
    assert config.plain_http == ["mirror:5000", "127.0.0.1:5000"]
    assert config.authorities == {"a.internal": [one, two]}
    assert list(config.nameservers) == ["10.0.0.2"]
    assert config.log_level == "warn"
    assert config.cache.most == str(5 * 2**30)


def test_an_authority_that_cannot_be_read_is_named():
    settings = Settings.from_environment({"registry_authorities": "a.internal:5000=/absent.crt"})
    with pytest.raises(EngineError, match=r"/absent\.crt, for a\.internal:5000, cannot be read"):
        own_buildkit(settings)


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
        buildkit_network=BuildKitNetwork.HOST,
        example=Path("/hello"),
    )
    assert stack.url == f"http://{host}:8080"
    assert stack.image == f"{host}:5000/hello:latest"
