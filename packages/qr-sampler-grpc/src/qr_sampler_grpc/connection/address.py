# SPDX-License-Identifier: Apache-2.0
"""Where a server listens: a host and a port, or a Unix domain socket."""

from __future__ import annotations

import ipaddress
import re
import socket
import sys
from dataclasses import dataclass, replace
from typing import Final, NoReturn, TypeAlias
from urllib.parse import quote

from qr_sampler.errors import ConfigError

__all__ = ["Address"]

_FORMS: Final = "host:port, [::1]:port, dns:///host:port, unix:/path or unix:///path"
_PORTS: Final = range(65536)
_MAX_SOCKET_PATH_BYTES: Final = 107 if sys.platform == "linux" else 103
"""The kernel's limit: sun_path holds 108 bytes with the closing zero on Linux, 104 on macOS."""

# Underscores are not allowed in host names, but container networks hand them out.
_LABEL: Final = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """A place to connect to or to listen at; construct it with :meth:`parse`."""

    host: str = ""
    """Host name, or IP address without brackets; empty for a Unix domain socket."""
    port: int = 0
    """TCP port; 0 asks the operating system for a free one."""
    path: str = ""
    """Absolute path of a Unix domain socket; empty for TCP."""

    @classmethod
    def parse(cls, text: str, *, listening: bool = False) -> Address:
        """Returns the address that *text* names.

        Args:
            text: One of ``host:port``, ``[ipv6]:port``, ``dns:///host:port``, ``unix:/path`` and
                ``unix:///path``. Space around it is ignored.
            listening: Whether a server will listen there, which allows port 0.

        Raises:
            ConfigError: When *text* has another form, or names a Unix domain socket where there are
                none; names the part that is wrong.

        Examples:
            >>> Address.parse("[::1]:50051").target
            '[::1]:50051'
            >>> Address.parse("unix:///run/entropy.sock").path
            '/run/entropy.sock'
        """
        rest = text.strip()
        if rest.lower().startswith("unix:"):
            return cls(path=_socket_path(text, rest[len("unix:") :]))
        rest = re.sub("^dns:///", "", rest, flags=re.IGNORECASE)
        if "/" in rest:
            _refuse(text, "only unix: and dns:/// may stand in front, and nothing behind the port")
        host, port = _split_port(text, rest)
        if port == 0 and not listening:
            _refuse(text, "port 0 cannot be connected to")
        return cls(host=_checked_host(text, host), port=port)

    @property
    def target(self) -> str:
        """The address in gRPC's syntax, for channels and for servers."""
        if self.path:
            # gRPC reads a target as a URI and would decode or cut an unquoted path.
            return f"unix:{quote(self.path)}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def is_local(self) -> bool:
        """Whether only this machine can connect: a Unix socket or the loopback interface."""
        if self.path or _folded(self.host) == "localhost":
            return True
        address = _ip_address(self.host)
        return address is not None and address.is_loopback

    @property
    def is_own(self) -> bool:
        """Whether a connection ends on this machine, on whichever of its interfaces.

        Never resolves a name: the only name that it knows is the machine's own.
        """
        if self.is_local:
            return True
        address = _ip_address(self.host)
        if address is None:
            own = _folded(socket.gethostname())
            return _folded(self.host) in (own, own.partition(".")[0])
        return address.is_unspecified or _is_of_an_interface(address)

    @property
    def reachable(self) -> Address:
        """Where a client on this machine finds a server that listens here.

        A server that listens on every interface is found on the loopback one.
        """
        address = _ip_address(self.host)
        if address is None or not address.is_unspecified:
            return self
        return replace(self, host="127.0.0.1" if address.version == 4 else "::1")

    def __str__(self) -> str:
        return f"unix://{self.path}" if self.path else self.target


_IPAddress: TypeAlias = "ipaddress.IPv4Address | ipaddress.IPv6Address"


def _folded(host: str) -> str:
    """Returns a host name as it compares: case does not count, nor does the dot of the root."""
    return host.lower().removesuffix(".")


def _ip_address(host: str) -> _IPAddress | None:
    """Returns the IP address that *host* is, IPv4 also where it is written as IPv6."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _is_of_an_interface(address: _IPAddress) -> bool:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        # Nothing is sent: only an address of the machine's own can be bound to.
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((str(address), 0))
    except OSError:
        return False
    return True


def _socket_path(text: str, rest: str) -> str:
    if not hasattr(socket, "AF_UNIX"):
        raise ConfigError(
            f"address {text!r}: Python has no Unix domain sockets on this system; use TCP, such as "
            "127.0.0.1:50051, and the source 'quantum_grpc' instead of 'direct'"
        )
    path = rest[2:] if rest.startswith("///") else rest
    if not path.startswith("/") or path.startswith("//"):
        _refuse(text, "the path of a Unix domain socket must be absolute")
    if path.endswith("/") or "\0" in path:
        _refuse(text, f"{path!r} does not name a file")
    if len(path.encode()) > _MAX_SOCKET_PATH_BYTES:
        _refuse(text, f"the path is longer than {_MAX_SOCKET_PATH_BYTES} bytes; use a shorter one")
    return path


def _split_port(text: str, rest: str) -> tuple[str, int]:
    host, colon, port = rest.rpartition(":")
    if not colon or rest.endswith("]"):
        _refuse(text, "the port is missing")
    if not (port.isascii() and port.isdigit() and int(port) in _PORTS):
        _refuse(text, f"{port!r} is not a port from 1 to 65535")
    return host, int(port)


def _checked_host(text: str, host: str) -> str:
    if host.startswith("[") and host.endswith("]"):
        return _checked_ipv6(text, host[1:-1])
    if ":" in host:
        _refuse(text, f"{host!r} is not a host name; an IPv6 address needs brackets")
    labels = host.removesuffix(".").split(".")
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        _refuse(text, f"{host!r} is not a host name")
    if labels[-1].isdigit():
        try:
            ipaddress.IPv4Address(host)
        except ValueError:
            _refuse(text, f"{host!r} is not an IPv4 address")
    return host


def _checked_ipv6(text: str, host: str) -> str:
    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        _refuse(text, f"{host!r} is not an IPv6 address")
    return host


def _refuse(text: str, problem: str) -> NoReturn:
    raise ConfigError(f"server address {text!r}: {problem}; use {_FORMS}")
