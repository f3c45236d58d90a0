"""The address of a client, behind proxies or not, and its key in the per-address limit. Pure."""

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Network = IPv4Network | IPv6Network


def networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """Parse addresses and CIDR ranges. Raises ValueError."""
    return tuple(ip_network(text) for text in texts)


def client_address(peer: str, forwarded: Sequence[str], trusted: Sequence[Network]) -> str:
    """Return the client's address: the peer's, or the rightmost untrusted hop if the peer is a trusted proxy.

    Hops to the left of the first untrusted address were written by that client and are ignored.
    """
    address = _address_of(peer) or peer
    hops = [hop.strip() for value in forwarded for hop in value.split(",")]
    while hops and is_within(address, trusted):
        hop = _address_of(hops.pop())
        if hop is None:
            break
        address = hop
    return address


def is_loopback(peer: str, forwarded: Sequence[str]) -> bool:
    """Return whether a request comes from this machine: the peer, and every hop that a proxy names."""
    hops = [peer, *(hop.strip() for value in forwarded for hop in value.split(","))]
    return all((address := _address_of(hop)) is not None and ip_address(address).is_loopback for hop in hops)


def is_loopback_host(host: str) -> bool:
    """Return whether a `Host` header names this machine.

    Guards against DNS rebinding: a foreign page's host name may resolve to this machine, but its requests still carry
    that name.
    """
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() else host
    return name.lower() == "localhost" or is_loopback(host, ())


def counted_address(address: str) -> str:
    """Return the key that an address is counted under: an IPv4 address, or the /64 of an IPv6 address.

    One IPv6 customer usually has a /64.
    """
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, IPv6Address):
        return str(ip_network((int(parsed) >> 64 << 64, 64)))
    return address


def _address_of(text: str) -> str | None:
    """Return the address in `1.2.3.4`, `1.2.3.4:567`, `::1` or `[::1]:567`, or None."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        parsed = ip_address(text)
    except ValueError:
        return None
    mapped = parsed.ipv4_mapped if isinstance(parsed, IPv6Address) else None
    return str(mapped or parsed)


def is_within(address: str, ranges: Sequence[Network]) -> bool:
    """Return whether an address is within one of the ranges."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    return any(parsed in network for network in ranges)
