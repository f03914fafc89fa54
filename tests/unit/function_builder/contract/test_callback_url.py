"""URLs of callbacks: what is allowed, and what is one URL to one parser and another to the next."""

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from function_builder.contract.callback_url import CallbackHosts, CallbackURL, check_url
from function_builder.contract.errors import Refusal
from function_builder.contract.public_addresses import kind_of_private

HOSTS = CallbackHosts.parse(
    "hooks.example.com, *.example.org:8443, gateway.openfaas:8080, 10.0.0.0/8:8080, [fd00::/8]:*"
)


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("https://hooks.example.com", "https://hooks.example.com/"),
        ("HTTPS://Hooks.EXAMPLE.com:443/a?b=c", "https://hooks.example.com/a?b=c"),
        ("http://hooks.example.com?b=//c@d:1/", "http://hooks.example.com/?b=//c@d:1/"),
        ("https://hooks.example.com:80/", "https://hooks.example.com:80/"),
        ("https://a.b.example.org:8443/%20", "https://a.b.example.org:8443/%20"),
        ("http://gateway.openfaas:8080/function/f", "http://gateway.openfaas:8080/function/f"),
        ("http://10.1.2.3:8080/", "http://10.1.2.3:8080/"),
        ("http://[FD00:0::1]:9/", "http://[fd00::1]:9/"),
        ("http://[::ffff:10.1.2.3]:8080/", "http://[::ffff:a01:203]:8080/"),
    ],
)
def test_a_url_that_is_allowed(text, url):
    assert str(check_url(text, HOSTS)) == url
    assert str(CallbackURL.parse(url)) == url


MALFORMED = [
    "",
    "hooks.example.com",
    "//hooks.example.com/",
    "ftp://hooks.example.com/",
    "file:///etc/passwd",
    "gopher://hooks.example.com:70/_x",
    "javascript:alert(1)",
    "http:hooks.example.com",
    "http:/hooks.example.com/",
    "http:///hooks.example.com/",
    "https://",
    "https://?x",
    "https://:443/",
    " https://hooks.example.com/",
    "https://hooks.example.com/ ",
    "https://hooks.example.com/\r\nX-Other: 1",
    "https://hooks.example.com/\t",
    "https://hooks.example.com\\@10.0.0.1/",
    "https://hooks.example.com/\\..",
    "https://user@hooks.example.com/",
    "https://user:password@hooks.example.com/",
    "https://hooks.example.com:80@10.0.0.1/",
    "https://10.0.0.1#@hooks.example.com/",
    "https://hooks.example.com/#fragment",
    "https://hooks.example.com#",
    "https://hooks.example.com:/",
    "https://hooks.example.com:0/",
    "https://hooks.example.com:65536/",
    "https://hooks.example.com:+443/",
    "https://hooks.example.com:443:443/",
    "https://hooks.example.com:٤٤٣/",
    "https://hooks.example.com./",
    "https://10.1.2.3.:8080/",
    "https://hooks..example.com/",
    "https://.hooks.example.com/",
    "https://hooks.example.com%2f@10.0.0.1/",
    "https://hooks%2eexample.com/",
    "https://-a.example.org:8443/",
    "https://hooks.exam\u00e4ple.com/",
    "https://hooks\u3002example\u3002com/",
    "https://\uff11\uff10.1.2.3:8080/",
    "https://hooks.example.com/ä",
    "https://hooks.example.com/%zz",
    "https://hooks.example.com/{x}",
    f"https://{'a.' * 130}example.org:8443/",
    f"https://{'a' * 64}.example.org:8443/",
    f"https://hooks.example.com/{'a' * 2048}",
    # 10.1.2.3 as inet_aton and browsers read it.
    "http://167838211:8080/",
    "http://0xa010203:8080/",
    "http://0xa.1.2.3:8080/",
    "http://012.1.2.3:8080/",
    "http://10.1.515:8080/",
    "http://10.66051:8080/",
    "http://10.1.2.3.4:8080/",
    "http://010.001.002.003:8080/",
    "http://10.1.2.0x3:8080/",
    "http://hooks.example.1/",
    "http://[fd00::1%25eth0]:9/",
    "http://[fd00::1%eth0]:9/",
    "http://[fd00::1:9/",
    "http://fd00::1:9/",
    "http://[10.1.2.3]:8080/",
    "http://[v1.x]:9/",
]


@pytest.mark.parametrize("text", MALFORMED)
def test_a_url_that_can_mean_two_things_is_refused(text):
    with pytest.raises(Refusal) as refused:
        check_url(text, HOSTS)
    assert refused.value.status == 400
    assert refused.value.reason.startswith("X-Callback-Url ")
    assert "password" not in refused.value.reason or "user or password" in refused.value.reason


@pytest.mark.parametrize(
    "text",
    [
        "https://example.com/",
        "https://hooks.example.com.evil.example/",
        "https://evil-hooks.example.com/",
        "https://a.hooks.example.com/",
        "https://example.org:8443/",
        "https://a.example.org/",
        "https://evilexample.org:8443/",
        "http://gateway.openfaas/",
        "http://gateway.openfaas:8081/",
        "http://gateway.openfaas.svc:8080/",
        "https://hooks.example.com:22/",
        "https://hooks.example.com:8080/",
        "http://10.1.2.3/",
        "http://11.1.2.3:8080/",
        "http://127.0.0.1:8080/",
        "http://169.254.169.254:8080/",
        "http://[::1]:8080/",
        "http://[::ffff:127.0.0.1]:8080/",
        "http://[fe80::1]:8080/",
        "http://localhost:8080/",
        "http://[::ffff:169.254.169.254]:8080/",
    ],
)
def test_a_url_that_is_not_listed_is_refused_by_name(text):
    with pytest.raises(Refusal, match=r"callback_hosts$") as refused:
        check_url(text, HOSTS)
    assert refused.value.status == 400


def test_without_the_setting_the_feature_is_off():
    with pytest.raises(Refusal, match="callback_hosts") as refused:
        check_url("https://hooks.example.com/", CallbackHosts.parse(" , "))
    assert refused.value.status == 501


def test_a_star_is_every_name_and_no_address():
    every = CallbackHosts.parse("*")
    assert check_url("https://anything.example/", every)
    for address in ("http://127.0.0.1/", "http://93.184.216.34/", "http://[2606:2800::1]/"):
        with pytest.raises(Refusal):
            check_url(address, every)
    # A name is allowed, and where it leads is decided at the connect.
    assert check_url("http://localhost/", every)
    assert every.refusal(ip_address("127.0.0.1"), 80) == "a loopback address"


def test_localhost_is_named_with_its_addresses_and_port():
    local = CallbackHosts.parse("localhost:9000")
    assert check_url("http://localhost:9000/", local)
    assert not local.refusal(ip_address("127.0.0.1"), 9000)
    assert not local.refusal(ip_address("::1"), 9000)
    assert local.refusal(ip_address("127.0.0.1"), 9001)


def test_a_private_address_is_named_with_its_port():
    assert not HOSTS.refusal(ip_address("10.1.2.3"), 8080)
    assert not HOSTS.refusal(ip_address("::ffff:10.1.2.3"), 8080)
    assert not HOSTS.refusal(ip_address("64:ff9b::10.1.2.3"), 8080)
    assert HOSTS.refusal(ip_address("10.1.2.3"), 80) == "a private address"
    assert HOSTS.refusal(ip_address("192.168.1.1"), 8080) == "a private address"
    assert not HOSTS.refusal(ip_address("8.8.8.8"), 25)


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("127.0.0.1", "loopback"),
        ("127.255.255.254", "loopback"),
        ("::1", "loopback"),
        ("::ffff:127.0.0.1", "loopback"),
        ("64:ff9b::7f00:1", "loopback"),
        ("0.0.0.0", "reserved"),
        ("0.1.2.3", "reserved"),
        ("::", "reserved"),
        ("::127.0.0.1", "reserved"),
        ("169.254.1.1", "link-local"),
        ("fe80::1", "link-local"),
        ("fe80::1%eth0", "link-local"),
        ("169.254.169.254", "metadata"),
        ("::ffff:169.254.169.254", "metadata"),
        ("64:ff9b::a9fe:a9fe", "metadata"),
        ("168.63.129.16", "metadata"),
        ("100.100.100.200", "metadata"),
        ("192.0.0.192", "metadata"),
        ("fd00:ec2::254", "metadata"),
        ("10.0.0.1", "private"),
        ("172.31.255.255", "private"),
        ("192.168.0.1", "private"),
        ("100.64.0.1", "private"),
        ("fc00::1", "private"),
        ("fec0::1", "private"),
        ("64:ff9b:1::1", "private"),
        ("64:ff9b::10.0.0.1", "private"),
        ("224.0.0.1", "multicast"),
        ("ff02::1", "multicast"),
        ("240.0.0.1", "reserved"),
        ("255.255.255.255", "reserved"),
        ("198.18.0.1", "reserved"),
        ("192.0.2.1", "reserved"),
        ("2002:7f00:1::", "reserved"),
        ("2002:808:808::", "reserved"),
        ("2001::1", "reserved"),
        ("2001:db8::1", "reserved"),
        ("3fff::1", "reserved"),
        ("4000::1", "reserved"),
        ("100::1", "reserved"),
        ("5f00::1", "reserved"),
        ("8.8.8.8", ""),
        ("172.32.0.1", ""),
        ("100.128.0.1", ""),
        ("::ffff:8.8.8.8", ""),
        ("64:ff9b::8.8.8.8", ""),
        ("2606:4700:4700::1111", ""),
        ("2a00:1450::1", ""),
    ],
)
def test_the_kind_of_an_address(address, kind):
    assert kind in kind_of_private(ip_address(address))
    assert bool(kind_of_private(ip_address(address))) == bool(kind)


@given(address=st.ip_addresses())
@example(address=IPv6Address("64:ff9b::8.8.8.8"))
def test_python_does_not_know_more_private_addresses(address):
    if not kind_of_private(address):
        # NAT64's prefix is not global in Python's list, and leads to the IPv4 address in it.
        reached = (
            IPv4Address(int(address) & 0xFFFFFFFF)
            if isinstance(address, IPv6Address) and address.packed[:4] == b"\0\x64\xff\x9b"
            else address
        )
        assert reached.is_global or (
            isinstance(reached, IPv6Address) and reached.ipv4_mapped is not None
        )


AUTHORITIES = st.text("0123456789abcdefx.:[]@%-_/?#\\ \u3002localhostexampleorg", max_size=30)


@given(authority=AUTHORITIES, hosts=st.sampled_from(["*:*", "0.0.0.0/0:*,[::/0]:*,*:*"]))
@example(authority="127.1", hosts="*:*")
@example(authority="0x7f000001", hosts="*:*")
def test_an_allowed_url_is_read_back_as_itself(authority, hosts):
    try:
        url = check_url(f"http://{authority}/", CallbackHosts.parse(hosts))
    except Refusal:
        return
    assert CallbackURL.parse(str(url)) == url
    # No name is left that a resolver takes for an address.
    last = url.host.rpartition(".")[2]
    assert not last.isdecimal() or IPv4Address(url.host)
    assert url.host == url.host.lower()
    assert not set("@\\%/?#[] ") & set(url.host)


@pytest.mark.parametrize(
    "text",
    [
        "http://hooks.example.com",
        "hooks.example.com/path",
        "hooks.*.com",
        "**.example.com",
        "*example.com",
        "hooks.example.com:0",
        "hooks.example.com:70000",
        "hooks.example.com:http",
        "10.0.0.1/8",
        "10.0.0.0/33",
        "10.1",
        "0x7f.1",
        "[::1",
        "a b",
        "bücher.example",
        "hooks.example.com.",
    ],
)
def test_a_setting_of_another_form_is_refused(text):
    with pytest.raises(ValueError, match=r"^must (be|have) "):
        CallbackHosts.parse(text)


def test_a_url_for_logs_has_neither_path_nor_query():
    url = CallbackURL.parse("https://hooks.example.com:8443/services/T0/secret?key=secret")
    assert url.origin == "https://hooks.example.com:8443"
    assert url.authority == "hooks.example.com:8443"
