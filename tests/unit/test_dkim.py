"""DKIM: which key signs what, and that a verifier which we did not write agrees."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from hypothesis import given
from hypothesis import strategies as st

from postroom.errors import ConfigurationError
from postroom.hooks import UNCHANGED
from postroom.messages import prepare
from postroom.preprocessing import dkim_keys
from postroom.preprocessing.dkim import DkimKey, DkimSigner
from tests.support.dkim_keys import PKCS1, dns, pem, rsa_key, tags, verified
from tests.support.hooks import CONTENT, work

LOOKUP = dns(s1__example_org=rsa_key(), s2__example_org=rsa_key(), n__news_example_org=rsa_key())


def key(domain: str = "example.org", selector: str = "s1", **given_key: Any) -> DkimKey:
    return DkimKey(domain, selector, pem(rsa_key()), **given_key)


def signed(signer: DkimSigner, content: bytes = CONTENT, *, eight_bit: bool = False) -> bytes:
    verdict = signer.process(work(content=content, eight_bit=eight_bit))
    assert isinstance(verdict.content, bytes)
    return verdict.content


def by(author: bytes) -> bytes:
    return CONTENT.replace(b"Ann <ann@example.org>", author)


def no_operation(pem_text: bytes) -> None:
    """Stand for a missing cryptography."""
    del pem_text


class TestSignature:
    @pytest.mark.parametrize("header_mode", ["simple", "relaxed"])
    @pytest.mark.parametrize("body_mode", ["simple", "relaxed"])
    def test_a_verifier_agrees(self, header_mode: str, body_mode: str) -> None:
        content = signed(DkimSigner(keys=[key()], canonicalization=f"{header_mode}/{body_mode}"))
        assert content.endswith(CONTENT)
        assert verified(content, LOOKUP) == [True]
        assert tags(content)["c"] == f"{header_mode}/{body_mode}"

    def test_without_cryptography_dkimpy_signs_by_itself(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.asymmetric.padding", None)
        signer = DkimSigner(keys=[key()])
        monkeypatch.undo()
        content = signed(signer)
        assert verified(content, LOOKUP) == [True]
        assert tags(content)["a"] == tags(signed(DkimSigner(keys=[key()])))["a"] == "rsa-sha256"

    def test_both_ways_make_the_same_signature(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """PKCS #1 version 1.5 has no randomness: the same second, the same octets."""
        monkeypatch.setattr("dkim.time", SimpleNamespace(time=lambda: 1_795_000_000.0))
        fast = signed(DkimSigner(keys=[key()]))
        monkeypatch.setattr(dkim_keys, "rsa_operation", no_operation)
        assert signed(DkimSigner(keys=[key()])) == fast

    def test_every_change_of_what_is_signed_shows(self) -> None:
        content = signed(DkimSigner(keys=[key()]))
        for old, new in ((b"Hello", b"Hullo"), (b"Good morning", b"Good night"), (b"bob@", b"rob@")):
            assert old in content
            assert verified(content.replace(old, new), LOOKUP) == [False]

    def test_a_second_author_or_another_oversigned_field_shows(self) -> None:
        content = signed(DkimSigner(keys=[key()], oversigned=["Subject", "Reply-To"]))
        assert verified(content, LOOKUP) == [True]
        assert tags(content)["h"].count("from") == 2
        assert tags(content)["h"].count("reply-to") == 1
        for added in (b"From: Eve <eve@example.net>", b"Subject: Won!", b"Reply-To: eve@example.net"):
            assert verified(added + b"\r\n" + content, LOOKUP) == [False]

    def test_fields_that_are_not_signed_may_change(self) -> None:
        content = signed(DkimSigner(keys=[key()]), b"X-Trace: 1\r\n" + CONTENT)
        assert verified(content.replace(b"X-Trace: 1", b"X-Trace: 2"), LOOKUP) == [True]
        only = signed(DkimSigner(keys=[key()], headers=["From", "Date"]))
        assert tags(only)["h"] == "from : date : from"
        assert verified(only.replace(b"Hello", b"Hullo"), LOOKUP) == [True]

    @given(
        st.lists(
            st.one_of(
                st.text(st.characters(codec="ascii", exclude_characters="\r\n\0"), max_size=90),
                st.sampled_from(["", " ", "\t", "  trailing  ", ".", "..", "From here"]),
            ),
            max_size=8,
        ),
        st.sampled_from(["relaxed/simple", "simple/simple", "relaxed/relaxed"]),
    )
    def test_any_body(self, lines: list[str], mode: str) -> None:
        body = "".join(f"{line}\r\n" for line in lines).encode()
        assert verified(signed(DkimSigner(keys=[key()], canonicalization=mode), CONTENT + body), LOOKUP) == [
            True
        ]

    def test_what_is_signed_passes_for_a_message_that_needs_no_change(self) -> None:
        """The chain checks what a preprocessor returns, and must not touch it."""
        content = signed(DkimSigner(keys=[key()]))
        again = prepare(content, now=0.0, message_id_domain="x.org", unique="U", max_size=1 << 20)
        assert again.content == content

    def test_eight_bit_parts_are_encoded_before(self) -> None:
        content = CONTENT.replace(b"7bit", b"8bit") + "schön\r\n".encode()
        converted = signed(DkimSigner(keys=[key()]), content, eight_bit=True)
        assert converted.isascii()
        assert verified(converted, LOOKUP) == [True]
        kept = signed(DkimSigner(keys=[key()], seven_bit=False), content, eight_bit=True)
        assert kept.endswith(content)
        assert verified(kept, LOOKUP) == [True]


class TestWhichKey:
    def test_the_nearest_domain_signs(self) -> None:
        signer = DkimSigner(keys=[key(), key("news.example.org", "n")])
        for author, domain in (
            (b"ann@example.org", "example.org"),
            (b"ann@mail.example.org", "example.org"),
            (b"ann@news.example.org", "news.example.org"),
            (b"ann@a.b.NEWS.example.org", "news.example.org"),
            (b'"An, n" <ann@example.org>, Bob <bob@example.net>', "example.org"),
        ):
            content = signed(signer, by(author))
            assert tags(content)["d"] == domain
            assert verified(content, LOOKUP) == [True]

    @pytest.mark.parametrize(
        "author", [b"ann@example.net", b"ann@notexample.org", b"ann@org", b"Ann", b"ann@[192.0.2.1]"]
    )
    def test_others_are_left_alone(self, author: bytes) -> None:
        assert DkimSigner(keys=[key()]).process(work(content=by(author))) is UNCHANGED

    def test_or_refused(self) -> None:
        with pytest.raises(ConfigurationError, match=r"example\.net"):
            DkimSigner(keys=[key()], unsigned="fail").process(work(content=by(b"ann@example.net")))

    def test_all_keys_of_the_domain_sign(self) -> None:
        content = signed(DkimSigner(keys=[key(selector="s1"), key(selector="s2")]))
        assert verified(content, LOOKUP) == [True, True]

    def test_international_domains_meet_in_a_labels(self) -> None:
        content = signed(DkimSigner(keys=[key("bücher.example", "s")]), by(b"ann@xn--bcher-kva.example"))
        assert tags(content)["d"] == "xn--bcher-kva.example"

    def test_identity(self) -> None:
        content = signed(DkimSigner(keys=[key(identity="@mail.example.org")]))
        assert tags(content)["i"] == "@mail.example.org"
        assert verified(content, LOOKUP) == [True]


class TestKeys:
    def test_from_a_file_in_every_form(self, tmp_path: Path) -> None:
        path = tmp_path / "key.pem"
        for text in (pem(rsa_key()), pem(rsa_key(), PKCS1), pem(rsa_key()).replace("\n", "\r\n")):
            path.write_text(text, newline="")
            for given_key in (path, str(path), text, text.encode()):
                content = signed(DkimSigner(keys=[DkimKey("example.org", "s1", given_key)]))
                assert verified(content, LOOKUP) == [True]

    def test_ed25519(self) -> None:
        pytest.importorskip("nacl.signing", reason="Ed25519 needs pynacl")
        made = ed25519.Ed25519PrivateKey.generate()
        for text in (pem(made), "".join(pem(made).splitlines()[1:-1])):
            both = DkimSigner(keys=[DkimKey("example.org", "e", text.encode()), key()])
            content = signed(both)
            assert tags(content)["a"] == "ed25519-sha256"
            assert verified(content, dns(e__example_org=made, s1__example_org=rsa_key())) == [True, True]

    def test_ed25519_without_pynacl_says_what_to_install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "nacl.signing", None)
        with pytest.raises(ConfigurationError, match="install pynacl"):
            DkimSigner(keys=[DkimKey("example.org", "e", pem(ed25519.Ed25519PrivateKey.generate()))])

    def test_without_dkimpy_says_what_to_install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "dkim", None)
        with pytest.raises(ConfigurationError, match=r"postroom\[dkim\]"):
            DkimSigner(keys=[key()])

    def test_keys_are_not_shown(self) -> None:
        shown = repr(DkimSigner(keys=[key()]))
        assert "PRIVATE" not in shown
        assert pem(rsa_key()).splitlines()[1] not in shown

    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            ({"keys": []}, "empty"),
            ({"keys": [key("exa mple.org")]}, r"keys\[0\].domain"),
            ({"keys": [key(), key(selector="a b")]}, r"keys\[1\].selector"),
            ({"keys": [key(identity="@example.net")]}, "identity"),
            ({"keys": [key(identity="@notexample.org")]}, "identity"),
            ({"keys": [key()], "canonicalization": "strict"}, "canonicalization"),
            ({"keys": [key()], "headers": ["From", "Received"]}, "received"),
            ({"keys": [key()], "unsigned": "maybe"}, "unsigned"),
            ({"keys": [DkimKey("example.org", "s", "/nowhere/key.pem")]}, "cannot be read"),
            ({"keys": [DkimKey("example.org", "s", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----")]},
             "no usable key"),
            ({"keys": [DkimKey("example.org", "s", pem(rsa_key(), password=b"x"))]}, "encrypted"),
            ({"keys": [DkimKey("example.org", "s", b"")]}, "no usable key"),
        ],
    )  # fmt: skip
    def test_bad_settings_are_named(self, arguments: dict[str, Any], says: str) -> None:
        with pytest.raises(ConfigurationError, match=says):
            DkimSigner(**arguments)

    def test_other_kinds_of_keys_are_refused(self) -> None:
        with pytest.raises(ConfigurationError, match="no usable key"):
            DkimSigner(keys=[DkimKey("example.org", "s", pem(ec.generate_private_key(ec.SECP256R1())))])

    def test_short_keys_are_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        # Nobody makes keys below 1024 bits any more, the test's library included.
        monkeypatch.setattr(dkim_keys, "MIN_BITS", 4096)
        with pytest.raises(ConfigurationError, match="2048 bits"):
            DkimSigner(keys=[key()])

    def test_numeric_selectors_are_common(self) -> None:
        assert tags(signed(DkimSigner(keys=[key(selector="20261122")])))["s"] == "20261122"
