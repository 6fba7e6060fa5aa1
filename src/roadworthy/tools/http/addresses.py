"""Which addresses a tool may connect to: public ones, and those that were opened on purpose.

`client` asks before every connection. Invariant: what is on no list is refused, also when it is
written as an IPv6 address that carries an IPv4 one.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import TypeAlias

from roadworthy.errors import DeclarationError

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network

# IANA's special-purpose registries as of 2026, whole: Python's own list differs by release.
_CLOSED_4 = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8",
            "10.0.0.0/8",
            "100.64.0.0/10",  # shared by carriers; metadata of Alibaba Cloud
            "127.0.0.0/8",
            "168.63.129.16/32",  # Azure's platform, on a public address
            "169.254.0.0/16",  # link-local; metadata of most clouds
            "172.16.0.0/12",
            "192.0.0.0/24",
            "192.0.2.0/24",
            "192.31.196.0/24",
            "192.52.193.0/24",
            "192.88.99.0/24",
            "192.168.0.0/16",
            "192.175.48.0/24",
            "198.18.0.0/15",
            "198.51.100.0/24",
            "203.0.113.0/24",
            "224.0.0.0/3",  # multicast, reserved, broadcast
        ),
    )
)
_OPEN_6 = IPv6Network("2000::/3")
_CLOSED_6 = tuple(
    map(IPv6Network, ("2001::/23", "2001:db8::/32", "2620:4f:8000::/48", "3fff::/20"))
)
_NAT64 = IPv6Network("64:ff9b::/96")


def is_public(address: Address) -> bool:
    """Whether it is an address of the open internet."""
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _CLOSED_4)
    if address.scope_id is not None:
        return False
    inner = _carried(address)
    if inner is not None:
        return is_public(inner)
    return address in _OPEN_6 and not any(address in network for network in _CLOSED_6)


def _carried(address: IPv6Address) -> IPv4Address | None:
    """The IPv4 address inside: mapped, 6to4 (RFC 3056), or behind NAT64 (RFC 6052)."""
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return None


class Allowed:
    """What is open beside public addresses: hosts by name, addresses, networks (CIDR)."""

    def __init__(self, entries: Iterable[str] = ()) -> None:
        """Raises: DeclarationError: an entry is no host and no network."""
        self._hosts: set[str] = set()
        self._networks: list[Network] = []
        if isinstance(entries, str):
            raise DeclarationError(f"allow= is a list: allow=[{entries!r}].")
        for entry in entries:
            self._take(entry)

    def _take(self, entry: str) -> None:
        try:
            self._networks.append(ipaddress.ip_network(entry))
        except ValueError:
            if not entry or any(sign in entry for sign in "/:@*? []"):
                raise DeclarationError(
                    f'allow={entry!r} is no host, address or network; write "db.internal", '
                    '"10.1.2.3" or "10.0.0.0/8", without a scheme and a port.'
                ) from None
            self._hosts.add(entry.rstrip(".").lower())

    def names(self, host: str) -> bool:
        """Whether the host itself is on the list."""
        return host.rstrip(".").lower() in self._hosts

    def takes(self, host: str, address: Address) -> bool:
        """Whether a connection to this address, found for this host, may be made."""
        if is_public(address) or self.names(host):
            return True
        inner = _carried(address) if isinstance(address, IPv6Address) else None
        return any(
            each in network for network in self._networks for each in (address, inner) if each
        )
