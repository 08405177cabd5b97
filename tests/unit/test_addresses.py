import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.addresses import Address, has_type, parse_address, parse_mailbox
from postroom.errors import InvalidAddress

LOCAL = st.text(string.ascii_letters + string.digits + "!#$%&'*+-/=?^_`{|}~", min_size=1, max_size=64)
LABEL = st.from_regex(r"[a-z]([a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("ann@example.org", "smtp:ann@example.org"),
        ("smtp:ann@example.org", "smtp:ann@example.org"),
        ("SMTP:Ann@Example.ORG", "smtp:Ann@example.org"),
        (" ann@example.org ", "smtp:ann@example.org"),
        ("root@localhost", "smtp:root@localhost"),
        ('"Ann Other" <ann@example.org>', "smtp:ann@example.org"),
        ("Ann Q. Other <ann@example.org>", "smtp:ann@example.org"),
        ("ann@example.org <ann@example.org>", "smtp:ann@example.org"),
        ('"Other, Ann \\"x\\" <y>" <ann@example.org>', "smtp:ann@example.org"),
        ("<ann@example.org>", "smtp:ann@example.org"),
        ('"ann"@example.org', "smtp:ann@example.org"),
        ('"a\\nn"@example.org', "smtp:ann@example.org"),
        ('"odd one"@example.org', 'smtp:"odd one"@example.org'),
        ('"a@b"@example.org', 'smtp:"a@b"@example.org'),
        ('"a\\"b"@example.org', 'smtp:"a\\"b"@example.org'),
        ('Ann <"a>b"@example.org>', 'smtp:"a>b"@example.org'),
        ("ann@[192.0.2.1]", "smtp:ann@[192.0.2.1]"),
        ("ann@[ipv6:2001:DB8:0:0::1]", "smtp:ann@[IPv6:2001:db8::1]"),
        ("ann@bücher.example", "smtp:ann@xn--bcher-kva.example"),
        ("ann@BÜCHER.example", "smtp:ann@xn--bcher-kva.example"),
        ("ann@faß.example", "smtp:ann@xn--fa-hia.example"),
        ("ann@例え。jp", "smtp:ann@xn--r8jz45g.jp"),
        ("jo\u0308rg@example.org", "smtp:jörg@example.org"),
        ("ﬁn@example.org", "smtp:ﬁn@example.org"),
        ("https://Hooks.Example.org/a?b=c#d", "https://hooks.example.org/a?b=c"),
        ("HTTPS://x", "https://x"),
        ("http://x:80/", "http://x/"),
        ("https://x:443", "https://x"),
        ("https://x:8443/", "https://x:8443/"),
        ("https://x?q", "https://x?q"),
        ("http://[2001:DB8::0:1]:8080/", "http://[2001:db8::1]:8080/"),
        ("http://my_service/x", "http://my_service/x"),
        ("http://127.0.0.1:5000/x", "http://127.0.0.1:5000/x"),
        ("https://bücher.example/ü", "https://xn--bcher-kva.example/%C3%BC"),
        ("sms:+1 (555) 010-0123", "sms:+15550100123"),
        ("x400:c=de;o=x", "x400:c=de;o=x"),
        ("Slack:#General", "slack:#General"),
        ("Ann Other [SMTP:ann@example.org]", "smtp:ann@example.org"),
        ("[SMTP:ann@example.org]", "smtp:ann@example.org"),
        ('"Other, Ann [x:y]" [SMTP:ann@example.org]', "smtp:ann@example.org"),
        ("ann@example.org [SMTP:ann@example.org]", "smtp:ann@example.org"),
        ("Ann [SMS:+1 555 0100123]", "sms:+15550100123"),
        ("Hook [HTTP://[2001:DB8::1]/x]", "http://[2001:db8::1]/x"),
        ("Ann [SMTP:ann@[IPv6:::1]]", "smtp:ann@[IPv6:::1]"),
        ("Ann <sms:+15550100123>", "sms:+15550100123"),
        ("Hook <https://x/y>", "https://x/y"),
        ("Ann <smtp:ann@example.org>", "smtp:ann@example.org"),
        ("Ann <ann@[IPv6:::1]>", "smtp:ann@[IPv6:::1]"),
        ('"a [x:y"@[IPv6:::1]', 'smtp:"a [x:y"@[IPv6:::1]'),
    ],
)
def test_canonical_form(text: str, canonical: str) -> None:
    address = parse_address(text)
    assert str(address) == canonical
    assert parse_address(canonical) == address
    assert parse_address(address) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "ann",
        "@example.org",
        "ann@",
        "ann@@example.org",
        ".ann@example.org",
        "ann.@example.org",
        "a..b@example.org",
        "a b@example.org",
        "a\u00a0b@example.org",
        "ann@example..org",
        "ann@example.org.",
        "ann@-example.org",
        "ann@exa_mple.org",
        "ann@" + "a" * 64 + ".org",
        "ann@192.0.2.1",
        "ann@[192.0.2.256]",
        "ann@[192.0.2.1",
        "ann@[2001:db8::1]",
        "ann@[IPv6:fe80::1%eth0]",
        "ann@[x]",
        "Ann [ann@example.org]",
        "Ann [SMTP:]",
        "Ann [SMTP:Bob [SMTP:ann@example.org]]",
        "Ann [ SMTP:ann@example.org]",
        "Ann [SMS:5]",
        "bob@example.org, Ann [SMTP:ann@example.org]",
        "ann@" + "ü" * 64,
        "ann@" + "ü." * 128 + "org",
        "ann@💩.la",
        "a" * 65 + "@example.org",
        "ü" * 33 + "@example.org",
        "a@" + ".".join(["a" * 60] * 5) + ".org",
        "a" * 60 + "@" + ".".join(["a" * 60] * 4),
        "ann@example.org,bob@example.org",
        "Other, Ann <ann@example.org>",
        "Ann <ann@example.org> x",
        "<@a.example:ann@example.org>",
        "ann@example.org\r\nBcc: bob@example.org",
        "ann@example.org\0",
        "an\x85n@example.org",
        "an\u2028n@example.org",
        "an\ud800n@example.org",
        '"an\nn"@example.org',
        "sms:",
        "sms:5550100",
        "sms:+0123456789",
        "sms:+123456",
        "sms:+1234567890123456",
        "sms:+٣٣٣٣٣٣٣٣",
        "https:",
        "https://",
        "https:example.org",
        "https:///path",
        "https://user:secret@example.org/",
        "https://example.org\\@evil.example/",
        "https://exa mple.org/",
        "https://example.org/a b",
        "https://example.org:0/",
        "https://example.org:65536/",
        "https://example.org:x/",
        "https://[::1/",
        "https://1.2.3/",
        "https://a..b/",
        "x400:",
        "x400: ",
        "x400:a\tb",
        "x400:" + "a" * 2049,
        "https://example.org/" + "a" * 2049,
        "a" * 10_000,
    ],
)
def test_malformed_addresses_are_refused_with_field_and_remedy(text: str) -> None:
    with pytest.raises(InvalidAddress) as caught:
        parse_address(text, field="to[3]")
    assert caught.value.field == "to[3]"
    assert caught.value.problem
    assert caught.value.remedy


@pytest.mark.parametrize("given", [None, 5, b"ann@example.org", ["ann@example.org"]])
def test_other_types_are_refused(given: object) -> None:
    with pytest.raises(InvalidAddress, match="is not an address"):
        parse_address(given)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def test_an_address_made_by_hand_is_checked() -> None:
    with pytest.raises(InvalidAddress):
        parse_address(Address("smtp", "ann@example.org\r\nx"))
    assert parse_address(Address("smtp", "ann@EXAMPLE.org")) == Address("smtp", "ann@example.org")


def test_the_password_of_a_url_is_not_spooled_but_named_in_the_remedy() -> None:
    with pytest.raises(InvalidAddress, match="credentials on the transport"):
        parse_address("https://user:secret@example.org/")


@pytest.mark.parametrize(
    ("text", "domain"),
    [
        ("ann@Example.org", "example.org"),
        ('"a@b"@example.org', "example.org"),
        ("ann@[IPv6:::1]", "[IPv6:::1]"),
        ("https://Example.org:8443/a@b", "example.org"),
        ("http://[::1]:80/", "[::1]"),
        ("sms:+15550100", ""),
    ],
)
def test_domain(text: str, domain: str) -> None:
    assert parse_address(text).domain == domain


def test_only_an_international_local_part_needs_more_than_ascii() -> None:
    assert parse_address("ann@bücher.example").is_ascii
    assert not parse_address("jörg@example.org").is_ascii


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ann@example.org", False),
        ("smtp:ann@example.org", True),
        ("*@example.org", False),
        ("*@[IPv6:*]", False),
        ("ann@[IPv6:::1]", False),
        ("https://x", True),
        ("http*://*.example.org/*", True),
        ("*:+44*", True),
        ("?ms:*", True),
        ('"a:b"@example.org', False),
    ],
)
def test_has_type(text: str, expected: bool) -> None:
    assert has_type(text) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ann@example.org", ("", "ann@example.org")),
        ("Ann Other <ann@Example.org>", ("Ann Other", "ann@example.org")),
        ('"Other, \\"Ann\\"" <ann@example.org>', ('Other, "Ann"', "ann@example.org")),
        ("smtp:Ann <ann@example.org>", ("Ann", "ann@example.org")),
        ("SMTP: ann@example.org", ("", "ann@example.org")),
        ("<ann@example.org>", ("", "ann@example.org")),
        ('"a<b>c"@example.org', ("", '"a<b>c"@example.org')),
    ],
)
def test_parse_mailbox(text: str, expected: tuple[str, str]) -> None:
    assert parse_mailbox(text, field="from") == expected


def test_a_mailbox_is_smtp() -> None:
    with pytest.raises(InvalidAddress, match="is no mailbox"):
        parse_mailbox("sms:+15550100", field="cc[0]")


@given(LOCAL, st.lists(LABEL, min_size=1, max_size=4))
def test_every_dot_atom_at_every_ldh_domain_is_an_address(local: str, labels: list[str]) -> None:
    domain = ".".join(labels)
    assert parse_address(f"{local}@{domain.upper()}") == Address("smtp", f"{local}@{domain}")


@given(st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=20))
def test_every_quoted_local_part_is_an_address_and_survives(local: str) -> None:
    quoted = '"' + local.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if len(quoted.encode()) <= 64:
        address = parse_address(f"{quoted}@example.org")
        assert parse_address(str(address)) == address
        assert address.domain == "example.org"


@given(
    st.one_of(
        st.text(max_size=80),
        st.text('ann@.:<>"\\[]()/?#% ,;+1xé\u3002\u00df', max_size=40),
        st.text("ab.:@[]/?#\\ü-_1", max_size=30).map("https://".__add__),
        st.text("ab.:@[]ü\u200d。-1", max_size=30).map("ann@".__add__),
        st.text("+123456789 ()-", max_size=20).map("sms:".__add__),
    )
)
def test_whatever_the_text_it_is_refused_or_canonical_and_safe(text: str) -> None:
    try:
        address = parse_address(text)
    except InvalidAddress:
        return
    assert parse_address(str(address)) == address
    assert not set(str(address)) & set("\r\n\0")
    assert address.type == address.type.lower()
    assert address.domain == address.domain.lower() or address.domain.startswith("[IPv6:")
    assert address.domain.isascii()
    str(address).encode()
