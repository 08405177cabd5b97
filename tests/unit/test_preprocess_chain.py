"""The chain of preprocessors: order, groups, policies, and what may come back from them."""

from collections.abc import Callable
from email.message import EmailMessage
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.addresses import parse_address
from postroom.delivery import Delivery, Target
from postroom.envelopes import Submission
from postroom.hooks import (
    OnError,
    PostponedRecipients,
    Preprocessor,
    ReturnedRecipients,
    Verdict,
    Work,
)
from postroom.ids import format_id
from postroom.options import MessageOptions
from postroom.outcomes import Deferred, Failed, Outcome, Processed, Reply
from postroom.preprocessing.chain import Bounds, Chain, NotNow, Processing, in_order, type_ranks
from postroom.routing import Route
from tests.support.hooks import CONTENT, KEY, NOW, Scripted, admit, delivery, tagging

ROOMY = Bounds(1 << 20, 1 << 30)


def direct(preprocessor: Preprocessor, work: Work) -> Verdict:
    return preprocessor.process(work)


def run(
    given_delivery: Delivery,
    *preprocessors: Preprocessor,
    bounds: Bounds = ROOMY,
    call: Callable[[Preprocessor, Work], object] = direct,
) -> Processing:
    return Chain(preprocessors, admit=admit, bounds=bounds).run(given_delivery, call, NOW)


def adding(*notes: Submission) -> Scripted:
    return Scripted(name="archive", does=lambda _: Verdict(added=notes))


def text_of(outcome: Outcome) -> str:
    return outcome.reply.text


class TestOrder:
    def names(self, *preprocessors: Preprocessor, routes: tuple[Route, ...] = ()) -> list[str]:
        return [each.name for each in in_order(preprocessors, type_ranks(routes))]

    ROUTES = (
        Route("mail", frozenset({"smtp"})),
        Route("hooks", frozenset({"https", "http"})),
        Route("text", frozenset({"sms"})),
    )

    def test_one_recipient_meets_them_in_the_order_given(self) -> None:
        given_order = [tagging("b", {"https", "smtp"}), tagging("a", {"smtp"}), tagging("c")]
        assert self.names(*given_order, routes=self.ROUTES) == ["b", "a", "c"]

    def test_strangers_run_in_transport_order(self) -> None:
        given_order = [tagging("text", {"sms"}), tagging("web", {"https"}), tagging("mail", {"smtp"})]
        assert self.names(*given_order, routes=self.ROUTES) == ["mail", "web", "text"]

    def test_transport_order_does_not_turn_two_around_that_share_a_type(self) -> None:
        given_order = [tagging("web", {"https"}), tagging("all"), tagging("mail", {"smtp"})]
        assert self.names(*given_order, routes=self.ROUTES) == ["web", "all", "mail"]

    def test_a_type_without_transport_comes_last(self) -> None:
        assert self.names(tagging("fax", {"fax"}), tagging("text", {"sms"}), routes=self.ROUTES) == [
            "text",
            "fax",
        ]

    @given(
        st.lists(
            st.one_of(st.just("*"), st.sets(st.sampled_from(["smtp", "https", "sms", "fax"]), min_size=1)),
            max_size=7,
        )
    )
    def test_whoever_shares_a_type_stays_in_the_order_given(self, types: list[Any]) -> None:
        preprocessors = [tagging(f"p{at}", kind) for at, kind in enumerate(types)]
        ordered = in_order(preprocessors, type_ranks(self.ROUTES))
        assert sorted(each.name for each in ordered) == sorted(each.name for each in preprocessors)
        for kind in ("smtp", "https", "sms", "fax"):
            assert [each.name for each in ordered if each.handles(kind)] == [
                each.name for each in preprocessors if each.handles(kind)
            ]


class TestGroups:
    def test_without_a_change_the_message_keeps_its_content(self) -> None:
        processing = run(delivery("a@x.org", "b@x.org"), Scripted())
        assert [outcome.content for outcome in processing.outcomes if isinstance(outcome, Processed)] == [
            None,
            None,
        ]

    def test_each_sees_what_the_former_made(self) -> None:
        second = tagging("Second")
        processing = run(delivery(), tagging("First"), second)
        assert second.shown[0].content.startswith(b"X-First: yes\r\n")
        (outcome,) = processing.outcomes
        assert isinstance(outcome, Processed)
        assert outcome.content == b"X-Second: yes\r\nX-First: yes\r\n" + CONTENT
        assert "First, Second" in outcome.reply.text

    def test_only_recipients_of_the_handled_types_are_shown_and_changed(self) -> None:
        mail = tagging("Mail", {"smtp"})
        processing = run(delivery("https://h.example.org/x", "a@x.org"), mail)
        assert [str(address) for address in mail.shown[0].addresses] == ["smtp:a@x.org"]
        web, letter = processing.outcomes
        assert web == Processed(None, Reply("preprocessed, unchanged", "2.0.0"))
        assert isinstance(letter, Processed)
        assert letter.content == b"X-Mail: yes\r\n" + CONTENT

    def test_nobody_is_asked_about_other_types(self) -> None:
        web = tagging("Web", {"https"})
        run(delivery("a@x.org"), web)
        assert web.shown == []

    def test_a_group_splits_and_equal_contents_become_one_again(self) -> None:
        def personal(work: Work) -> Verdict:
            contents = [
                ((target,), f"X-For: {target.address}\r\n".encode() + CONTENT) for target in work.recipients
            ]
            return Verdict(contents=contents)

        looker = Scripted(name="looker", does=lambda _: Verdict(content=CONTENT))
        last = Scripted(name="last")
        processing = run(
            delivery("a@x.org", "b@x.org", "c@x.org"), Scripted(name="personal", does=personal), looker, last
        )
        assert [len(work.recipients) for work in looker.shown] == [1, 1, 1]
        assert [[target.index for target in work.recipients] for work in last.shown] == [[0, 1, 2]]
        assert all(
            isinstance(outcome, Processed) and outcome.content is None for outcome in processing.outcomes
        )

    def test_recipients_that_are_not_named_keep_theirs(self) -> None:
        def some(work: Work) -> Verdict:
            return Verdict(contents=[(work.recipients[:1], b"X-Only: you\r\n" + CONTENT)])

        first, second = run(delivery("a@x.org", "b@x.org"), Scripted(does=some)).outcomes
        assert isinstance(first, Processed)
        assert isinstance(second, Processed)
        assert (first.content or b"").startswith(b"X-Only")
        assert second.content is None

    def test_who_is_returned_or_put_off_goes_no_further(self) -> None:
        def sort(work: Work) -> Verdict:
            return Verdict(
                content=b"X-Kept: yes\r\n" + work.content,
                returned=[ReturnedRecipients(work.recipients[:1], Reply("no such customer", "5.1.1"))],
                postponed=[PostponedRecipients(work.recipients[1:2], Reply("not yet"), 7.0)],
            )

        last = Scripted(name="last")
        processing = run(delivery("a@x.org", "b@x.org", "c@x.org"), Scripted(does=sort), last)
        assert processing.outcomes[0] == Failed(Reply("no such customer", "5.1.1"))
        assert processing.outcomes[1] == Deferred(Reply("not yet", "4.7.0"), 7.0)
        assert isinstance(processing.outcomes[2], Processed)
        assert [target.index for work in last.shown for target in work.recipients] == [2]

    def test_too_many_different_contents_wait_for_another_turn(self) -> None:
        def personal(work: Work) -> Verdict:
            contents = [
                ((target,), f"X-For: {target.address}\r\n".encode() + CONTENT) for target in work.recipients
            ]
            return Verdict(contents=contents)

        processing = run(
            delivery("a@x.org", "b@x.org", "c@x.org"),
            Scripted(does=personal),
            bounds=Bounds(1 << 20, len(CONTENT) * 2 + 60),
        )
        assert [type(outcome) for outcome in processing.outcomes] == [Processed, Processed, Deferred]

    @given(st.data())
    def test_everybody_gets_one_outcome_whatever_is_said(self, data: st.DataObject) -> None:
        """No recipient is lost, doubled or mixed up, whatever preprocessors answer."""
        kinds = ["smtp:{}@x.org", "https://h.example.org/{}", "sms:+155501000{:02}"]
        addresses = [
            data.draw(st.sampled_from(kinds)).format(number) for number in range(data.draw(st.integers(1, 6)))
        ]

        def chaos(work: Work) -> Verdict:
            fates = [
                data.draw(st.sampled_from(["keep", "a", "b", "return", "postpone", "raise"]))
                for _ in work.recipients
            ]
            if "raise" in fates:
                raise RuntimeError("chaos")
            by = {
                fate: tuple(t for t, f in zip(work.recipients, fates, strict=True) if f == fate)
                for fate in set(fates)
            }
            return Verdict(
                contents=[(by[f], f"X-F: {f}\r\n".encode() + CONTENT) for f in ("a", "b") if f in by],
                returned=[ReturnedRecipients(by["return"], Reply("no"))] if "return" in by else (),
                postponed=[PostponedRecipients(by["postpone"], Reply("later"))] if "postpone" in by else (),
            )

        policies: list[OnError] = ["defer", "fail", "skip"]
        chain = [
            Scripted(
                name=f"p{number}",
                does=chaos,
                on_error=data.draw(st.sampled_from(policies)),
                address_types=data.draw(st.sampled_from(["*", ("smtp",), ("https", "sms")])),
            )
            for number in range(data.draw(st.integers(0, 3)))
        ]
        given_delivery = delivery(*addresses)
        processing = run(given_delivery, *chain)
        assert len(processing.outcomes) == len(addresses)
        gone: set[int] = set()
        for each in chain:
            shown = [target.index for work in each.shown for target in work.recipients]
            assert len(shown) == len(set(shown))
            assert not gone & set(shown)
            assert all(each.handles(given_delivery.targets[index].address.type) for index in shown)
        for outcome in processing.outcomes:
            if isinstance(outcome, Processed) and outcome.content is not None:
                assert outcome.content.endswith(CONTENT)


class TestFailures:
    @pytest.mark.parametrize(
        ("policy", "kind", "status"),
        [("defer", Deferred, "4.3.0"), ("fail", Failed, "5.3.0"), ("skip", Processed, "2.0.0")],
    )
    def test_the_policy_decides_and_names_the_preprocessor(
        self, policy: OnError, kind: type[Outcome], status: str
    ) -> None:
        def broken(_: Work) -> Verdict:
            raise RuntimeError("out of ink")

        last = Scripted(name="last")
        (outcome,) = run(delivery(), Scripted(name="stamp", does=broken, on_error=policy), last).outcomes
        assert type(outcome) is kind
        assert outcome.reply.status == status
        if policy == "skip":
            assert len(last.shown) == 1
        else:
            assert "stamp" in text_of(outcome)
            assert "out of ink" in text_of(outcome)
            assert last.shown == []

    def test_a_failure_costs_only_the_recipients_it_was_about(self) -> None:
        def broken(_: Work) -> Verdict:
            raise RuntimeError("out of ink")

        letter, web = run(
            delivery("a@x.org", "https://h.example.org/"), Scripted(does=broken, address_types={"smtp"})
        ).outcomes
        assert isinstance(letter, Deferred)
        assert isinstance(web, Processed)

    def test_no_time_left_defers_whatever_the_policy(self) -> None:
        def late(_preprocessor: Preprocessor, _work: Work) -> object:
            raise NotNow("its turn did not come")

        (outcome,) = run(delivery(), Scripted(on_error="fail"), call=late).outcomes
        assert isinstance(outcome, Deferred)
        assert outcome.reply.status == "4.3.2"

    @pytest.mark.parametrize(
        ("answer", "says"),
        [
            (None, "NoneType"),
            (Verdict(content=b"From: a@b.org\r\nno field\r\n\r\n"), "verdict.content: message"),
            (Verdict(content=b"Subject: x\r\n\r\n"), "verdict.content: From"),
            (Verdict(content=b"From: a@b.org\r\n\r\na\nb\r\n"), "line"),
            (Verdict(content=b"From: a@b.org\r\n\r\n" + b"x" * 999), "998"),
            (Verdict(content=b"From: a@b.org\r\n\r\n" + b"x\r\n" * 400_000), "octets"),
            (Verdict(content="From: a@b.org"), "str"),  # type: ignore[arg-type] # untyped code may say so
            (Verdict(content="From: a@b.org\r\n\r\nhö\r\n".encode()), "above 127"),
            (Verdict(content="From: a@b.org\r\nSubject: hö\r\n\r\n".encode()), "SMTPUTF8"),
            (
                Verdict(contents=[((Target(7, parse_address("z@x.org")),), CONTENT)]),
                "verdict.contents[0]: names smtp:z@x.org",
            ),
            (Verdict(returned=[ReturnedRecipients((), Reply("x", "4.1.1"))]), "verdict.returned[0]"),
            (Verdict(postponed=[PostponedRecipients((), Reply("x", "5.1.1"))]), "verdict.postponed[0]"),
            (Verdict(added=[Submission(message=b"Subject: x\r\n\r\n", to="a@b.org")]), "verdict.added[0].From"),
            (Verdict(added=[Submission(message=CONTENT)] * 101), "101"),
            (Verdict(added=["x"]), "Submission"),  # type: ignore[list-item] # untyped code may say so
        ],
    )  # fmt: skip
    def test_what_cannot_be_used_is_an_error_of_the_preprocessor(self, answer: Any, says: str) -> None:
        (outcome,) = run(delivery(), Scripted(name="stamp", does=lambda _: answer)).outcomes
        assert isinstance(outcome, Deferred)
        assert "preprocessor stamp" in text_of(outcome)
        assert says in text_of(outcome)

    def test_naming_a_recipient_twice_is_an_error(self) -> None:
        def twice(work: Work) -> Verdict:
            return Verdict(
                contents=[(work.recipients, CONTENT)],
                returned=[ReturnedRecipients(work.recipients, Reply("no"))],
            )

        (outcome,) = run(delivery(), Scripted(does=twice)).outcomes
        assert "once more" in text_of(outcome)


class TestContent:
    def content(self, answer: bytes | EmailMessage, **given_delivery: Any) -> bytes:
        (outcome,) = run(
            delivery(**given_delivery), Scripted(does=lambda _: Verdict(content=answer))
        ).outcomes
        assert isinstance(outcome, Processed), outcome
        assert outcome.content is not None
        return outcome.content

    def test_bcc_does_not_leave(self) -> None:
        assert b"secret" not in self.content(b"Bcc: secret@example.org\r\n" + CONTENT + b"more\r\n")

    def test_line_ends_become_crlf(self) -> None:
        assert self.content(CONTENT.replace(b"\r\n", b"\n") + b"more\n") == CONTENT + b"more\r\n"

    def test_a_message_id_that_was_taken_away_comes_back_from_the_same_domain(self) -> None:
        without = b"".join(
            line for line in CONTENT.splitlines(keepends=True) if not line.startswith(b"Message-ID")
        )
        assert f"Message-ID: <{format_id(KEY)}@mail.example.org>\r\n".encode() in self.content(without)

    def test_an_object_is_serialised_in_seven_bits_when_the_message_was(self) -> None:
        def umlauts(work: Work) -> Verdict:
            message = work.parse()
            message.set_content("schön\n")
            return Verdict(content=message)

        (outcome,) = run(delivery(), Scripted(does=umlauts)).outcomes
        assert isinstance(outcome, Processed)
        assert (outcome.content or b"\xff").isascii()

    def test_an_eight_bit_message_may_stay_so(self) -> None:
        content = CONTENT.replace(b"7bit", b"8bit") + "schön\r\n".encode()
        assert "schön".encode() in self.content(content + b"more\r\n", content=content, eight_bit=True)

    def test_a_part_may_be_wrapped_around_another_of_ours(self) -> None:
        """Boundaries that are made here differ from those that were made at submission."""

        def wrap(work: Work) -> Verdict:
            outer = EmailMessage()
            for name in ("From", "Subject", "Message-ID", "Date"):
                outer[name] = work.parse()[name]
            outer.set_content("see below\n")
            outer.add_attachment(work.parse())
            return Verdict(content=outer)

        first = run(delivery(), Scripted(does=wrap)).outcomes[0]
        assert isinstance(first, Processed)
        assert first.content is not None
        second = run(delivery(content=first.content), Scripted(does=wrap)).outcomes[0]
        assert isinstance(second, Processed)
        inner = Work.of(delivery(), delivery().targets, second.content or b"").parse()
        assert [part.get_content_type() for part in inner.walk()] == [
            "multipart/mixed", "text/plain", "message/rfc822", "multipart/mixed", "text/plain", "message/rfc822",
            "text/plain",
        ]  # fmt: skip


class TestAdded:
    NOTE = Submission(message=CONTENT, to="log@example.org", sender="")

    def test_keys_are_made_of_message_preprocessor_and_number(self) -> None:
        processing = run(delivery(), adding(self.NOTE, self.NOTE))
        assert [message.idempotency_key for message in processing.added] == [
            f"pre:{format_id(KEY)}:archive:0",
            f"pre:{format_id(KEY)}:archive:1",
        ]

    def test_numbers_go_on_over_the_groups(self) -> None:
        def personal(work: Work) -> Verdict:
            return Verdict(
                contents=[((t,), f"X-T: {t.index}\r\n".encode() + CONTENT) for t in work.recipients]
            )

        processing = run(delivery("a@x.org", "b@x.org"), Scripted(does=personal), adding(self.NOTE))
        keys = [str(message.idempotency_key) for message in processing.added]
        assert [key.rpartition(":")[2] for key in keys] == ["0", "1"]

    def test_a_key_of_its_own_is_kept_within(self) -> None:
        note = Submission(message=CONTENT, to="log@example.org", idempotency_key="for a@x.org")
        (message,) = run(delivery(), Scripted(name="archive", does=lambda _: Verdict(added=[note]))).added
        assert message.idempotency_key == f"pre:{format_id(KEY)}:archive:for a@x.org"

    def test_another_wording_in_another_turn_is_no_conflict(self) -> None:
        digests: set[bytes] = set()
        for subject in (b"Hello", b"Other"):
            note = Submission(message=CONTENT.replace(b"Hello", subject), to="log@example.org")
            (message,) = run(delivery(), adding(note)).added
            digests.add(message.digest)
        assert len(digests) == 1

    def test_nobody_sees_what_he_added_himself_or_by_way_of_others(self) -> None:
        first = Scripted(name="first", does=lambda _: Verdict(added=[self.NOTE]))
        second = Scripted(name="second", does=lambda _: Verdict(added=[self.NOTE]))
        generation = run(delivery(), first, second).added
        assert [message.options and message.options.added_by for message in generation] == ["first", "second"]
        (child,) = run(delivery(options=generation[0].options), first, second).added
        assert child.options is not None
        assert child.options.added_by == "first,second"
        assert run(delivery(options=child.options), first, second).added == ()
        assert MessageOptions.from_json(child.options.to_json()) == child.options

    def test_nothing_is_added_for_those_who_are_only_put_off(self) -> None:

        def later(work: Work) -> Verdict:
            return Verdict(postponed=[PostponedRecipients(work.recipients[1:], Reply("later"))])

        def none(work: Work) -> Verdict:
            return Verdict(postponed=[PostponedRecipients(work.recipients, Reply("later"))])

        several = delivery("a@x.org", "b@x.org")
        assert len(run(several, adding(self.NOTE), Scripted(does=later)).added) == 1
        assert run(several, adding(self.NOTE), Scripted(does=none)).added == ()

    def test_a_verdict_that_fails_adds_nothing(self) -> None:
        bad = Verdict(content=b"nonsense", added=[self.NOTE])
        processing = run(delivery(), Scripted(does=lambda _: bad))
        assert isinstance(processing.outcomes[0], Deferred)
        assert processing.added == ()
