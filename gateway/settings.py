"""Settings of the gateway. Loading and validation: `shared/process/settings.py`."""

from ipaddress import IPv6Network, ip_network
from typing import Annotated
from urllib.parse import urlsplit

import msgspec

from gateway.origins import origin_problems
from shared.process.settings import Count, Port, Seconds, Settings, parts_of, url_problems

SECRET_MIN_BYTES = 32
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class GatewaySettings(Settings, frozen=True, kw_only=True):
    """Settings of one gateway process.

    At least one of `jwt_secret`, `jwt_public_key_file` and `jwt_jwks_url` must be set. Several processes may share
    `gateway_port`.
    """

    gateway_host: str = "0.0.0.0"  # noqa: S104 - clients come from other hosts
    gateway_port: Port = 8080
    admin_port: Port = 9100
    jwt_secret: str | None = None
    jwt_public_key_file: str | None = None
    jwt_jwks_url: str | None = None
    jwt_jwks_refresh_s: Seconds = 300.0
    jwt_algorithms: tuple[str, ...] = ()
    jwt_audience: str | None = None
    jwt_issuer: str | None = None
    allowed_origins: tuple[str, ...] = ()
    trusted_proxies: tuple[str, ...] = ()
    max_connections: Count = 10_000
    max_connections_per_ip: Annotated[int, msgspec.Meta(ge=0, le=1_000_000_000)] = 0  # 0: no limit
    max_connections_per_user: Count = 20
    max_message_bytes: Count = 65_536
    compression: bool = False
    max_subscriptions: Count = 200
    max_symbols: Count = 200
    rate_limit_messages_per_minute: Count = 100
    rate_signals_per_minute: Count = 300
    rate_subscribes_per_minute: Count = 300
    rate_reads_per_minute: Count = 600
    connection_timeout_s: Seconds = 60.0
    heartbeat_interval_s: Seconds = 30.0
    auth_timeout_s: Seconds = 10.0
    dev_mode: bool = False

    @property
    def jwt_secrets(self) -> tuple[str, ...]:
        """Return the shared secrets: all verify, and the first signs in DEV_MODE."""
        return parts_of(self.jwt_secret or "")

    def problems(self) -> list[str]:
        """Return every problem with the settings, one line each."""
        found = super().problems()
        if not self.jwt_secrets and self.jwt_public_key_file is None and self.jwt_jwks_url is None:
            found.append(
                "JWT_SECRET: is not set, and neither is JWT_PUBLIC_KEY_FILE or JWT_JWKS_URL; tokens cannot be verified"
            )
        for number, secret in enumerate(self.jwt_secrets, 1):
            if len(secret.encode()) < SECRET_MIN_BYTES:
                which = f"secret {number} of {len(self.jwt_secrets)}"
                found.append(f"JWT_SECRET: {which} must have at least {SECRET_MIN_BYTES} bytes (RFC 7518, 3.2)")
        found += [f"ALLOWED_ORIGINS: {problem}" for problem in origin_problems(self.allowed_origins)]
        for text in self.trusted_proxies:
            try:
                network = ip_network(text)
            except ValueError as error:
                found.append(f"TRUSTED_PROXIES: {error}")
                continue
            if isinstance(network, IPv6Network) and network.network_address.ipv4_mapped is not None:
                found.append(f"TRUSTED_PROXIES: {text} never matches: write the IPv4 address or network")
        if self.jwt_jwks_url is not None:
            found += self._jwks_problems(self.jwt_jwks_url)
        return found

    def _jwks_problems(self, url: str) -> list[str]:
        """Return the problems of the key set's URL.

        Its response decides which tokens are valid, so it must use TLS unless it is local or `DEV_MODE` is on.
        """
        found = url_problems("JWT_JWKS_URL", url, {"http", "https"})
        if not found:
            parts = urlsplit(url)
            if parts.scheme == "http" and not (self.dev_mode or parts.hostname in LOOPBACK):
                found.append("JWT_JWKS_URL: must start with https:// unless it is on this host")
            if parts.username is not None or parts.password is not None:
                found.append("JWT_JWKS_URL: must not carry a user or a password")
        if self.jwt_public_key_file is not None:
            found.append("JWT_JWKS_URL: cannot be set together with JWT_PUBLIC_KEY_FILE")
        return found
