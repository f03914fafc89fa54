"""How BuildKit is reached, as the settings say it."""

import pytest

from aiobuildkit import TLSConfig
from function_builder.buildkits import from_settings
from function_builder.buildkits.addresses import Endpoint
from function_builder.server import StartError, serve
from function_builder.settings import Settings


def tls_of(
    url: str, *, ca: str = "", name: str = "", found: Endpoint | None = None
) -> TLSConfig | None:
    """What the BuildKit at `url`, or one that its name was found to have, is spoken to with."""
    settings = Settings(buildkit_url=url, tls_ca=ca, buildkit_server_name=name)
    tls = from_settings.buildkits(settings).shared._connect(found or Endpoint(url))._tls
    assert tls is None or isinstance(tls, TLSConfig)
    return tls


@pytest.fixture
def certificates(tmp_path, monkeypatch):
    """The directory that stands for /var/secrets/certs, with all files in it."""
    for name in ("ca.crt", "client.crt", "client.key"):
        (tmp_path / name).touch()
    monkeypatch.setattr(from_settings, "CERTIFICATES", tmp_path)
    return tmp_path


def test_tcp_without_certificates_is_plain(tmp_path, monkeypatch):
    monkeypatch.setattr(from_settings, "CERTIFICATES", tmp_path)
    assert tls_of("tcp://buildkitd:1234") is None


def test_certificates_in_their_place_are_taken_for_tcp(certificates):
    tls = tls_of("tcp://buildkitd:1234", name="name")
    assert tls is not None
    assert (tls.ca, tls.cert, tls.key, tls.server_name) == (
        *(str(certificates / name) for name in ("ca.crt", "client.crt", "client.key")),
        "name",
    )


def test_named_certificates_win(certificates):
    tls = tls_of("tcp://buildkitd:1234", ca="/ca")
    assert tls is not None
    assert (tls.ca, tls.cert, tls.key, tls.server_name) == ("/ca", None, None, None)


def test_a_unix_socket_has_no_tls(certificates):
    assert tls_of("unix:///run/buildkit/buildkitd.sock", ca="/ca") is None


@pytest.mark.parametrize(("given", "name"), [("", "buildkit"), ("other", "other")])
def test_an_address_that_dns_gave_must_bear_the_name_that_was_asked_for(certificates, given, name):
    found = Endpoint("tcp://10.0.0.7:1234", "buildkit")
    tls = tls_of("dns://buildkit:1234", name=given, found=found)
    assert tls is not None
    assert tls.server_name == name


@pytest.mark.parametrize("url", ["buildkitd:1234", "tcp://buildkitd", "http://buildkitd:1234"])
async def test_what_is_no_address_stops_the_start(url):
    settings = Settings(buildkit_url=url, disable_hmac=True)
    with pytest.raises(StartError, match="buildkit_url: not an address of BuildKit"):
        await serve(settings)
