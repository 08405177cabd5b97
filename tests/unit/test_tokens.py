"""Signed return addresses and envelope ids."""

import base64
import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.addresses import parse_address
from postroom.errors import ConfigurationError
from postroom.tokens import Tokens
from postroom.transports.smtp_dsn import MAX_ENVID, xtext

SECRET = bytes(range(32))
FORMAT = "bounces+{token}@example.org"
TOKENS = Tokens(SECRET, FORMAT)
KEYS = st.integers(0, (1 << 63) - 1)
INDEXES = st.integers(0, (1 << 24) - 1)


@given(KEYS, INDEXES, st.booleans())
def test_what_is_signed_comes_back_in_any_case(key: int, index: int, upper: bool) -> None:
    address = TOKENS.address_for(key, index)
    assert address == parse_address(address).value == address.lower()
    assert TOKENS.read(address.upper() if upper else address) == (key, index)
    assert TOKENS.read_envid(TOKENS.envid_for(key)) == key


def test_a_token_is_the_number_the_index_and_the_beginning_of_an_hmac() -> None:
    named = (5).to_bytes(8, "big") + (7).to_bytes(3, "big")
    mac = hmac.new(SECRET, b"postroom recipient\0" + named, hashlib.sha256).digest()[:9]
    token = base64.b32encode(named + mac).decode().lower()
    assert TOKENS.address_for(5, 7) == f"bounces+{token}@example.org"


def test_a_change_of_any_character_is_noticed() -> None:
    address = TOKENS.address_for(123456789, 3)
    start = address.index("+") + 1
    for position in range(start, start + 32):
        for char in "a2z":
            if address[position] != char:
                forged = address[:position] + char + address[position + 1 :]
                assert TOKENS.read(forged) is None


@given(st.text(max_size=100))
def test_other_addresses_are_nobodys(text: str) -> None:
    assert TOKENS.read(text) is None
    assert TOKENS.read(f"bounces+{text}@example.org") is None
    assert TOKENS.read_envid(text) is None


@pytest.mark.parametrize("wrap", ["<{}>", "smtp:{}", "{}"])
def test_brackets_and_a_type_do_no_harm(wrap: str) -> None:
    assert TOKENS.read(wrap.format(TOKENS.address_for(9, 1))) == (9, 1)


@pytest.mark.parametrize("change", ["x{}", "{}.net", " {}", "{}\n", "{},{}"])
def test_only_a_whole_address_counts(change: str) -> None:
    address = TOKENS.address_for(9, 1)
    assert TOKENS.read(change.replace("{}", address)) is None


def test_a_dot_of_the_format_is_a_dot() -> None:
    assert TOKENS.read(TOKENS.address_for(1, 1).replace("example.org", "examplexorg")) is None


def test_one_kind_of_name_is_not_taken_for_the_other() -> None:
    token = TOKENS.envid_for(1).removeprefix("postroom.")
    assert TOKENS.read(f"bounces+{token}@example.org") is None
    token = TOKENS.address_for(1, 1).removeprefix("bounces+").removesuffix("@example.org")
    assert TOKENS.read_envid(f"postroom.{token}") is None


def test_secrets_are_replaced_one_by_one() -> None:
    new = b"n" * 32
    old_address, old_envid = TOKENS.address_for(1, 2), TOKENS.envid_for(1)
    both = Tokens([new, SECRET], FORMAT)
    assert both.read(old_address) == (1, 2)
    assert both.read_envid(old_envid) == 1
    assert both.address_for(1, 2) != old_address
    only_new = Tokens(new, FORMAT)
    assert only_new.read(both.address_for(1, 2)) == (1, 2)
    assert only_new.read(old_address) is None
    assert only_new.read_envid(old_envid) is None


def test_a_domain_of_its_own_and_one_that_is_international() -> None:
    tokens = Tokens("a secret of some length", "{token}@bücher.example")
    address = tokens.address_for(1, 2)
    assert address.endswith("@xn--bcher-kva.example")
    assert tokens.read(address) == (1, 2)
    assert tokens == Tokens(b"a secret of some length", "{token}@XN--bcher-kva.example")


def test_an_envid_fits_the_parameter() -> None:
    envid = TOKENS.envid_for((1 << 63) - 1)
    assert xtext(envid) == envid
    assert len(envid) <= MAX_ENVID


def test_no_secret_is_shown() -> None:
    tokens = Tokens("swordfish-swordfish", FORMAT)
    assert repr(tokens) == "Tokens(format='bounces+{token}@example.org')"
    assert "swordfish" not in str(vars(type(tokens)))


def test_equality_is_by_secret_and_format() -> None:
    assert Tokens(SECRET, FORMAT) == TOKENS
    assert hash(Tokens(SECRET, FORMAT)) == hash(TOKENS)
    assert Tokens(b"o" * 32, FORMAT) != TOKENS
    assert Tokens(SECRET, "b+{token}@example.org") != TOKENS
    assert TOKENS != FORMAT


@pytest.mark.parametrize(
    "form",
    [
        "bounces@example.org", "{token}", "a@{token}.example.org", "{token}{token}@x.org", "b{token}@", "{token}@1.2",
        "a-prefix-that-leaves-too-little-of-64+{token}@example.org", "Ann <{token}@example.org>x", "sms:{token}@x",
        "ü+{token}@example.org",
    ],
)  # fmt: skip
def test_a_format_that_makes_no_address_is_refused(form: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Tokens(SECRET, form)
    assert caught.value.field == "format"


@pytest.mark.parametrize("secret", [b"short", "", [], [SECRET, b"short"]])
def test_a_weak_secret_is_refused_without_showing_it(secret: bytes | str | list[bytes]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Tokens(secret, FORMAT)
    assert caught.value.field == "secret"
    assert "short" not in str(caught.value)


@pytest.mark.parametrize(("key", "index"), [(-1, 0), (1 << 64, 0), (0, -1), (0, 1 << 24)])
def test_numbers_out_of_range_are_refused(key: int, index: int) -> None:
    with pytest.raises(OverflowError):
        TOKENS.address_for(key, index)
