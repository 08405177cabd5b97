import math
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.accepting import asks_for, first_due, new_recipients, ordering_key
from postroom.actors.context import Context, Handles, StandingOrders
from postroom.addresses import Address, parse_address
from postroom.clock import ManualClock
from postroom.envelopes import Envelope, Recipient, Report, Submission
from postroom.errors import UnknownAddressType, UsageError
from postroom.expansion import Expander
from postroom.ids import IdGenerator
from postroom.options import MessageOptions, RecipientOptions
from postroom.orders import make_order
from postroom.outcomes import Reply
from postroom.recipients import State
from postroom.routing import PREPROCESS, Route, Router
from postroom.selections import Selection
from postroom.settings import Settings
from postroom.stores.base import NewMessage, NewRecipient
from postroom.submitting import Submitter
from postroom.transports.base import Limits
from postroom.transports.memory import MemoryTransport
from postroom.windows import parse_window

NOW = 1_700_000_000.0
OPENS = NOW + 9 * 3600 + 46 * 60 + 40
WINDOW = "Mo-Fr 08:00-17:00 UTC"

ANN, FAX, SMS = parse_address("ann@example.org"), Address("fax", "1"), Address("sms", "+15550100")
ROUTER = Router([Route("mail", frozenset({"smtp"})), Route("text", frozenset({"sms"}))])
STAGED = Router(ROUTER.routes, {"smtp"})


def envelope(
    *addresses: Address, said: dict[Address, RecipientOptions] | None = None, **more: Any
) -> Envelope:
    return Envelope(
        "a@x", addresses, more.pop("send_at", None), more.pop("expires_at", None), 0, None,
        frozenset({Report.FAILURE}), hold=False, said=said or {}, **more,
    )  # fmt: skip


def alternatives(*addresses: Address) -> RecipientOptions:
    return RecipientOptions(alternatives=addresses)


# Where recipients begin


def test_recipients_begin_with_the_first_transport_of_their_plan() -> None:
    options = alternatives(ANN)
    assert new_recipients(envelope(ANN, SMS, said={SMS: options}), STAGED, "raise") == (
        NewRecipient(ANN, PREPROCESS),
        NewRecipient(SMS, "text", options),
    )


def test_who_cannot_be_reached_is_refused_by_name() -> None:
    with pytest.raises(
        UnknownAddressType, match=r"'fax' \(fax:1\); configure one, or use one of: sms, smtp"
    ) as caught:
        new_recipients(envelope(ANN, FAX), ROUTER, "raise", "messages[2].")
    assert caught.value.field == "messages[2].to[1]"
    with pytest.raises(UnknownAddressType, match=r"\(fax:1, by way of list:a > list:b\)"):
        new_recipients(envelope(FAX, said={FAX: RecipientOptions(via=("list:a", "list:b"))}), ROUTER, "raise")
    with pytest.raises(UnknownAddressType) as caught:
        new_recipients(envelope(ANN, said={ANN: alternatives(SMS, FAX)}), ROUTER, "raise")
    assert caught.value.field == "to[0].alternatives[1]"


def test_or_fails_at_once_with_a_reason() -> None:
    first, second = new_recipients(envelope(FAX, ANN), ROUTER, "fail")
    assert first == NewRecipient(
        FAX, "", None, State.FAILED, Reply("no transport handles addresses of type 'fax'", "5.1.2"), "failed"
    )
    assert second == NewRecipient(ANN, "mail")


def test_or_begins_with_an_alternative() -> None:
    (only,) = new_recipients(envelope(FAX, said={FAX: alternatives(FAX, ANN, SMS)}), STAGED, "fail")
    assert only == NewRecipient(ANN, PREPROCESS, RecipientOptions(alternatives=(SMS,), original=FAX))


# When


def test_a_message_is_due_when_its_window_opens() -> None:
    window = parse_window(WINDOW)
    assert first_due(envelope(ANN), NOW) == NOW
    assert first_due(envelope(ANN, send_at=NOW - 5), NOW) == NOW
    assert first_due(envelope(ANN, send_at=NOW + 5), NOW) == NOW + 5
    assert first_due(envelope(ANN, window=window), NOW) == OPENS
    assert first_due(envelope(ANN, window=window, send_at=OPENS + 5), NOW) == OPENS + 5
    assert first_due(envelope(ANN, window=window, expires_at=OPENS + 1), NOW) == OPENS
    with pytest.raises(UsageError, match="does not open before the message expires"):
        first_due(envelope(ANN, window=window, expires_at=OPENS), NOW)


# Reports


def test_who_asks_for_a_report() -> None:
    assert asks_for(Report.DELAY, {Report.DELAY})
    assert not asks_for(
        Report.DELAY, {Report.SUCCESS}, [None, RecipientOptions(), RecipientOptions(report="")]
    )
    assert asks_for(Report.DELAY, set(), [None, RecipientOptions(report="delay,failure")])


# Order

STRICT = {"mail": "key of mail", "text": "key of text"}


def test_a_strict_transports_messages_have_its_key() -> None:
    mail, text, other = NewRecipient(ANN, "mail"), NewRecipient(SMS, "text"), NewRecipient(ANN, "other")
    assert ordering_key("mine", [other], ROUTER, STRICT) == "mine"
    assert ordering_key(None, [other], ROUTER, STRICT) is None
    assert ordering_key(None, [other, mail, mail], ROUTER, STRICT) == "key of mail"
    assert ordering_key(None, [NewRecipient(ANN, PREPROCESS)], STAGED, STRICT) == "key of mail"
    ended = text._replace(state=State.FAILED)
    assert ordering_key(None, [mail, ended], ROUTER, STRICT) == "key of mail"
    assert ordering_key(None, [text._replace(state=State.HELD)], ROUTER, STRICT) == "key of text"
    with pytest.raises(UsageError, match="'mail' and 'text', which both keep a strict order"):
        ordering_key(None, [mail, text], ROUTER, STRICT)
    with pytest.raises(UsageError, match="keeps all its messages in order") as caught:
        ordering_key("mine", [mail], ROUTER, STRICT)
    assert caught.value.field == "ordering_key"


# All of it, as the submitter puts it together

MESSAGE = b"From: ann@example.org\r\nSubject: Hi\r\n\r\nHi\r\n"


def submitter(*transports: MemoryTransport, settings: Settings | None = None, **more: Any) -> Submitter:
    clock = ManualClock(NOW)
    nothing = cast("Any", None)
    store = cast("Any", SimpleNamespace(ids=IdGenerator(1, clock.time)))
    context = Context(
        clock=clock, settings=settings or Settings(), store=store,
        reader=nothing, router=Router([transport.route for transport in transports]),
        transports={transport.name: transport for transport in transports}, queues={}, handles=Handles(),
        instruments=nothing, completions=nothing, audience=nothing, orders=more.pop("orders", StandingOrders()),
    )  # fmt: skip
    return Submitter(context, lambda: True, **more)


def mail(**more: Any) -> MemoryTransport:
    return MemoryTransport(name="mail", address_types={"smtp"}, **more)


def prepare(one: Submitter, to: Any = "b@x", **given: Any) -> NewMessage:
    return one.prepare(Submission(message=MESSAGE, to=to, **given))


def test_the_ordinary_message_is_plain() -> None:
    message = prepare(submitter(mail()))
    assert message.recipients == (NewRecipient(Address("smtp", "b@x"), "mail"),)
    assert (message.sender, message.tenant) == ("ann@example.org", "ann@example.org")
    assert (message.due, message.expires, message.report) == (NOW, None, "failure")
    assert (message.ordering_key, message.options, message.followed, message.followups) == (
        None,
        None,
        False,
        (),
    )


def test_what_is_said_reaches_the_store() -> None:
    message = prepare(
        submitter(mail(), settings=Settings(lifetime=600.0)), window=WINDOW, tenant="t", ordering_key="o",
        ret="headers", envid="e", report={Report.DELAY, Report.SUCCESS},
    )  # fmt: skip
    assert message.options == MessageOptions(ret="hdrs", envid="e", window=WINDOW)
    assert (message.tenant, message.ordering_key, message.report) == ("t", "o", "delay,success")
    assert (message.due, message.expires) == (OPENS, OPENS + 600)


@pytest.mark.parametrize(
    ("given", "hooked", "followed", "followups"),
    [
        ({}, True, True, (("sent", None),)),
        ({"report": {Report.SUCCESS}}, False, True, ()),
        ({"report": {Report.DELAY}}, False, False, (("delay", NOW + 60),)),
        ({"report": {Report.DELAY}, "send_at": NOW + 5}, True, True, (("delay", NOW + 65), ("sent", None))),
        (
            {"to": [Recipient("b@x", report={Report.SUCCESS, Report.DELAY})]},
            False,
            True,
            (("delay", NOW + 60),),
        ),
        ({"report": ()}, False, False, ()),
        ({"ordering_key": "o"}, False, True, ()),
    ],
)
def test_what_is_followed_and_what_follows(
    given: dict[str, Any], hooked: bool, followed: bool, followups: tuple[tuple[str, float | None], ...]
) -> None:
    message = prepare(submitter(mail(), delay_after=60.0, hooked=hooked), **given)
    assert (message.followed, message.followups) == (followed, followups)


def test_without_delay_warnings_nothing_is_to_be_done_about_delays() -> None:
    message = prepare(submitter(mail(), delay_after=math.inf), report={Report.DELAY})
    assert (message.report, message.followups) == ("delay", ())


def test_a_strict_transport_orders_all_its_messages() -> None:
    message = prepare(submitter(mail(limits=Limits(concurrency=1, strict_order=True))))
    assert (message.ordering_key, message.followed) == ("\0transport:mail", True)


def test_who_ends_at_once_is_followed() -> None:
    message = prepare(submitter(mail(), settings=Settings(unroutable="fail")), ["b@x", "fax:1"])
    assert [recipient.state for recipient in message.recipients] == [None, State.FAILED]
    assert message.followed


def test_standing_orders_are_obeyed_as_they_are_at_the_moment() -> None:
    orders = StandingOrders()
    one = submitter(mail(), orders=orders)
    assert not prepare(one).followed
    orders.given = [make_order("hold", Selection(address="b@x"), now=NOW, reason="test")]
    message = prepare(one, ["b@x", "c@x"])
    assert [recipient.state for recipient in message.recipients] == [State.HELD, None]
    assert message.followed
    orders.given = [make_order("fail", Selection(address="c@x"), now=NOW, argument="no")]
    assert [recipient.state for recipient in prepare(one, ["b@x", "c@x"]).recipients] == [None, State.FAILED]
    orders.given = ()
    assert not prepare(one).followed


def test_lists_are_expanded() -> None:
    one = submitter(mail(), expander=Expander({"staff": ["b@x", "c@x"]}))
    message = prepare(one, ["staff", "b@x"])
    via = RecipientOptions(via=("list:staff",))
    assert message.recipients == (
        NewRecipient(Address("smtp", "b@x"), "mail", via),
        NewRecipient(Address("smtp", "c@x"), "mail", via),
    )


TYPED = st.sampled_from([ANN, FAX, SMS, Address("smtp", "b@x")])


@given(
    st.lists(TYPED, unique=True, min_size=1),
    st.dictionaries(TYPED, st.builds(alternatives, TYPED, TYPED)),
    st.sampled_from([ROUTER, STAGED]),
)
def test_whoever_begins_queued_can_be_delivered_and_whoever_fails_could_not_be(
    addresses: list[Address], said: dict[Address, RecipientOptions], router: Router
) -> None:
    made = new_recipients(envelope(*addresses, said=said), router, "fail")
    assert len(made) == len(addresses)
    for asked, recipient in zip(addresses, made, strict=True):
        options = said.get(asked)
        candidates = (asked, *(options.alternatives if options else ()))
        reachable = [address for address in candidates if router.plan(address)]
        if recipient.state is None:
            assert recipient.address == reachable[0]
            assert recipient.transport == router.plan(recipient.address)[0]
        else:
            assert (recipient.state, recipient.address, reachable) == (State.FAILED, asked, [])
