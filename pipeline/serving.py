"""Where pages and metrics are served: at an address of either family, IPv4 or IPv6."""

import socket
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from pipeline.errors import SinkError

FRAMING = {"Content-Security-Policy": "frame-ancestors 'self'", "X-Frame-Options": "SAMEORIGIN"}
"""Headers of a page that no other site may show in its own, where clicks would be drawn out of people."""


def in_url(host: str) -> str:
    """`host` as URLs have it: an address of IPv6 in brackets."""
    return f"[{host}]" if ":" in host else host


def listening(option: str, host: str, port: int) -> socket.socket:
    """A socket that listens at `host` and `port`; at :: for IPv4, too, where the system can.

    Args:
        option: that asked for it, for messages.
        port: 0 takes a free one.

    Raises:
        SinkError: the port is taken, or this machine has no such address.
    """
    try:
        return socket.create_server(
            (host, port),
            family=socket.AF_INET6 if ":" in host else socket.AF_INET,
            dualstack_ipv6=host == "::" and socket.has_dualstack_ipv6(),
        )
    except OSError as error:
        # Python adds the address, which is said already.
        why = str(error.strerror).partition(" (while")[0]
        raise SinkError(f"{option} {in_url(host)}:{port}: cannot be served there: {why}") from error


class PageServer(ThreadingHTTPServer):
    """Answers each request in a thread of its own.

    Args:
        option: that asked for it, for messages.
        port: 0 takes a free one; `server_port` tells which.

    Raises:
        SinkError: as `listening`.
    """

    daemon_threads = True

    def __init__(self, option: str, host: str, port: int, handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__((host, port), handler, bind_and_activate=False)
        # The one that it has made is for IPv4 alone.
        self.socket.close()
        self.socket = listening(option, host, port)
        self.server_port = self.socket.getsockname()[1]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say what went wrong, unless it is that whoever asked has gone."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)
