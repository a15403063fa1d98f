"""Who may open the page: loopback or not, the token, encryption."""

from __future__ import annotations

import ipaddress
import secrets
from pathlib import Path

from FewShotSegLib.errors import ConfigError

SHORTEST_TOKEN = 16


def is_loopback(host: str) -> bool:
    """Whether only this computer can reach a server that listens there."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_access(host: str, token: str, certificate: Path | None, key: Path | None) -> None:
    """Refuse what would leave the door open.

    Raises:
        ConfigError: other computers can reach the page and no token was chosen, a token that is too short, or a
            certificate without its key.
    """
    if not is_loopback(host) and not token:
        raise ConfigError(
            f"The page would be open to other computers at {host}, without a token of yours",
            f"--token with at least {SHORTEST_TOKEN} characters",
            "choose a token, keep it secret, and give it to the people who may use the page; " + tls_advice(certificate),
        )
    if token and len(token) < SHORTEST_TOKEN:
        raise ConfigError(f"A token of {len(token)} characters", f"at least {SHORTEST_TOKEN}", "choose a longer one")
    missing = [str(path) for path in (certificate, key) if path is not None and not Path(path).is_file()]
    if (certificate is None) != (key is None) or missing:
        found = f"{missing[0]} does not exist" if missing else "A certificate without its key, or a key without its certificate"
        raise ConfigError(found, "both --certificate and --key, two PEM files", "give both, or neither")


def tls_advice(certificate: Path | None) -> str:
    """What is needed so that scans and token travel encrypted; "" when they do."""
    if certificate is not None:
        return ""
    return (
        "give --certificate and --key (PEM files), or put a server that speaks TLS (nginx, Caddy, Apache; it must pass WebSockets"
        " on and keep the Host header) in front of a page on 127.0.0.1: without TLS everybody on the network can read the scans"
    )


def same_secret(given: str | None, expected: str) -> bool:
    """Compare in a time that tells nothing about where they differ."""
    return given is not None and secrets.compare_digest(given.encode(), expected.encode())


def same_origin(origin: str | None, host: str | None) -> bool:
    """Whether a request comes from this very page: no Origin header (not a browser's cross-site request), or this host."""
    return origin is None or (host is not None and origin.split("://", 1)[-1] == host)


def address(host: str, port: int, token: str, https: bool) -> str:
    """What to open in the browser."""
    shown = "127.0.0.1" if host in ("0.0.0.0", "::", "") else host
    shown = f"[{shown}]" if ":" in shown else shown
    return f"{'https' if https else 'http'}://{shown}:{port}/?token={token}"
