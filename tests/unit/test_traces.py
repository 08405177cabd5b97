"""Finding an address in what was written about its mail."""

import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.addresses import Address, parse_address
from postroom.traces import Traces

ANN = Traces(parse_address("ann@example.org"), "erased:1")


def is_like(traces: Traces, text: str) -> bool:
    """Return whether SQLite would find a text, to be looked at more closely."""
    connection = sqlite3.connect(":memory:")
    try:
        return any(
            connection.execute("SELECT ? LIKE ? ESCAPE '\\'", (text, pattern)).fetchone()[0]
            for pattern in traces.likes
        )
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("text", "cleared"),
    [
        ("ann@example.org", "erased:1"),
        ("550 5.1.1 <Ann@Example.ORG>: unknown", "550 5.1.1 <erased:1>: unknown"),
        ("smtp:ann@example.org", "smtp:erased:1"),
        ("rfc822;ann@example.org", "rfc822;erased:1"),
        ("write to ann@example.org.", "write to erased:1."),
        ("bounce-ann=example.org@lists.example.net", "bounce-erased:1@lists.example.net"),
        ("GET /?to=%3Cann%40example.org%3E", "GET /?to=%3Cerased:1%3E"),
        ('{"original": "smtp:ann@example.org"}', '{"original": "smtp:erased:1"}'),
        ("ann@example.org,ann@example.org", "erased:1,erased:1"),
    ],
)
def test_it_is_found_however_it_is_written(text: str, cleared: str) -> None:
    assert is_like(ANN, f"before {text} after")
    assert ANN.in_text(text)
    assert ANN.in_octets(text.encode())
    assert ANN.cleared(text) == cleared
    assert not ANN.in_text(cleared)


@pytest.mark.parametrize(
    "text",
    [
        "", "joann@example.org", "jo.ann@example.org", "jo-ann@example.org", "ann+list@example.org",
        "list+ann@example.org", "ann@example.org.uk", "ann@example.organic", "ann@mail.example.org", "annexample.org",
    ],
)  # fmt: skip
def test_others_are_left_alone(text: str) -> None:
    assert not ANN.in_text(text)
    assert not ANN.in_octets(text.encode())
    assert ANN.cleared(text) == text


@pytest.mark.parametrize(
    "key", ["mail-ann@example.org-1", "ann@example.org_2026", "x+ann@example.org", "ann=example.org"]
)
def test_a_key_may_hold_it_in_any_way(key: str) -> None:
    assert ANN.in_key(key)
    assert not ANN.in_key(ANN.cleared_key(key))


def test_a_key_of_somebody_else_is_left_alone() -> None:
    assert not ANN.in_key("mail-joann@example.org-1")
    assert ANN.cleared_key("ann@example.organic") == "ann@example.organic"


def test_nothing_stays_nothing() -> None:
    assert not ANN.in_text(None)
    assert not ANN.in_key(None)
    assert ANN.cleared(None) is None
    assert ANN.cleared_key(None) is None


def test_a_tagged_address_is_found_as_orcpt_has_it() -> None:
    tagged = Traces(parse_address("ann+list@example.org"), "x")
    assert tagged.cleared("rfc822;ann+2Blist@example.org") == "rfc822;x"
    assert is_like(tagged, "rfc822;ann+2Blist@example.org")


def test_a_domain_is_found_in_its_own_script() -> None:
    traces = Traces(parse_address("ann@münchen.example"), "x")
    assert traces.address.value == "ann@xn--mnchen-3ya.example"
    assert traces.cleared("an ann@münchen.example, ann@xn--mnchen-3ya.example") == "an x, x"
    assert is_like(traces, "an ann@münchen.example")
    assert is_like(traces, "an ann@xn--mnchen-3ya.example")


def test_a_quoted_local_part_is_found_in_json_too() -> None:
    traces = Traces(parse_address('"odd one"@example.org'), "x")
    assert traces.cleared('said "odd one"@example.org') == "said x"
    assert traces.cleared('{"a": "smtp:\\"odd one\\"@example.org"}') == '{"a": "smtp:x"}'
    assert is_like(traces, '{"a": "smtp:\\"odd one\\"@example.org"}')


@pytest.mark.parametrize("text", ["sms:+15550100", "https://hooks.example.org/x?y=1"])
def test_other_types(text: str) -> None:
    address = parse_address(text)
    traces = Traces(address, "x")
    assert traces.is_of(address.type, address.value)
    assert traces.cleared(f"to {text}") == f"to {address.type}:x"
    assert is_like(traces, f"to {text}")
    assert not traces.in_text("sms:+155501009")


def test_rows_are_recognised_whatever_the_case() -> None:
    assert ANN.is_of("smtp", "Ann@example.org")
    assert not ANN.is_of("sms", "ann@example.org")
    assert not ANN.is_of("smtp", "ann@example.com")


@given(
    st.from_regex(r"[a-z0-9]{1,8}([.+-][a-z0-9]{1,5})?", fullmatch=True),
    st.text(max_size=30),
    st.text(max_size=30),
)
def test_whatever_stands_around_it_is_kept(local: str, before: str, after: str) -> None:
    address = Address("smtp", f"{local}@example.org")
    traces = Traces(address, "\N{SKULL}")
    cleared = traces.cleared(f"{before} <{address.value}> {after}")
    assert cleared is not None
    assert "<\N{SKULL}>" in cleared
    assert is_like(
        traces, f"{before} <{address.value}> {after}".replace("\0", "").encode("utf-8", "replace").decode()
    )
    assert not traces.in_text(cleared)
