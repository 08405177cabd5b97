from dataclasses import replace
from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.addresses import Address, parse_address
from postroom.alternatives import Turn, turn_to_alternative
from postroom.errors import ConfigurationError
from postroom.options import RecipientOptions
from postroom.routing import PREPROCESS, Route, Router, plan

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


# Preprocessing


TYPES = st.frozensets(st.sampled_from(["smtp", "sms", "https", "*", "fax"]))


@given(ROUTES, TYPES, st.sampled_from(ADDRESSES))
def test_a_plan_begins_with_preprocessing_where_there_is_some_and_somebody_delivers(
    routes: list[Route], types: frozenset[str], address: Address
) -> None:
    router = Router(routes, types)
    names = plan(address, routes)
    staged = bool(names) and bool(types & {address.type, "*"})
    assert router.plan(address) == ((PREPROCESS,) if staged else ()) + names
    assert router.first(address) == (None if not names else PREPROCESS if staged else names[0])
    assert router.after(address, PREPROCESS) == (names[0] if names else None)
    assert PREPROCESS not in {router.after(address, name) for name in (*names, "gone", PREPROCESS)}


def test_no_transport_may_have_the_stages_name() -> None:
    with pytest.raises(ConfigurationError, match="preprocessing stage"):
        Router([Route("preprocess", frozenset({"smtp"}))])


# When the configuration changes

ANN = parse_address("ann@example.org")


def routes(*names: str) -> list[Route]:
    return [Route(name, frozenset({"smtp"})) for name in names]


NOBODY = frozenset[str]()


@pytest.mark.parametrize(
    ("now", "transport", "declined", "expected"),
    [
        ("ab", "a", "", None),
        ("ba", "a", "", "b"),
        ("xab", "a", "", "x"),
        ("b", "a", "", "b"),
        ("ab", "b", "a", None),
        ("xab", "b", "a", "x"),
        ("ba", "b", "a", None),
        ("ab", "b", "", "a"),
        ("a", "b", "a", ""),
        ("", "a", "", ""),
        ("ab", "a", "a", "b"),
    ],
)
def test_replanning(now: str, transport: str, declined: str, expected: str | None) -> None:
    planned = Router(routes(*now)).replan(ANN, transport, frozenset(declined))
    if expected is None:
        assert planned is None
    else:
        assert planned is not None
        assert planned.transport == (expected or None)
        assert planned.reason


def test_replanning_says_why() -> None:
    router = Router(routes("b", "a"))
    gone, behind = router.replan(ANN, "x", NOBODY), router.replan(ANN, "a", NOBODY)
    assert gone is not None
    assert behind is not None
    assert gone.reason == "x is not configured any more: goes to b"
    assert behind.reason == "a does not come first any more: goes to b"


def test_replanning_leaves_what_waits_for_preprocessing_and_never_goes_back_there() -> None:
    staged, plain = Router(routes("a"), {"smtp"}), Router(routes("a"))
    assert staged.replan(ANN, PREPROCESS, NOBODY) is None
    assert staged.replan(ANN, "a", NOBODY) is None
    assert staged.failover(ANN, PREPROCESS, NOBODY) is None
    planned = plain.replan(ANN, PREPROCESS, NOBODY)
    assert planned is not None
    assert planned.transport == "a"


@pytest.mark.parametrize(
    ("names", "transport", "declined", "expected"),
    [
        ("abc", "a", "", "b"),
        ("abc", "a", "b", "c"),
        ("abc", "b", "", "c"),
        ("abc", "c", "", None),
        ("ab", "a", "b", None),
        ("ab", "x", "", "a"),
        ("", "a", "", None),
    ],
)
def test_failover_goes_on_down_the_plan(
    names: str, transport: str, declined: str, expected: str | None
) -> None:
    planned = Router(routes(*names), {"*"}).failover(ANN, transport, frozenset(declined))
    assert (None if planned is None else planned.transport) == expected
    if planned is not None:
        assert planned.reason == f"{transport} is down: goes to {expected}"


SMALL = st.permutations("abcd").flatmap(
    lambda names: st.integers(0, 4).map(lambda count: Router(routes(*names[:count])))
)


@given(SMALL, st.frozensets(st.sampled_from("abcd")), st.sampled_from("abcde"))
def test_whoever_was_replanned_stays_there_and_never_meets_who_declined(
    later: Router, declined: frozenset[str], transport: str
) -> None:
    planned = later.replan(ANN, transport, declined)
    left = [name for name in later.plan(ANN) if name not in declined]
    if planned is None:
        assert left[0] == transport
    elif planned.transport is None:
        assert not left
    else:
        assert planned.transport == left[0]
        assert later.replan(ANN, planned.transport, declined) is None


@given(SMALL, st.frozensets(st.sampled_from("abcd")), st.sampled_from("abcde"))
def test_failing_over_again_and_again_ends_and_repeats_nobody(
    router: Router, declined: frozenset[str], transport: str
) -> None:
    visited = [transport]
    while (planned := router.failover(ANN, visited[-1], declined)) is not None:
        assert planned.transport is not None
        visited.append(planned.transport)
    assert len(set(visited)) == len(visited) <= 5
    assert not declined.intersection(visited[1:])


def test_the_digest_tells_routers_apart_that_plan_otherwise() -> None:
    base = [Route("a", frozenset({"smtp", "sms"}), ("*@x",)), Route("b", frozenset({"smtp"}))]
    digest = Router(base).digest()
    same = [Route("a", frozenset({"sms", "smtp"}), ("*@x",)), Route("b", frozenset({"smtp"}))]
    assert Router(same).digest() == digest
    for other in (
        base[::-1],
        base[:1],
        [Route("a", frozenset({"smtp"}), ("*@x",)), base[1]],
        [Route("a", frozenset({"smtp", "sms"}), ("*@y",)), base[1]],
        [Route("c", frozenset({"smtp", "sms"}), ("*@x",)), base[1]],
    ):
        assert Router(other).digest() != digest
    assert Router(base, {"smtp"}).digest() != digest


@given(ROUTES, ROUTES, st.sampled_from(ADDRESSES))
def test_equal_digests_are_equal_plans(one: list[Route], other: list[Route], address: Address) -> None:
    for routers in ((Router(one), Router(list(one))), (Router(one), Router(other))):
        first, second = routers
        assert first.digest() != second.digest() or first.plan(address) == second.plan(address)


# Alternatives


def test_turning_to_alternatives_passes_over_those_that_nobody_delivers_to() -> None:
    fax, sms = Address("fax", "1"), Address("sms", "+15550100")
    router = Router([*routes("a"), Route("text", frozenset({"sms"}))], {"sms"})
    options = RecipientOptions(alternatives=(fax, sms, fax), via=("list:x",), report="success")
    turn = turn_to_alternative(ANN, options, router)
    assert turn == Turn(sms, replace(options, alternatives=(fax,), original=ANN), PREPROCESS)
    assert turn is not None
    assert turn_to_alternative(sms, turn.options, router) is None
    assert turn_to_alternative(ANN, None, router) is None
    assert turn_to_alternative(ANN, RecipientOptions(), router) is None


def test_the_first_address_of_all_stays_the_original() -> None:
    options = RecipientOptions(alternatives=(Address("smtp", "c@x"),), original=Address("smtp", "a@x"))
    turn = turn_to_alternative(Address("smtp", "b@x"), options, Router(routes("a")))
    assert turn is not None
    assert turn.options == RecipientOptions(original=Address("smtp", "a@x"))
