from collections.abc import Iterable, Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.address_book import Names
from postroom.addresses import Address, parse_address
from postroom.envelope_recipients import Recipient, Report
from postroom.errors import ConfigurationError, InvalidAddress, TooManyRecipients, UsageError
from postroom.expansion import MAX_DEPTH, Expanded, Expander, Lists, Source
from postroom.list_files import ListFile
from postroom.list_tables import Member

LISTS: Mapping[str, Any] = {
    "staff": ["ann@example.org", "bob@example.org", "board"],
    "board": ["carol@example.org", "Bob <bob@EXAMPLE.org>"],
    "empty": [],
    "boss": "carol@example.org",
    "office@example.org": ["staff", "sms:+15550100"],
    "self@example.org": ["self@example.org", "ann@example.org"],
    "everybody": ["office@example.org", "everybody", "dave@example.org"],
}


def expand(
    *to: Any, lists: Lists = LISTS, limit: int = 100, names: Names | None = None, max_depth: int = MAX_DEPTH
) -> Expanded:
    expander = Expander(lists, names=names, max_depth=max_depth)
    return expander.expand([(f"to[{i}]", item) for i, item in enumerate(to)], limit)


def addresses(expanded: Expanded) -> list[str]:
    return [address.value if address.type == "smtp" else str(address) for address in expanded.recipients]


def via(expanded: Expanded) -> list[tuple[str, ...]]:
    return [() if options is None else options.via for options in expanded.recipients.values()]


@pytest.mark.parametrize("name", ["staff", "list:staff", "LIST:Staff", " Staff ", Address("list", "staff")])
def test_a_list_is_named_by_its_name_or_as_an_address(name: Any) -> None:
    assert addresses(expand(name)) == ["ann@example.org", "bob@example.org", "carol@example.org"]


def test_members_stand_in_the_place_of_their_list_and_know_how_they_came_there() -> None:
    expanded = expand("zoe@example.org", "Office@example.org", "eve@example.org")
    assert addresses(expanded) == [
        "zoe@example.org", "ann@example.org", "bob@example.org", "carol@example.org", "sms:+15550100",
        "eve@example.org",
    ]  # fmt: skip
    staff = ("Office@example.org", "list:staff")
    assert via(expanded) == [(), staff, staff, (*staff, "list:board"), ("Office@example.org",), ()]
    assert expanded.given == ("smtp:zoe@example.org", "smtp:Office@example.org", "smtp:eve@example.org")


def test_the_first_mention_wins() -> None:
    expanded = expand(
        "board", Recipient("bob@example.org", report={Report.SUCCESS}), "carol@example.org", "staff"
    )
    assert addresses(expanded) == ["carol@example.org", "bob@example.org", "ann@example.org"]
    assert via(expanded) == [("list:board",), ("list:board",), ("list:staff",)]
    assert all(options is None or options.report is None for options in expanded.recipients.values())
    direct = expand(Recipient("bob@example.org", report={Report.SUCCESS}), "board")
    first = direct.recipients[parse_address("bob@example.org")]
    assert first is not None
    assert (first.report, first.via) == ("success", ())


def test_a_loop_ends_where_it_comes_back() -> None:
    assert addresses(expand("everybody"))[-1] == "dave@example.org"
    loop = {"a": ["b", "x@example.org"], "b": ["c"], "c": ["a", "y@example.org"]}
    assert addresses(expand("a", lists=loop)) == ["y@example.org", "x@example.org"]
    assert addresses(expand("list:b", lists=loop)) == ["x@example.org", "y@example.org"]


def test_a_list_with_an_address_of_its_own_may_deliver_there_too() -> None:
    assert addresses(expand("self@example.org")) == ["self@example.org", "ann@example.org"]
    ring = {"a@example.org": ["b@example.org"], "b@example.org": ["a@example.org", "c@example.org"]}
    assert addresses(expand("a@example.org", lists=ring)) == ["c@example.org"]


def test_one_member_needs_no_brackets() -> None:
    assert addresses(expand("boss")) == ["carol@example.org"]


def test_nobody_is_left_by_empty_lists() -> None:
    expanded = expand("empty", "list:empty")
    assert (dict(expanded.recipients), expanded.lists) == ({}, ("list:empty",))


@pytest.mark.parametrize(
    ("to", "problem"),
    [
        ("list:nobody", "no list is called 'nobody'"),
        ("nobody", "no list and nobody is called that"),
        ("", "neither a type nor an @"),
        ("ann@", "malformed domain"),
        (5, "int is not an address"),
    ],
)
def test_what_is_not_known_is_refused(to: Any, problem: str) -> None:
    with pytest.raises(InvalidAddress, match=problem) as caught:
        expand("ann@example.org", to)
    assert caught.value.field == "to[1]"


def test_an_unknown_list_within_a_list_is_named_with_the_way_to_it() -> None:
    source = {"a": ["x@example.org", "list:b"], "b": ["y@example.org", "list:gone"]}
    with pytest.raises(InvalidAddress, match="no list is called 'gone', by way of list:a > list:b") as caught:
        expand("a", lists=source)
    assert caught.value.field == "to[0] (list:b, member 2)"


def test_a_malformed_member_of_a_callables_list_is_named() -> None:
    with pytest.raises(InvalidAddress, match="malformed domain") as caught:
        expand("a", lists=lambda address: ["x@", "y"] if address.type == "list" else None)
    assert caught.value.field == "to[0] (list:a, member 1)"


def test_what_is_said_of_a_list_is_said_of_its_members_unless_they_have_more_to_say() -> None:
    lists: dict[str, list[Member]] = {
        "a": ["x@example.org", Recipient("y@example.org", report=set(), alternatives=["sms:+15550100"])]
    }
    expanded = expand(
        Recipient("a", report={Report.DELAY, Report.SUCCESS}, orcpt="rfc822;a@example.org"), lists=lists
    )
    x, y = expanded.recipients.values()
    assert x is not None
    assert y is not None
    assert (x.report, x.orcpt, x.via) == ("delay,success", "rfc822;a@example.org", ("list:a",))
    assert (y.report, y.orcpt, y.alternatives) == ("", "rfc822;a@example.org", (Address("sms", "+15550100"),))


def test_a_member_with_an_original_recipient_of_its_own_keeps_it() -> None:
    lists: dict[str, list[Member]] = {"a": [Recipient("x@example.org", orcpt="rfc822;x@example.org")]}
    (options,) = expand(Recipient("a", orcpt="rfc822;a@example.org"), lists=lists).recipients.values()
    assert options is not None
    assert options.orcpt == "rfc822;x@example.org"


def test_a_list_has_no_alternatives() -> None:
    with pytest.raises(UsageError, match="list:staff is a distribution list") as caught:
        expand(Recipient("staff", alternatives=["x@example.org"]))
    assert caught.value.field == "to[0].alternatives"


# Sources


def test_callables_are_asked_for_every_address() -> None:
    asked: list[str] = []

    def lookup(address: Address) -> Iterable[str] | None:
        asked.append(str(address))
        return iter(["ann@example.org"]) if address.value == "staff" else None

    assert addresses(expand("staff", "bob@example.org", lists=lookup)) == [
        "ann@example.org",
        "bob@example.org",
    ]
    assert asked == ["list:staff", "smtp:ann@example.org", "smtp:bob@example.org"]


def test_what_a_callable_raises_goes_to_the_submitter() -> None:
    def lookup(address: Address) -> None:
        raise ConnectionError(str(address))

    with pytest.raises(ConnectionError, match=r"smtp:ann@example\.org"):
        expand("ann@example.org", lists=lookup)


def test_what_a_callable_returns_must_be_addresses() -> None:
    with pytest.raises(UsageError, match=r"int is not what is on ann@example\.org"):
        expand("ann@example.org", lists=lambda _: 5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def test_the_first_source_that_knows_a_list_wins(tmp_path: Path) -> None:
    file = tmp_path / "lists"
    file.write_text("a: x@example.org\nb: y@example.org\n")
    sources: list[Source] = [
        {"a": "z@example.org"},
        ListFile(file),
        lambda address: [] if address.value == "b" else None,
    ]
    assert addresses(expand("a", "b", lists=sources)) == ["z@example.org", "y@example.org"]
    assert addresses(expand("a", lists=file)) == ["x@example.org"]


@pytest.mark.parametrize(
    ("lists", "problem"),
    [
        ({"a": ["x@"]}, r"lists\['a'\]\[0\]"),
        ({"a": 5}, "int is not what is on a list"),
        ({"a@": []}, r"lists\['a@'\]"),
        ({"a": [], "list:A": []}, "another list is called that"),
        (5, "int is no source"),
        ("lists", "str is no source"),
        ([5], "int is no source"),
    ],
)
def test_mistakes_in_lists_show_at_once(lists: Any, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        Expander(lists)


def test_dictionaries_are_copied() -> None:
    lists = {"a": ["x@example.org"]}
    expander = Expander(lists)
    lists["a"].append("y@example.org")
    lists.clear()
    assert len(expander.expand([("to", "a")], 9).recipients) == 1


# The address book


def test_names_are_looked_up_when_no_list_has_them() -> None:
    names = {"Ann Other": "ann@example.org", "staff": "wrong@example.org", "Crew": "staff"}
    with pytest.raises(ConfigurationError, match=r"names\['Crew'\]"):
        expand("staff", names=names)
    del names["Crew"]
    expanded = expand("ann  OTHER", "staff", names=names)
    assert addresses(expanded)[0] == "ann@example.org"
    assert "wrong@example.org" not in addresses(expanded)


def test_names_may_be_those_of_lists_with_addresses() -> None:
    assert addresses(expand("Office", names={"office": "office@example.org"}))[0] == "ann@example.org"


def test_a_name_of_several_is_ambiguous() -> None:
    def ask(name: str) -> list[str]:
        return [f"{name.lower()}{n}@example.org" for n in range(4)]

    with pytest.raises(InvalidAddress, match=r"'Ann' is ambiguous \(ann0@example.org, .*, …\)"):
        expand("Ann", names=ask)
    assert addresses(expand("Ann", names=lambda name: [ask(name)[0]])) == ["ann0@example.org"]
    with pytest.raises(InvalidAddress, match="nobody is called that"):
        expand("Ann", names=lambda _: [])


@pytest.mark.parametrize("names", [5, {"a": 5}, {"a": "a@x", "A ": "b@x"}])
def test_what_is_no_address_book(names: Any) -> None:
    with pytest.raises(ConfigurationError):
        Expander(names=names)


# Limits


def test_the_limit_counts_addresses_after_expansion() -> None:
    assert len(expand("staff", "ann@example.org", limit=3).recipients) == 3
    with pytest.raises(TooManyRecipients, match="names more than 2 recipients"):
        expand("staff", limit=2)


def test_an_endless_list_is_read_no_further_than_the_limit() -> None:
    numbers = count()

    def endless(address: Address) -> Iterator[str] | None:
        return (f"{n}@example.org" for n in numbers) if address.type == "list" else None

    with pytest.raises(TooManyRecipients):
        expand("a", lists=endless, limit=10)
    assert next(numbers) == 11


def test_an_endless_list_of_the_same_ends_too() -> None:
    def endless(address: Address) -> Iterator[str] | None:
        return ("ann@example.org" for _ in count()) if address.type == "list" else None

    with pytest.raises(TooManyRecipients, match="more members than can be looked at"):
        expand("a", lists=endless)


def test_endless_nesting_ends() -> None:
    def deeper(address: Address) -> list[str] | None:
        return [f"list:{address.value}a"] if address.type == "list" else None

    with pytest.raises(UsageError, match="nested more than 7 deep"):
        expand("a", lists=deeper, max_depth=7)


def test_as_deep_as_allowed() -> None:
    lists: dict[str, list[str]] = {f"l{n}": [f"l{n + 1}"] for n in range(7)} | {"l7": ["ann@example.org"]}
    assert len(expand("l1", lists=lists, max_depth=7).recipients) == 1
    with pytest.raises(UsageError, match="nested more than 7 deep"):
        expand("l0", lists=lists, max_depth=7)


# Any graph

NAMES = [*"abcdef", "g@example.org", "h@example.org"]
PEOPLE = [f"{name}@example.com" for name in "pqrst"]
GRAPH = st.dictionaries(
    st.sampled_from(NAMES),
    st.lists(st.sampled_from([*(f"list:{name}" for name in "abcdef"), *NAMES[6:], *PEOPLE])),
)


def reference(to: list[str], graph: Mapping[str, list[str]]) -> list[str]:
    """Depth first by recursion; a list that was begun contributes nothing more, a direct mention of itself does."""
    begun: set[str] = set()
    found: list[str] = []

    def walk(item: str, inside: str) -> None:
        name = item.removeprefix("list:")
        if name in graph and (name != inside or "@" not in name):
            if name not in begun:
                begun.add(name)
                for member in graph[name]:
                    walk(member, name)
        elif item not in found:
            found.append(item)

    for item in to:
        walk(item, "")
    return found


@given(
    GRAPH,
    st.lists(st.sampled_from([*(f"list:{name}" for name in "abcdef"), *NAMES[6:], *PEOPLE]), min_size=1),
)
def test_any_graph_of_lists_is_expanded_once_in_order(graph: dict[str, list[str]], to: list[str]) -> None:
    closed = {name: graph.get(name, []) for name in "abcdef"} | {
        name: members for name, members in graph.items() if "@" in name
    }
    expanded = expand(*to, lists=closed)
    assert addresses(expanded) == reference(to, closed)
    for address, options in expanded.recipients.items():
        if options is None:
            assert str(address).removeprefix("smtp:") in to
        else:
            # Every step of the way is a list with the next one on it.
            way = [name.removeprefix("list:") for name in options.via]
            assert options.via[0] in to
            for outer, inner in zip(way, [*way[1:], address.value], strict=True):
                assert inner in {member.removeprefix("list:") for member in closed[outer]}
            assert len(set(way)) == len(way)
