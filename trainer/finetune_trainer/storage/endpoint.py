"""Refuses storage endpoints at link-local and metadata addresses.

A user of the cluster chooses the endpoint, and a pod sends the request. A user could choose the address of a metadata
service and read the node's credentials (SSRF). A name is checked by the addresses that it resolves to. Other private
addresses are allowed, because an in-cluster MinIO has one. A NetworkPolicy can restrict them.

A name can resolve to another address a moment later (DNS rebinding), and a server can redirect. So the clients of S3
and of the Hub check every connection too: the name before they connect, and the peer's address before they send
anything.
"""

import ipaddress
import socket
from urllib.parse import urlsplit

from finetune_trainer.contract.failure import FailureReason, TrainerError

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_METADATA_NAMES = {"metadata", "metadata.google.internal", "instance-data", "instance-data.ec2.internal"}
_METADATA_ADDRESSES: set[_Address] = {
    ipaddress.ip_address(address)
    for address in (
        "100.100.100.200",  # Alibaba Cloud
        "168.63.129.16",  # Azure's wire server
        "192.0.0.192",  # Oracle Cloud, older shapes
        "fd00:ec2::254",  # AWS over IPv6
        "fd20:ce::254",  # Google Cloud over IPv6
    )
}
_IPV4_IN_THE_LAST_BITS = (
    ipaddress.IPv6Network("::/96"),  # IPv4-compatible (RFC 4291, 2.5.5.1)
    ipaddress.IPv6Network("64:ff9b::/96"),  # NAT64 (RFC 6052)
    ipaddress.IPv6Network("64:ff9b:1::/48"),  # NAT64 of a network's own (RFC 8215), in its /96 form
)


def check_endpoint(endpoint: str) -> None:
    """Checks the URL and the addresses of a storage endpoint.

    A name that does not resolve is accepted: the connection fails later with a clearer message.

    Raises:
        TrainerError: INVALID_SPEC. The endpoint is refused.
    """
    try:
        parts = urlsplit(endpoint)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port, parts = None, None, urlsplit("")
    if not host or parts.scheme not in ("http", "https"):
        raise _refused(endpoint, "it must be http://host[:port] or https://host[:port]")
    if parts.username is not None or parts.password is not None:
        raise _refused(f"{parts.scheme}://…@{host}", "keys belong into the Secret of storage.secretRef")
    if (why := why_host_refused(host, port)) is not None:
        raise _refused(endpoint, why)


def why_host_refused(host: str, port: int | None) -> str | None:
    """Returns why no connection to a host is allowed; None if it is. A name that does not resolve is not refused.

    The resolver also reads 2852039166 and 0xa9fea9fe as addresses, and so does the S3 client.
    """
    if host.rstrip(".").lower() in _METADATA_NAMES:
        return "it is a cloud's metadata service"
    try:
        answers = socket.getaddrinfo(host, port or 443, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return None
    refusals = (why_address_refused(str(place[0])) for *_, place in answers)
    return next((why for why in refusals if why is not None), None)


def why_address_refused(text: str) -> str | None:
    """Returns why nothing may be sent to an IP address; None if it may."""
    given = ipaddress.ip_address(text.partition("%")[0])
    addresses: set[_Address] = {given}
    if isinstance(given, ipaddress.IPv6Address):
        addresses |= _embedded(given)
    for address in addresses:
        if address.is_link_local or address.is_multicast or address.is_unspecified or address in _METADATA_ADDRESSES:
            return f"{address} is a link-local, metadata or otherwise special address"
    return None


def _embedded(address: ipaddress.IPv6Address) -> set[ipaddress.IPv4Address]:
    """Returns the IPv4 addresses that an IPv6 address contains: IPv4-mapped, IPv4-compatible, NAT64, 6to4.

    A host or a router may send a packet to such an address on to the IPv4 address.
    """
    embedded = {address.ipv4_mapped, address.sixtofour}
    if any(address in network for network in _IPV4_IN_THE_LAST_BITS):
        embedded.add(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return {one for one in embedded if one is not None and not address.is_loopback and not address.is_unspecified}


def _refused(endpoint: str, why: str) -> TrainerError:
    return TrainerError(FailureReason.INVALID_SPEC, f"storage.endpoint {endpoint} is refused: {why}")
