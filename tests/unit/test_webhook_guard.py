import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.errors import ConfigurationError
from postroom.transports.webhook_guard import AddressGuard, embedded, read_networks

GUARD = AddressGuard()

PRIVATE = [
    *("0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "100.100.100.200", "127.0.0.1", "127.255.255.254"),
    *("168.63.129.16", "169.254.169.254", "169.254.170.2", "172.16.0.1", "172.31.255.255", "192.0.0.192"),
    *("192.0.2.1", "192.168.1.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.1.1.1"),
    *("240.0.0.1", "255.255.255.255"),
    *(
        "::",
        "::1",
        "::7f00:1",
        "64:ff9b:1::1",
        "100::1",
        "2001:db8::1",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
    ),
    *("fe80::1%eth0", "fec0::1", "ff02::1", "4000::1", "::ffff:0:7f00:1"),
]
PUBLIC = [
    *("1.1.1.1", "8.8.8.8", "100.63.255.255", "100.128.0.1", "172.15.255.255", "172.32.0.1", "168.63.129.17"),
    *("2606:4700:4700::1111", "2a00:1450:4001:81b::200e", "::ffff:8.8.8.8", "64:ff9b::808:808"),
    "2002:808:808::1",
]
PRIVATE_V4 = st.one_of(
    *(
        st.ip_addresses(v=4, network=each)
        for each in ("10.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "192.168.0.0/16")
    )
)


@pytest.mark.parametrize("address", PRIVATE)
def test_refused(address: str) -> None:
    assert GUARD.refusal(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_permitted(address: str) -> None:
    assert GUARD.refusal(address) is None


def test_metadata_addresses_are_called_by_their_name() -> None:
    assert GUARD.refusal("169.254.169.254") == "a cloud metadata address"
    assert GUARD.refusal("::ffff:169.254.169.254") == (
        "a cloud metadata address behind an IPv6 form, 169.254.169.254"
    )


@given(PRIVATE_V4)
def test_no_ipv6_form_hides_a_private_address(address: ipaddress.IPv4Address) -> None:
    number = int(address)
    forms = [
        ipaddress.IPv6Address(0xFFFF << 32 | number),  # mapped
        ipaddress.IPv6Address(number),  # compatible
        ipaddress.IPv6Address(int(ipaddress.IPv6Address("64:ff9b::")) | number),  # NAT64
        ipaddress.IPv6Address(0x2002 << 112 | number << 80 | 1),  # 6to4
        ipaddress.IPv6Address(0x2001 << 112 | 0x01010101 << 64 | (~number & 0xFFFF_FFFF)),  # Teredo client
    ]
    assert all(GUARD.refusal(str(form)) for form in forms)
    assert embedded(forms[0]) == (address,)


@given(st.ip_addresses())
def test_every_address_is_judged_and_private_ones_only_by_exception(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    if GUARD.refusal(str(address)) is None:
        assert address.is_global or embedded(address)
        assert not any((address.is_loopback, address.is_link_local, address.is_multicast))
    assert AddressGuard(allow_private=True).refusal(str(address)) is None


def test_allowed_networks_pass_and_nothing_else() -> None:
    guard = AddressGuard(allow_networks=read_networks(["10.1.0.0/16", "::1"]))
    assert guard.refusal("10.1.2.3") is None
    assert guard.refusal("::ffff:10.1.2.3") is None
    assert guard.refusal("::1") is None
    assert guard.refusal("10.2.0.1")
    assert guard.refusal("::ffff:10.2.0.1")
    assert guard.refusal("127.0.0.1")


@pytest.mark.parametrize("networks", [["10.0.0.0/33"], ["10.1.2.3/8"], ["intranet"], "10.0.0.0/8"])
def test_a_bad_network_is_refused(networks: list[str] | str) -> None:
    with pytest.raises(ConfigurationError, match="allow_networks"):
        read_networks(networks)
