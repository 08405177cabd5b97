"""MAIL and RCPT as a listener reads them."""

from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.envelopes import Report
from postroom.receivers.listener_commands import Refused, parse_mail, parse_rcpt, unxtext
from postroom.transports.smtp_dsn import xtext


def mail_refused(argument: str | None) -> str:
    with pytest.raises(Refused) as refused:
        parse_mail(argument)
    return refused.value.reply


def rcpt_refused(argument: str | None, *, smtputf8: bool = False) -> str:
    with pytest.raises(Refused) as refused:
        parse_rcpt(argument, smtputf8=smtputf8, hostname="mx.example.org")
    return refused.value.reply


@pytest.mark.parametrize(
    ("argument", "sender"),
    [
        ("FROM:<ann@Example.org>", "ann@example.org"),
        ("from:<>", ""),
        ("FROM: <ann@example.org>", "ann@example.org"),
        ("FROM:ann@example.org", "ann@example.org"),
        ("FROM:<@relay.example,@b.example:ann@example.org>", "ann@example.org"),
        ('FROM:<"odd > one"@example.org>', '"odd > one"@example.org'),
        ("FROM:<ann@[IPv6:2001:db8::1]>", "ann@[IPv6:2001:db8::1]"),
    ],
)
def test_senders(argument: str, sender: str) -> None:
    assert parse_mail(argument).sender == sender


def test_all_parameters_of_mail() -> None:
    mail = parse_mail(
        "FROM:<ann@example.org> size=12 BODY=8bitmime SMTPUTF8 RET=hdrs ENVID=QQ+2B314159 AUTH=<>", auth=True
    )
    assert (mail.size, mail.smtputf8, mail.ret, mail.envid) == (12, True, "headers", "QQ+314159")
    assert parse_mail("FROM:<ann@example.org> RET=FULL").ret == "full"
    assert parse_mail("FROM:<bücher@example.org> SMTPUTF8").sender == "bücher@example.org"


@pytest.mark.parametrize(
    ("argument", "reply"),
    [
        (None, "501 5.5.4"),
        ("TO:<a@example.org>", "501 5.5.4"),
        ("FROM:", "501 5.5.4"),
        ("FROM:<a@example.org", "501 5.5.4"),
        ("FROM:<a@example.org>SIZE=1", "501 5.5.4"),
        ("FROM:<a@example.org> SIZE=x", "501 5.5.4"),
        ("FROM:<a@example.org> SIZE", "501 5.5.4"),
        ("FROM:<a@example.org> SIZE=1 SIZE=2", "501 5.5.4"),
        ("FROM:<a@example.org> SIZE=" + "9" * 21, "501 5.5.4"),
        ("FROM:<a@example.org> BODY=BINARYMIME", "501 5.5.4"),
        ("FROM:<a@example.org> SMTPUTF8=1", "501 5.5.4"),
        ("FROM:<a@example.org> RET=ALL", "501 5.5.4"),
        ("FROM:<a@example.org> ENVID=a+2", "501 5.5.4"),
        ("FROM:<a@example.org> ENVID=a+0A", "501 5.5.4"),
        ("FROM:<a@example.org> ENVID=" + "x" * 101, "501 5.5.4"),
        ("FROM:<a@example.org> =x", "501 5.5.4"),
        ("FROM:<a@example.org> AUTH=<>", "555 5.5.4"),
        ("FROM:<a@example.org> MT-PRIORITY=3", "555 5.5.4"),
        ("FROM:<nobody>", "553 5.1.7"),
        ("FROM:<a b@example.org>", "501 5.5.4"),
        ("FROM:<https://example.org/x>", "553 5.1.7"),
        ("FROM:<ann@bücher.example>", "553 5.6.7"),
        ("FROM:<\udcff@example.org> SMTPUTF8", "553 5.1.7"),
    ],
)
def test_mail_refused(argument: str | None, reply: str) -> None:
    assert mail_refused(argument).startswith(reply)


def test_recipients() -> None:
    plain = parse_rcpt("TO:<Ann@Example.org>", smtputf8=False, hostname="mx.example.org")
    assert (plain.address, plain.report, plain.orcpt) == ("Ann@example.org", None, "")
    said = parse_rcpt(
        "TO:<ann@example.org> NOTIFY=success,delay ORCPT=rfc822;Bob+2B1@Example.org",
        smtputf8=False,
        hostname="mx.example.org",
    )
    assert said.report == frozenset({Report.SUCCESS, Report.DELAY})
    assert said.orcpt == "rfc822;Bob+1@Example.org"
    never = parse_rcpt("TO:<ann@example.org> NOTIFY=NEVER", smtputf8=False, hostname="mx.example.org")
    assert never.report == frozenset()
    for postmaster in ("TO:<Postmaster>", "TO:postmaster"):
        found = parse_rcpt(postmaster, smtputf8=False, hostname="mx.example.org")
        assert found.address == "postmaster@mx.example.org"


@pytest.mark.parametrize("orcpt", [r"utf-8;b\x{FC}cher@example.org", "utf-8;bücher@example.org"])
def test_international_original_recipients(orcpt: str) -> None:
    found = parse_rcpt(f"TO:<ann@example.org> ORCPT={orcpt}", smtputf8=True, hostname="mx.example.org")
    assert found.orcpt == "utf-8;bücher@example.org"


@pytest.mark.parametrize(
    ("argument", "reply"),
    [
        ("TO:<>", "553 5.1.3"),
        ("FROM:<a@example.org>", "501 5.5.4"),
        ("TO:<a@example.org> NOTIFY=NEVER,DELAY", "501 5.5.4"),
        ("TO:<a@example.org> NOTIFY=DELAY,DELAY", "501 5.5.4"),
        ("TO:<a@example.org> NOTIFY", "501 5.5.4"),
        ("TO:<a@example.org> ORCPT=ann@example.org", "501 5.5.4"),
        ("TO:<a@example.org> ORCPT=rfc822;", "501 5.5.4"),
        ("TO:<a@example.org> ORCPT=rfc822;a+0D@x", "501 5.5.4"),
        ("TO:<a@example.org> ORCPT=utf-8;\\x{D800}@x", "501 5.5.4"),
        ("TO:<a@example.org> ORCPT=utf-8;\\x{FFFFFF}@x", "501 5.5.4"),
        ("TO:<a@example.org> ORCPT=utf-8;bücher@x", "501 5.5.4"),
        ("TO:<a@example.org> SIZE=3", "555 5.5.4"),
        ("TO:<sms:+15550100>", "553 5.1.3"),
        ("TO:<bücher@example.org>", "553 5.6.7"),
    ],
)
def test_rcpt_refused(argument: str, reply: str) -> None:
    assert rcpt_refused(argument).startswith(reply)


def refusal_of(parse: Callable[[], object]) -> str:
    try:
        parse()
    except Refused as refused:
        return refused.reply
    return "550 x"


@given(st.text(max_size=60))
def test_whatever_comes_is_read_or_refused_on_one_line(text: str) -> None:
    mails = [f"FROM:{text}", f"FROM:<a@example.org> {text}", f"FROM:<{text}>"]
    rcpts = [f"TO:<{text}>", f"TO:<a@example.org> ORCPT=utf-8;{text}", f"TO:<a@example.org> NOTIFY={text}"]
    replies = [refusal_of(partial(parse_mail, argument, auth=True)) for argument in mails]
    replies += [
        refusal_of(partial(parse_rcpt, argument, smtputf8=True, hostname="mx.example.org"))
        for argument in rcpts
    ]
    for reply in replies:
        assert reply.isascii()
        assert reply.isprintable()
        assert reply[:2] in {"50", "55"}


@given(st.text(alphabet=st.characters(min_codepoint=0, max_codepoint=127), max_size=50))
def test_xtext_is_read_as_the_transport_writes_it(text: str) -> None:
    assert unxtext(xtext(text)) == text
