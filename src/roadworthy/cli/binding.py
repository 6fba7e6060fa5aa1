"""The socket that a command serves on.

`serve` and `mcp` bind by it. Invariant: who reads the address may connect at once.
"""

from __future__ import annotations

import ipaddress
import socket

from roadworthy.errors import ConfigurationError


def bound(host: str, port: int) -> socket.socket:
    """A listening socket. Raises: ConfigurationError: the address cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
        sock.listen()
    except OSError as error:
        sock.close()
        raise ConfigurationError(
            f"{host}:{port} cannot be bound: {error.strerror}. Choose another with --port."
        ) from error
    return sock


def address(host: str, sock: socket.socket) -> str:
    """Where it is, as a URL without a path."""
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{sock.getsockname()[1]}"


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches it."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
