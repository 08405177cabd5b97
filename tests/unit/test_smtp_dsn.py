"""The parameters of RFC 3461 and RFC 6533."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.addresses import Address
from postroom.delivery import Delivery, Target
from postroom.options import MessageOptions, RecipientOptions
from postroom.transports.smtp_dsn import (
    MAX_ENVID,
    MAX_ORCPT,
    mail_parameters,
    rcpt_parameters,
    utf8_xtext,
    xtext,
)
from postroom.transports.smtp_envelope import Features, prepare

ANN = Address("smtp", "ann@example.org")
# RFC 3461 section 4 and RFC 6533 section 3, as grammars.
XTEXT = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})*")
UTF8_XTEXT = re.compile(r"(?:[!-*,-<>-\[\]-~]|\\x\{[0-9A-F]{2,6}\})*")


def of(
    target: Target, *, report: str = "failure", options: MessageOptions | None = None, sender: str = "a@x.org"
) -> Delivery:
    return Delivery(1, sender, (target,), b"Subject: x\r\n\r\n", report=report, options=options)


@given(st.text(st.characters(max_codepoint=127)))
def test_xtext_is_wellformed_and_comes_back(text: str) -> None:
    coded = xtext(text)
    assert XTEXT.fullmatch(coded)
    assert re.sub(r"\+(..)", lambda found: chr(int(found[1], 16)), coded) == text


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_the_form_of_rfc_6533_is_wellformed_and_comes_back(text: str) -> None:
    coded = utf8_xtext(text, unicode=False)
    assert UTF8_XTEXT.fullmatch(coded)
    lively = utf8_xtext(text, unicode=True)
    assert not re.search(r"[\x00-\x20+=\x7f]", lively)
    for form in (coded, lively):
        assert re.sub(r"\\x\{(\w+)\}", lambda found: chr(int(found[1], 16)), form) == text


@pytest.mark.parametrize(
    ("report", "own", "notify"),
    [
        ("failure", None, "FAILURE"),
        ("delay,failure,success", None, "SUCCESS,FAILURE,DELAY"),
        ("success", None, "SUCCESS"),
        ("", None, "NEVER"),
        ("failure", "", "NEVER"),
        ("", "delay", "DELAY"),
    ],
)
def test_notify(report: str, own: str | None, notify: str) -> None:
    target = Target(0, ANN, options=None if own is None else RecipientOptions(report=own))
    assert (
        rcpt_parameters(of(target, report=report), target) == f" NOTIFY={notify} ORCPT=rfc822;ann@example.org"
    )


@pytest.mark.parametrize(
    ("address", "options", "orcpt"),
    [
        (ANN, None, "rfc822;ann@example.org"),
        (Address("smtp", '"a b"@example.org'), None, 'rfc822;"a+20b"@example.org'),
        (ANN, RecipientOptions(original=Address("smtp", "old@example.org")), "rfc822;old@example.org"),
        (ANN, RecipientOptions(original=Address("sms", "+15550100")), "x-sms;+2B15550100"),
        (ANN, RecipientOptions(orcpt="x400;/C=XX/", original=ANN), "x400;/C+3DXX/"),
        (ANN, RecipientOptions(orcpt="utf-8;a+b@example.org"), r"utf-8;a\x{2B}b@example.org"),
        (ANN, RecipientOptions(original=Address("smtp", "ü@x.org")), r"utf-8;\x{FC}@x.org"),
        (Address("smtp", "ü@x.org"), None, "utf-8;ü@x.org"),
        (ANN, RecipientOptions(original=Address("a+b", "1")), "x-a-b;1"),
        (ANN, RecipientOptions(orcpt="rfc822;"), None),
        (ANN, RecipientOptions(orcpt="no type"), None),
        (ANN, RecipientOptions(orcpt="rfc822;" + "a" * MAX_ORCPT), None),
    ],
)
def test_orcpt(address: Address, options: RecipientOptions | None, orcpt: str | None) -> None:
    target = Target(0, address, options=options)
    said = rcpt_parameters(of(target), target)
    assert said == " NOTIFY=FAILURE" + ("" if orcpt is None else f" ORCPT={orcpt}")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (None, ""),
        (MessageOptions(), ""),
        (MessageOptions(ret="full"), " RET=FULL"),
        (MessageOptions(ret="hdrs", envid="a=b"), " RET=HDRS ENVID=a+3Db"),
        (MessageOptions(envid="x" * MAX_ENVID), " ENVID=" + "x" * MAX_ENVID),
        (MessageOptions(envid="=" * (MAX_ENVID - 1)), ""),
        (MessageOptions(envid="\u00fc"), ""),
    ],
)
def test_ret_and_envid(options: MessageOptions | None, said: str) -> None:
    assert mail_parameters(of(Target(0, ANN), options=options)) == said.encode()


@given(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=120),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=120),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=120),
)
def test_no_option_puts_a_command_or_another_parameter_on_the_line(envid: str, kind: str, value: str) -> None:
    target = Target(0, ANN, options=RecipientOptions(orcpt=f"{kind};{value}"))
    options = MessageOptions(envid=envid)
    envelope = prepare(of(target, options=options), Features(dsn=True))
    ((_, rcpt),) = envelope.recipients
    for line in (envelope.mail, rcpt):
        assert line.endswith(b"\r\n")
        assert not re.search(rb"[\x00-\x1f\x7f]", line[:-2])
        assert line.count(b" ") <= 3
        assert line.isascii()


def test_the_null_sender_may_ask_for_nothing() -> None:
    target = Target(0, ANN)
    envelope = prepare(of(target, report="", sender=""), Features(dsn=True))
    assert envelope.mail == b"MAIL FROM:<>\r\n"
    assert envelope.recipients == (
        (0, b"RCPT TO:<ann@example.org> NOTIFY=NEVER ORCPT=rfc822;ann@example.org\r\n"),
    )
    assert envelope.reporting == ()


def test_features() -> None:
    assert Features.from_ehlo({"dsn": ""}).dsn
    assert not Features.from_ehlo({"size": "1"}).dsn
