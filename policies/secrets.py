"""Keys and passwords: checked before they are sent, and kept out of whatever is printed."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from urllib.parse import unquote, urlsplit, urlunsplit

from adaptive_ttc.errors import ConfigError

Credentials = tuple[str, str]
"""A user's name and password, for HTTP's basic authentication."""

_HIDDEN = "***"
_SENDABLE = re.compile(r"[!-~]+")


def check_key(key: str) -> None:
    """ConfigError, which does not show it, for an API key that cannot be sent in a header as it stands."""
    if not _SENDABLE.fullmatch(key):
        raise ConfigError(
            "api_key holds a blank, a line break or another character that no key has and no header can carry; "
            "strip it, as after reading it from a file"
        )


def split_credentials(url: str, *, example: str) -> tuple[str, Credentials | None]:
    """A server's URL without user and password, and these. ConfigError if it is none; it shows no password."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:  # a bracket without its fellow, or a port that is no number
        parts, port = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment or port == 0:
        raise ConfigError(f"{without_password(url)!r} is no base URL; give one such as {example}")
    user, at, host = parts.netloc.rpartition("@")
    clean = urlunsplit((parts.scheme, host, parts.path, "", ""))
    if not at:
        return clean, None
    name, _, password = user.partition(":")
    return clean, (unquote(name), unquote(password))


def without_password(url: str) -> str:
    """A URL, or what was given for one, as it may be shown: without user, password and query."""
    scheme, slashes, rest = url.rpartition("://")
    shown = scheme + slashes + (f"{_HIDDEN}@" if "@" in rest else "") + rest.rpartition("@")[2]
    return shown.partition("?")[0]


def redacted(text: str, secrets: Iterable[str | Credentials | None]) -> str:
    """A text, such as what a server said, with every secret in it hidden."""
    for secret in secrets:
        if isinstance(secret, tuple):
            basic = base64.b64encode(":".join(secret).encode()).decode()
            text = text.replace(basic, _HIDDEN).replace(secret[1] or basic, _HIDDEN)
        elif secret:
            text = text.replace(secret, _HIDDEN)
    return text
