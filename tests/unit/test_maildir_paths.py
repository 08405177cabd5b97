from dataclasses import replace
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.addresses import Address
from postroom.delivery import Delivery, Target
from postroom.errors import ConfigurationError
from postroom.transports.maildir import MaildirTransport, file_name, maildir_content, safe_path

ANN = Address("smtp", "ann@example.org")
DELIVERY = Delivery(
    1 << 40, "app@example.org", (Target(0, ANN), Target(1, ANN)), b"A: b\r\n\r\n.x\r\n\ny\r\r\n"
)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "/etc",
        "..",
        "../x",
        "x/..",
        "x/../../y",
        "a//b",
        "a/",
        "./a",
        "new",
        "a/tmp",
        "cur/a",
        "a\0b",
        "a\nb",
    ],
)
def test_a_path_that_leaves_the_root_or_meddles_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match=r"path|may not|control"):
        safe_path(path)


def test_a_segment_is_no_longer_than_a_file_name() -> None:
    assert safe_path("é" * 127)
    with pytest.raises(ValueError, match="too long"):
        safe_path("é" * 128)


@given(st.text(alphabet=st.sampled_from("ab./\\~\0 \n\ud800é")) | st.text())
def test_what_is_accepted_stays_below_the_root(path: str) -> None:
    try:
        safe = safe_path(path)
    except ValueError:
        return
    assert not safe.is_absolute()
    assert ".." not in safe.parts
    assert (PurePosixPath("/root") / safe).is_relative_to("/root")
    str(safe).encode()


@pytest.mark.parametrize(
    ("folder", "value", "expected"),
    [
        ("{value}", "ann", "ann"),
        ("{value}", "ann@example.org", "ann@example.org"),
        ("{domain}/{local}", "ann@example.org", "example.org/ann"),
        ("{local}", "ann", "ann"),
        (".", "ann", "."),
        ("inbox", "../../etc", "inbox"),
    ],
)
def test_templates(folder: str, value: str, expected: str) -> None:
    assert str(MaildirTransport("x", folder=folder).mailbox(Address("maildir", value))) == expected


@pytest.mark.parametrize(
    ("folder", "value"),
    [("{value}", "../x"), ("{domain}/{local}", "ann@.."), ("{local}", "@x"), ("{domain}", "ann")],
)
def test_an_address_does_not_lead_out_of_the_root(folder: str, value: str) -> None:
    with pytest.raises(ValueError, match=r"path|may not"):
        MaildirTransport("x", folder=folder).mailbox(Address("maildir", value))


def test_a_function_decides_and_may_decline() -> None:
    transport = MaildirTransport("x", folder=lambda address: "ann" if address == ANN else None)
    assert transport.mailbox(ANN) == PurePosixPath("ann")
    assert transport.mailbox(replace(ANN, value="bob@example.org")) is None


def test_a_function_does_not_lead_out_either() -> None:
    with pytest.raises(ValueError, match="may not"):
        MaildirTransport("x", folder=lambda _: "../x").mailbox(ANN)


@pytest.mark.parametrize("folder", ["{user}", "{}", "{value.__class__}", "{value", "../up", "/abs", ""])
def test_a_bad_template_is_refused_at_once(folder: str) -> None:
    with pytest.raises(ConfigurationError, match="folder"):
        MaildirTransport("x", folder=folder)


def test_names_are_stable_and_differ_by_all_that_matters() -> None:
    first, second = DELIVERY.targets
    name = file_name(DELIVERY, first)
    assert file_name(DELIVERY, replace(first, attempts=3, in_doubt=True)) == name
    others = {
        file_name(DELIVERY, second),
        file_name(replace(DELIVERY, key=DELIVERY.key + 1), first),
        file_name(replace(DELIVERY, content=b"other"), first),
        file_name(replace(DELIVERY, sender="other@example.org"), first),
        file_name(DELIVERY, replace(first, address=Address("maildir", "bob"))),
    }
    assert len(others | {name}) == 6
    assert not {"/", ":", ","} & set(name)


def test_headers_in_front_and_line_feeds() -> None:
    assert maildir_content(DELIVERY, DELIVERY.targets[0]) == (
        b"Return-Path: <app@example.org>\nDelivered-To: ann@example.org\nA: b\n\n.x\n\ny\r\n"
    )
    forged = replace(DELIVERY, sender="a\r\nX: y")
    assert b"\nX:" not in maildir_content(forged, DELIVERY.targets[0])
