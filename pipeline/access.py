"""Who may see a page that fauve serves, and turn what is on it."""

import contextlib
import hmac
import os
import re
import secrets
import socket
import time
from pathlib import Path
from typing import Protocol
from urllib.parse import parse_qs, urlsplit

from platformdirs import user_config_path

from pipeline.errors import SinkError
from pipeline.serving import in_url

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1", "[::1]"})

WRITTEN_WITHIN = 0.2
"""Seconds from when the file of a token is made until the token is in it."""

ELSEWHERE = {"0.0.0.0": "192.0.2.1", "::": "2001:db8::1"}
"""An address that nobody has (RFC 5737, RFC 3849), by the one that stands for all of this machine's."""


def reachable(host: str) -> str:
    """`host`, or where it stands for all of this machine's addresses the one that others reach it at."""
    if host not in ELSEWHERE:
        return host
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as asked:
            # Nothing is sent: a datagram socket only chooses the way.
            asked.connect((ELSEWHERE[host], 9))
            return str(asked.getsockname()[0])
    except OSError:
        return host


def token_file() -> Path | None:
    """Where the token is kept from one start to the next; who deletes it gets another one.

    None for a user without a home.
    """
    try:
        return user_config_path("fauve", appauthor=False) / "token"
    except RuntimeError:  # as of a container's user whom the system does not know
        return None


def token() -> str:
    """The token of this user's pages: what FAUVE_TOKEN says, or what is kept in a file only they can read.

    Raises:
        SinkError: it is none, or cannot be kept.
    """
    given, path = os.environ.get("FAUVE_TOKEN"), token_file()
    if given:
        return _checked(given, "FAUVE_TOKEN", "give another")
    if path is None:
        raise SinkError("there is no home to keep a token in; set HOME, or give a token in FAUVE_TOKEN")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Of two that start at the same time, one makes it.
        with contextlib.suppress(FileExistsError):
            made = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(made, "w") as file:
                file.write(secrets.token_urlsafe(12) + "\n")
        kept = path.read_text("utf-8", "replace").strip()
        if not kept:  # whoever makes it has not written it yet
            time.sleep(WRITTEN_WITHIN)
            kept = path.read_text("utf-8", "replace").strip()
    except OSError as error:
        raise SinkError(
            f"{path}: the token cannot be kept there: {error.strerror}; give one in FAUVE_TOKEN"
        ) from error
    return _checked(kept, str(path), "delete the file for another")


def _checked(token: str, origin: str, remedy: str) -> str:
    if re.fullmatch(r"[A-Za-z0-9_-]{8,}", token) is None:
        raise SinkError(f"{origin}: a token has 8 letters, digits, - or _ at least; {remedy}")
    return token


class Headers(Protocol):
    """Of a request, by name in any case."""

    def get(self, name: str, /) -> str | None:
        """The value of the header `name`."""


class Access:
    """Everybody on this machine; from any other, whoever has the token that is part of the address.

    Pages of other sites are refused, also when they are open in a browser on this machine.

    Args:
        host: that the page is served at.

    Raises:
        SinkError: as `token`.
    """

    def __init__(self, host: str) -> None:
        self._host = host
        self._token = "" if host in LOOPBACK else token()

    def url(self, port: int, path: str = "") -> str:
        """The address to give to a browser."""
        return f"http://{in_url(reachable(self._host))}:{port}/{path}" + (
            f"?token={self._token}" if self._token else ""
        )

    def allows(self, query: str, headers: Headers) -> bool:
        """Whether a request with this query and these headers is answered."""
        host = headers.get("Host") or ""
        origin = headers.get("Origin")
        try:
            if origin and urlsplit(origin).netloc != host:
                return False
            if self._token:
                given = parse_qs(query).get("token", [""])[0]
                return hmac.compare_digest(given.encode("utf-8", "replace"), self._token.encode())
            # Another name for this machine, such as a page of another site can give it.
            return (urlsplit(f"//{host}").hostname or "") in LOOPBACK
        except ValueError:  # addresses that are none
            return False
