"""Which addresses are refused."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roadworthy import DeclarationError
from roadworthy.tools.http.addresses import Allowed, is_public

CLOSED = (
    "127.0.0.1",
    "0.0.0.0",  # noqa: S104 - refused
    "10.1.2.3",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.192",
    "198.18.0.1",
    "224.0.0.1",
    "255.255.255.255",
    "240.0.0.1",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:0:127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1",
    "2002:7f00:1::",
    "2001::1",
    "2001:db8::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
    "100::1",
    "5f00::1",
)
OPEN = ("1.1.1.1", "8.8.8.8", "172.32.0.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808")


@pytest.mark.requirement("TOL-7")
@pytest.mark.parametrize("text", CLOSED)
def test_what_is_not_the_open_internet_is_refused(text: str) -> None:
    assert not is_public(ipaddress.ip_address(text))


@pytest.mark.parametrize("text", OPEN)
def test_public_addresses_are_open(text: str) -> None:
    assert is_public(ipaddress.ip_address(text))


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_is_judged_the_same_however_it_is_carried(
    address: ipaddress.IPv4Address,
) -> None:
    for prefix in ("::ffff:0:0", "64:ff9b::"):
        carried = ipaddress.IPv6Address(int(ipaddress.IPv6Address(prefix)) | int(address))
        assert is_public(carried) == is_public(address)
    if is_public(address):
        assert address.is_global


@given(st.ip_addresses(v=6))
def test_whatever_python_calls_private_is_refused(address: ipaddress.IPv6Address) -> None:
    if address.is_loopback or address.is_link_local or address.is_multicast:
        assert not is_public(address)


def test_hosts_and_networks_are_opened_on_purpose() -> None:
    allowed = Allowed(["db.internal", "10.0.0.0/8"])
    local, ten = ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("10.9.9.9")
    assert allowed.takes("DB.internal.", local)
    assert not allowed.takes("db.internal.evil.example", local)
    assert allowed.takes("anything", ten)
    assert allowed.takes("anything", ipaddress.ip_address("::ffff:10.9.9.9"))
    assert not allowed.takes("anything", local)


@pytest.mark.parametrize("entry", ["http://x", "*.example.com", "x:80", "", "10.0.0.1/33", "a b"])
def test_an_entry_that_means_nothing_is_said(entry: str) -> None:
    with pytest.raises(DeclarationError, match="allow="):
        Allowed([entry])
    with pytest.raises(DeclarationError, match="is a list"):
        Allowed("localhost")
