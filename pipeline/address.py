"""Addresses of inputs and outputs, as others may read them."""

import re


def shown(address: str) -> str:
    """`address` without what may be a secret: of a URL the kind, host and port, and "…" for the rest.

    Stream keys are paths, tokens and passphrases queries, and passwords stand before the host.
    """
    kind, separator, rest = address.partition("://")
    if not separator:
        return address
    host = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if "@" in rest and "@" not in host:
        # Of a password with one of these in it, what is before that would look like the host.
        return f"{kind}://…"
    host = host.rpartition("@")[2]
    return f"{kind}://{host}" + ("/…" if rest.rstrip("/") != host else "")
