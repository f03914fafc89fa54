"""buildkit_url, read and resolved."""

import pytest

from function_builder.buildkits.addresses import Addresses, Endpoint


def test_several_are_separated_by_commas():
    text = "unix:///run/a.sock, tcp://b:1234,dns://c:5678"
    assert Addresses.parse(text) == Addresses(
        text, (Endpoint("unix:///run/a.sock"), Endpoint("tcp://b:1234")), (("c", 5678),)
    )


@pytest.mark.parametrize(
    "text", ["", ",", "b:1234", "dns://b", "dns://:1234", "dns://b:1234/c", "tcp://b:1234,http://c"]
)
def test_what_names_no_buildkit_is_refused(text):
    with pytest.raises(ValueError, match=r"no BuildKit|not an address|must be dns://NAME:PORT"):
        Addresses.parse(text)


@pytest.mark.parametrize(
    "name", ["buildkit..openfaas", ".openfaas", "b" * 64, "b." + "c" * 64 + ".d"]
)
@pytest.mark.parametrize("scheme", ["dns", "tcp"])
def test_a_name_that_no_host_can_have_is_refused(scheme, name):
    with pytest.raises(ValueError, match="has an invalid host name: "):
        Addresses.parse(f"tcp://a:1,{scheme}://{name}:1234")


@pytest.mark.parametrize("name", ["buildkit.openfaas.", "b" * 63, "[::1]", "10.0.0.1", "bücher"])
def test_a_name_that_a_host_can_have_is_taken(name):
    Addresses.parse(f"tcp://{name}:1,dns://{name}:1234")


async def test_each_address_of_a_name_is_one_whose_certificate_bears_the_name():
    found = await Addresses.parse("tcp://b:1,dns://localhost:5678").resolve()
    assert found[0] == Endpoint("tcp://b:1")
    assert Endpoint("tcp://127.0.0.1:5678", "localhost") in found
    assert {each.address for each in found[1:]} <= {"tcp://127.0.0.1:5678", "tcp://[::1]:5678"}


async def test_a_name_without_an_address_is_an_error():
    with pytest.raises(OSError, match=r"known|resol"):
        await Addresses.parse("dns://no-such-name.invalid:1234").resolve()
