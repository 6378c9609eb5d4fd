"""Who may see a page that fauve serves, and turn what is on it."""

import hmac
import secrets
from typing import Protocol
from urllib.parse import parse_qs, urlsplit

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1", "[::1]"})


class Headers(Protocol):
    """Of a request, by name in any case."""

    def get(self, name: str, /) -> str | None:
        """The value of the header `name`."""


class Access:
    """Everybody on this machine; from any other, whoever has the token that is part of the address.

    Pages of other sites are refused, also when they are open in a browser on this machine.

    Args:
        host: that the page is served at.
    """

    def __init__(self, host: str) -> None:
        self._host = host
        self._token = "" if host in LOOPBACK else secrets.token_urlsafe(12)

    def url(self, port: int, path: str = "") -> str:
        """The address to give to a browser."""
        return f"http://{self._host}:{port}/{path}" + (f"?token={self._token}" if self._token else "")

    def allows(self, query: str, headers: Headers) -> bool:
        """Whether a request with this query and these headers is answered."""
        host = headers.get("Host") or ""
        origin = headers.get("Origin")
        if origin and urlsplit(origin).netloc != host:
            return False
        if self._token:
            given = parse_qs(query).get("token", [""])[0]
            return hmac.compare_digest(given.encode(), self._token.encode())
        # Another name for this machine, such as a page of another site can give it.
        return (urlsplit(f"//{host}").hostname or "") in LOOPBACK
