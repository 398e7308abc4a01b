"""Where a broker is, written as a URL that never shows its password."""

from dataclasses import dataclass, field
from typing import Self
from urllib.parse import unquote, urlsplit

from protocol.errors import FedfleetError

DEFAULT_PORTS = {"mqtt": 1883, "mqtts": 8883}


class AddressError(FedfleetError):
    """The address of a broker cannot be understood."""


@dataclass(frozen=True, slots=True)
class BrokerAddress:
    """One broker.

    Attributes:
        host: name or address.
        port: 1 to 65535.
        tls: whether the connection is encrypted (`mqtts://`).
        user: name to log in with; None is nobody.
        password: never printed.
    """

    host: str
    port: int
    tls: bool = False
    user: str | None = None
    password: str | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, url: str) -> Self:
        """Reads `mqtt://[user:password@]host[:port]`, or `mqtts://…`; user and password percent-encoded.

        Raises:
            AddressError: it is something else. The text names no password.
        """
        try:
            parts = urlsplit(url)
            port = parts.port or DEFAULT_PORTS[parts.scheme]
        except (ValueError, KeyError):
            # Without the cause: its text may quote the URL.
            raise AddressError(_FIX) from None
        if not parts.hostname or parts.path.strip("/") or parts.query or parts.fragment:
            raise AddressError(_FIX)
        return cls(
            parts.hostname, port, parts.scheme == "mqtts", _decoded(parts.username), _decoded(parts.password)
        )

    def __str__(self) -> str:
        scheme = "mqtts" if self.tls else "mqtt"
        user = f"{self.user}@" if self.user else ""
        return f"{scheme}://{user}{self.host}:{self.port}"


_FIX = (
    "a broker's address is not understood; write mqtt://host:port or mqtts://host:port, with user:password@ "
    "before the host if the broker wants a login, special characters as %XX"
)


def _decoded(text: str | None) -> str | None:
    return None if text is None else unquote(text)
