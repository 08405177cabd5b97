"""Who may send to whom through a listener."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.errors import ConfigurationError
from postroom.receivers.listener_commands import Refused
from postroom.receivers.listener_policy import (
    Answer,
    Client,
    LocalPatterns,
    Relaying,
    Way,
    address_of,
    judge,
)

STRANGER = Client(ip="192.0.2.9")
KNOWN = Client(ip="192.0.2.9", authenticated=True)
NEIGHBOUR = Client(ip="127.0.0.1")
NO_SUCH = "550 5.1.1 No such recipient here"


def refusal(answer: Answer, client: Client, relaying: Relaying, *, auth: bool = False) -> str:
    with pytest.raises(Refused) as refused:
        judge(answer, client, relaying, auth=auth)
    return refused.value.reply


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("ann@example.org", True),
        ("ANN@Example.ORG", True),
        ("ann@sub.example.org", False),
        ("ann@exampleXorg", False),
        ("any@a.wild.example", True),
        ("any@wild.example", False),
        ("desk@one.example", True),
        ("desk+tag@one.example", NO_SUCH),
        ("ann@[192.0.2.1]", True),
        ("ann@xn--bcher-kva.example", True),
        ("ann@example.org.evil.example", False),
    ],
)
def test_patterns(address: str, expected: Answer) -> None:
    local = LocalPatterns(
        ["example.org", "*@*.wild.example", "desk@one.example", "*@[192.0.2.1]", "bücher.example"]
    )
    assert local(address) == expected


def test_no_pattern_makes_nothing_ours() -> None:
    assert LocalPatterns([])("ann@example.org") is False


@pytest.mark.parametrize("pattern", ["", "  ", "ann@", "ann@exa mple", "a@b@-"])
def test_a_pattern_that_fits_nothing_is_refused(pattern: str) -> None:
    with pytest.raises(ConfigurationError, match="local"):
        LocalPatterns([pattern])


@given(st.text(alphabet="abc.*?@[]+", max_size=20))
def test_patterns_never_match_another_domain(local_part: str) -> None:
    assert LocalPatterns(["example.org"])(f"{local_part}@elsewhere.example") is False


def test_ours_is_incoming_whoever_sends() -> None:
    for client in (STRANGER, KNOWN, NEIGHBOUR):
        assert judge(True, client, Relaying("never"), auth=True) is Way.INCOMING


def test_outgoing_is_for_those_who_may() -> None:
    authenticated = Relaying.of("authenticated", ["127.0.0.0/8"])
    assert judge(False, KNOWN, authenticated, auth=True) is Way.OUTGOING
    assert refusal(False, STRANGER, authenticated, auth=True).startswith("530 5.7.0 ")
    assert refusal(False, STRANGER, authenticated).startswith("550 5.7.1 ")
    assert refusal(False, NEIGHBOUR, authenticated).startswith("550 5.7.1 ")


def test_networks_may_submit_and_so_may_who_authenticates() -> None:
    networks = Relaying.of("networks", ["127.0.0.0/8", "2001:db8::/32"])
    for client in (NEIGHBOUR, KNOWN, Client(ip="2001:db8::5"), Client(ip="::ffff:127.0.0.1")):
        assert judge(False, client, networks, auth=False) is Way.OUTGOING
    for client in (STRANGER, Client(ip="::ffff:192.0.2.9"), Client(ip=""), Client(ip="nonsense")):
        assert refusal(False, client, networks).startswith("550 5.7.1 ")


def test_never_is_never() -> None:
    for client in (STRANGER, KNOWN, NEIGHBOUR):
        assert refusal(False, client, Relaying.of("never", ["0.0.0.0/0"]), auth=True).startswith("550 5.7.1 ")


def test_unknown_recipients_of_ours_are_refused_as_such() -> None:
    assert refusal(NO_SUCH, STRANGER, Relaying("authenticated"), auth=True) == NO_SUCH
    assert refusal("450 4.2.1 full", KNOWN, Relaying("authenticated")) == "450 4.2.1 full"
    # Whoever may submit reaches the rest of a shared domain.
    assert judge(NO_SUCH, KNOWN, Relaying("authenticated"), auth=True) is Way.OUTGOING


@pytest.mark.parametrize("answer", ["no", "250 2.1.5 Ok", "550 a\r\nb", "550", "550 " + "x" * 600])
def test_an_answer_that_is_no_refusal_is_not_passed_on(answer: str) -> None:
    assert refusal(answer, STRANGER, Relaying("never")).startswith("451 4.3.0 ")


@pytest.mark.parametrize(
    ("rule", "networks"), [("always", ()), ("networks", ("127.0.0.1/8",)), ("networks", ("x",))]
)
def test_rules_that_mean_nothing_are_refused(rule: str, networks: tuple[str, ...]) -> None:
    with pytest.raises(ConfigurationError):
        Relaying.of(rule, networks)


def test_addresses_of_peers() -> None:
    assert str(address_of("fe80::1%eth0")) == "fe80::1"
    assert str(address_of("::ffff:192.0.2.1")) == "192.0.2.1"
    assert address_of("") is None
