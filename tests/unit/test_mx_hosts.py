"""Which hosts take mail for a domain, in which order, and what it means when there is none."""

import random
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.outcomes import Deferred, Failed, Reply
from postroom.transports.mx_hosts import (
    MAX_ADDRESSES,
    Exchanger,
    Host,
    Trouble,
    addresses_of,
    hosts_of,
    ordered,
    read_exchangers,
    unreachable,
)
from postroom.transports.mx_lookup import LookupFailed, NoSuchDomain, Question
from postroom.transports.webhook_guard import AddressGuard

ANYWHERE = AddressGuard(allow_private=True)
PUBLIC = AddressGuard()
OWN = frozenset({"mail.example.com", "mx.example.com"})

Zone = Mapping[tuple[str, str], Sequence[str] | Exception]


class Names:
    """A DNS made of a mapping; what is not in it has no records if the name is there, else does not exist."""

    def __init__(self, zone: Zone) -> None:
        self.zone = zone

    def __call__(self, name: str, question: Question) -> Sequence[str]:
        found = self.zone.get((name, question))
        if isinstance(found, Exception):
            raise found
        if found is None and not any(known == name for known, _ in self.zone):
            raise NoSuchDomain(f"{name}: no such domain")
        return found or ()


def as_is(names: list[str]) -> None:
    del names


def hosts(domain: str, zone: Zone) -> tuple[Host, ...] | Failed | Deferred:
    return hosts_of(domain, Names(zone), OWN, as_is)


def status_of(found: object) -> str:
    assert isinstance(found, Failed | Deferred)
    return found.reply.status


def test_records_are_read_and_nonsense_is_left_out() -> None:
    records = ["10 MX1.Example.ORG.", "0 .", "x mx2.example.org.", "20", "", "5 192.0.2.1."]
    assert read_exchangers(records) == [
        Exchanger(10, "mx1.example.org"),
        Exchanger(0, ""),
        Exchanger(5, "192.0.2.1"),
    ]


def test_by_preference_and_shuffled_among_equals() -> None:
    zone = {("d", "MX"): ["20 c.", "10 a.", "10 b.", "30 a."]}
    found = hosts_of("d", Names(zone), OWN, lambda names: names.reverse())
    assert found == (Host("b"), Host("a"), Host("c"))


exchangers = st.lists(
    st.builds(Exchanger, st.integers(0, 5), st.sampled_from(["", "a", "b", "c", "mail.example.com"])),
    min_size=1,
)


@given(exchangers, st.integers())
def test_nobody_is_asked_twice_nor_after_ourselves(given: list[Exchanger], seed: int) -> None:
    found = ordered(given, "d", OWN, random.Random(seed).shuffle)  # noqa: S311 - no secret
    ours = min((each.preference for each in given if each.name in OWN), default=99)
    before = {each.name for each in given if each.name and each.preference < ours}
    if isinstance(found, Failed):
        assert not before
        assert found.reply.status == ("5.4.6" if ours < 99 else "5.1.10")
        return
    assert sorted(found) == sorted(before)
    best = {name: min(each.preference for each in given if each.name == name) for name in found}
    assert [best[name] for name in found] == sorted(best.values())


def test_equals_come_in_every_order() -> None:
    equal = [Exchanger(10, name) for name in "abc"]
    assert len({ordered(equal, "d", OWN, random.Random(seed).shuffle) for seed in range(100)}) == 6  # noqa: S311


@pytest.mark.parametrize(
    ("domain", "zone", "status"),
    [
        ("gone.example", {}, "5.1.2"),
        ("d", {("d", "MX"): ["0 ."]}, "5.1.10"),
        ("d", {("d", "MX"): ["10 mx.example.com."]}, "5.4.6"),
        ("d", {("d", "MX"): ["10 MX.example.COM.", "20 other."]}, "5.4.6"),
        ("mail.example.com", {("mail.example.com", "A"): ["192.0.2.1"]}, "5.4.6"),
        ("d", {("d", "MX"): LookupFailed("SERVFAIL")}, "4.4.3"),
        ("[x400:whatever]", {}, "5.1.2"),
        ("[192.0.2.300]", {}, "5.1.2"),
        ("", {}, "5.1.3"),
    ],
)
def test_why_there_are_none(domain: str, zone: Zone, status: str) -> None:
    found = hosts(domain, zone)
    assert status_of(found) == status
    if isinstance(found, Deferred):
        assert found.destination_down


def test_the_domain_itself_stands_in_for_missing_exchangers() -> None:
    assert hosts("d", {("d", "A"): ["192.0.2.1"]}) == (Host("d", implicit=True),)


@pytest.mark.parametrize(
    ("literal", "address"),
    [
        ("[192.0.2.1]", "192.0.2.1"),
        ("[IPv6:2001:db8::1]", "2001:db8::1"),
        ("[ipv6:2001:DB8::1]", "2001:db8::1"),
    ],
)
def test_address_literals_need_no_dns(literal: str, address: str) -> None:
    host = Host(address, address)
    assert hosts(literal, {}) == (host,)
    assert addresses_of(host, Names({}), ANYWHERE) == (address,)


def addresses(
    zone: Zone, guard: AddressGuard = ANYWHERE, **more: tuple[int, ...]
) -> tuple[str, ...] | Trouble:
    return addresses_of(Host("h"), Names(zone), guard, **more)


SIX, FOUR = [f"2001:db8::{n}" for n in range(1, 4)], [f"192.0.2.{n}" for n in range(1, 4)]


def test_families_take_turns() -> None:
    zone = {("h", "AAAA"): SIX, ("h", "A"): FOUR}
    assert addresses(zone) == (SIX[0], FOUR[0], SIX[1], FOUR[1])
    assert MAX_ADDRESSES == 4
    assert addresses(zone, families=(4,)) == tuple(FOUR)
    assert addresses({("h", "A"): FOUR[:1]}) == (FOUR[0],)


def test_one_family_that_is_known_does() -> None:
    assert addresses({("h", "AAAA"): LookupFailed("x"), ("h", "A"): FOUR}) == tuple(FOUR)


def test_private_addresses_are_left_out() -> None:
    zone = {("h", "AAAA"): ["::1"], ("h", "A"): ["10.1.1.1", "8.8.8.8"]}
    assert addresses(zone, PUBLIC) == ("8.8.8.8",)


@pytest.mark.parametrize(
    ("zone", "more", "final", "status", "said"),
    [
        ({}, {}, True, "5.4.4", "no address"),
        ({("h", "MX"): []}, {}, True, "5.4.4", "no address"),
        ({("h", "A"): ["127.0.0.1"]}, {"guard": PUBLIC}, True, "5.4.4", "loopback"),
        ({("h", "AAAA"): ["::ffff:10.0.0.1"]}, {"guard": PUBLIC}, True, "5.4.4", "private"),
        ({("h", "AAAA"): SIX}, {"families": (4,)}, True, "5.4.4", "source address"),
        ({("h", "AAAA"): LookupFailed("x"), ("h", "A"): []}, {}, False, "4.4.3", "address not found"),
        # Who is behind the family that is not known may be allowed.
        (
            {("h", "AAAA"): LookupFailed("x"), ("h", "A"): ["10.0.0.1"]},
            {"guard": PUBLIC},
            False,
            "4.4.3",
            "address not found",
        ),
    ],
)
def test_why_a_host_has_no_address(
    zone: Zone, more: dict[str, Any], final: bool, status: str, said: str
) -> None:
    options: dict[str, Any] = {"guard": ANYWHERE, **more}
    found = addresses_of(Host("h"), Names(zone), **options)
    assert isinstance(found, Trouble)
    assert (found.final, found.reply.status, found.reply.remote) == (final, status, "h")
    assert said in found.reply.text


def test_a_domain_without_anything_takes_no_mail() -> None:
    found = addresses_of(Host("h", implicit=True), Names({("h", "TXT"): ["x"]}), ANYWHERE)
    assert isinstance(found, Trouble)
    assert (found.final, found.reply.status) == (True, "5.1.2")


GONE = Trouble(Reply("no address", "5.4.4", None, "a"), final=True)
NEVER = Trouble(Reply("takes no mail", "5.3.2", 521, "b"), final=True)
DOWN = Trouble(Reply("connection refused", "4.4.1", None, "c[192.0.2.1]:25"))
BUSY = Trouble(Reply("busy", "4.3.2", 421, "d"), retry_after=60.0)


def test_all_final_fails_and_anything_else_is_put_off() -> None:
    assert unreachable("x.example", [GONE], complete=True) == Failed(GONE.reply)
    failed = unreachable("x.example", [GONE, NEVER], complete=True)
    assert isinstance(failed, Failed)
    assert (failed.reply.code, failed.reply.status) == (521, "5.3.2")
    assert "a: 5.4.4 no address" in failed.reply.text
    for troubles in ([DOWN, GONE], [GONE, DOWN], [NEVER, DOWN]):
        deferred = unreachable("x.example", troubles, complete=True)
        assert isinstance(deferred, Deferred)
        assert deferred.destination_down
        assert (deferred.reply.remote, deferred.reply.status) == ("c[192.0.2.1]:25", "4.4.1")
        assert "x.example" in deferred.reply.text


def test_hosts_that_were_not_tried_may_be_better() -> None:
    deferred = unreachable("x.example", [GONE], complete=False)
    assert isinstance(deferred, Deferred)
    assert deferred.reply.status == "4.4.4"


def test_the_soonest_that_somebody_asked_for_counts() -> None:
    deferred = unreachable("x.example", [DOWN, BUSY], complete=True)
    assert isinstance(deferred, Deferred)
    assert (deferred.retry_after, deferred.reply.code) == (60.0, 421)
