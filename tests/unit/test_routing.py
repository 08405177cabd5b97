from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.addresses import Address, parse_address
from postroom.routing import Route, Router, plan

ADDRESSES = [
    parse_address(text)
    for text in (
        "ann@example.org",
        "bob@example.com",
        "bob@sub.example.org",
        "sms:+441234567",
        "sms:+15550100",
        "https://hooks.example.org/x",
        "x:y",
    )
]
PATTERNS = ["*@example.org", "smtp:ann@*", "*:+44*", "sms:*", "http*://*", "*", "b?b@*", "[ab]*@example.com"]
ROUTES = st.lists(
    st.builds(
        Route,
        st.uuids().map(str),
        st.frozensets(st.sampled_from(["smtp", "sms", "https"])),
        st.lists(st.sampled_from(PATTERNS), max_size=3).map(tuple[str, ...]),
    ),
    max_size=5,
)


def test_every_pattern_in_transport_order_comes_before_every_type() -> None:
    routes = [
        Route("relay", frozenset({"smtp"})),
        Route("ours", frozenset(), ("*@example.org",)),
        Route("ann", frozenset({"smtp"}), ("ann@*",)),
        Route("text", frozenset({"sms"})),
    ]
    assert plan(parse_address("ann@example.org"), routes) == ("ours", "ann", "relay")
    assert plan(parse_address("bob@example.org"), routes) == ("ours", "relay", "ann")
    assert plan(parse_address("bob@example.com"), routes) == ("relay", "ann")
    assert plan(parse_address("sms:+15550100"), routes) == ("text",)
    assert plan(parse_address("fax:1"), routes) == ()


@pytest.mark.parametrize(
    ("pattern", "text", "matches"),
    [
        ("*@example.org", "ann@Example.org", True),
        ("*@EXAMPLE.org", "ann@example.org", True),
        ("*@example.org", "ann@example.org.evil.example", False),
        ("*@example.org", "ann@notexample.org", False),
        ("*@example.org", "https://example.org/", False),
        ("*:+44*", "sms:+441234567", True),
        ("*:+44*", "sms:+15550100", False),
        ("https://hooks.example.org/*", "https://hooks.example.org/a/b", True),
        ("https://hooks.example.org/*", "https://hooksXexample.org/a", False),
        ("*@[[]IPv6:*]", "ann@[IPv6:::1]", True),
    ],
)
def test_patterns(pattern: str, text: str, matches: bool) -> None:
    assert Route("t", frozenset(), (pattern,)).matches_pattern(parse_address(text)) is matches


@given(ROUTES, st.sampled_from(ADDRESSES))
def test_the_plan_is_exactly_the_transports_that_match_each_once_patterns_first(
    routes: list[Route], address: Address
) -> None:
    def by_pattern(route: Route) -> bool:
        globs = (glob if ":" in glob else f"smtp:{glob}" for glob in route.patterns)
        return any(fnmatchcase(str(address), glob) for glob in globs)

    first = [route.transport for route in routes if by_pattern(route)]
    then = [route.transport for route in routes if address.type in route.address_types]
    expected = first + [name for name in then if name not in first]
    assert list(plan(address, routes)) == expected
    assert Router(routes).plan(address) == plan(address, routes)


@given(ROUTES, st.sampled_from(ADDRESSES))
def test_declining_walks_down_the_whole_plan_and_ends(routes: list[Route], address: Address) -> None:
    router = Router(routes)
    names = router.plan(address)
    walked: list[str] = []
    name = router.after(address, "a transport that is gone")
    while name is not None:
        walked.append(name)
        name = router.after(address, name)
    assert tuple(walked) == names


def test_types_that_recipients_invent_have_no_plan() -> None:
    router = Router([Route("relay", frozenset({"smtp"}))])
    assert router.plan(Address("fax", "1")) == ()
    assert router.after(Address("fax", "1"), "relay") is None
