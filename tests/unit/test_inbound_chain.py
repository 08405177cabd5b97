"""The chain of postprocessors: verdicts folded into a filing, whatever other people's code does. No spool here."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from email.message import EmailMessage
from typing import Any

import pytest
from tenacity import wait_fixed

from postroom.clock import ManualClock
from postroom.envelopes import Submission
from postroom.errors import ConfigurationError, UsageError
from postroom.ids import key_at
from postroom.inbound.chain import Chain, Filed, Outcome, Postponed, put_off
from postroom.inbound.digesting import digest_of
from postroom.inbound.hooks import UNCHANGED, Incoming, Postprocessed, Postprocessor, postprocessor
from postroom.inbound.policy import ReceivePolicy
from postroom.inbound.processing import Interrupted, Processor
from postroom.inbound.rules import ReceiveRule
from postroom.inbound.values import Arrival, Filing, InboundRecord, NewInbound
from postroom.preprocessing.threads import Hung
from postroom.stores.base import NewMessage
from tests.support.spooling import PATIENCE

CONTENT = b"From: ann@example.org\nSubject: hello\n\nbare \xff LF\r\n"
NOW = 1_800_000_000.0
POLICY = ReceivePolicy(attempts=3, wait=wait_fixed(60))
SUBMISSION = Submission(message=b"From: a@x\r\n\r\n", sender="", to=["bob@example.net"])


def record(**more: Any) -> InboundRecord:
    given: dict[str, Any] = {
        "key": key_at(NOW), "folder": "", "received": NOW, "receiver": "imap", "digest": digest_of(CONTENT),
        "sender": "ann@example.org", "recipients": ("bob@example.com",), "remote": "192.0.2.1", "size": len(CONTENT),
        "attempts": 1, "due": NOW + 60,
    }  # fmt: skip
    return InboundRecord(**(given | more))


ARRIVAL = Arrival(
    content=CONTENT, sender="ann@example.org", recipients=("bob@example.com",), remote="192.0.2.1"
)


def admit(submission: Submission, field: str) -> NewMessage:
    if submission.to is None:
        raise UsageError(f"{field}to", "is missing", "name somebody")
    return NewMessage(
        1, "", b"", (), NOW, NOW, idempotency_key=submission.idempotency_key, digest=b"of what it says"
    )


def hook(
    answer: Postprocessed | Callable[[Incoming], Any] | BaseException,
    name: str = "hook",
    on_error: Any = "defer",
) -> Postprocessor:
    def function(_: EmailMessage, incoming: Incoming) -> Any:
        if isinstance(answer, BaseException):
            raise answer
        return answer(incoming) if callable(answer) else answer

    return postprocessor(name=name, on_error=on_error)(function)


def run(
    *hooks: Postprocessor, rules: tuple[ReceiveRule, ...] = (), policy: ReceivePolicy = POLICY, **of: Any
) -> Outcome:
    chain = Chain(hooks, rules=rules, policy=policy, admit=admit, max_size=1000)
    return chain.run(record(**of), ARRIVAL, lambda each, incoming: each.process(incoming), lambda: NOW)


def filing(*hooks: Postprocessor, **more: Any) -> Filing:
    outcome = run(*hooks, **more)
    assert isinstance(outcome, Filed)
    return outcome.filing


def test_without_an_opinion_the_rules_decide() -> None:
    assert filing() == Filing(folders=("Inbox",))
    assert filing(hook(UNCHANGED), rules=(ReceiveRule("Ann", sender="ann@*", tags=("x",)),)) == Filing(
        folders=("Ann",), tags=("x",)
    )


def test_what_a_postprocessor_sees() -> None:
    seen: list[Incoming] = []
    filing(hook(seen.append), tags=("vip",), matched=True, attempts=2)
    (incoming,) = seen
    assert incoming.content == CONTENT
    assert incoming.digest.subject == "hello"
    assert (incoming.sender, incoming.recipients, incoming.receiver) == (
        "ann@example.org", ("bob@example.com",), "imap",
    )  # fmt: skip
    assert (incoming.tags, incoming.matched, incoming.attempt, incoming.remote) == (
        ("vip",),
        True,
        2,
        "192.0.2.1",
    )
    assert incoming.parse()["Subject"] == "hello"
    assert len(incoming.message_id) == 13


def test_a_change_is_seen_by_those_after_it_and_by_the_rules() -> None:
    new = b"Subject: changed\n\nnot \x00 even mail"
    seen: list[Incoming] = []
    result = filing(
        hook(Postprocessed(content=new, tags=("a", "b", "a")), "one"),
        hook(seen.append, "two"),
        rules=(ReceiveRule("Changed", subject="changed", tag="b"),),
    )
    assert seen[0].content == new
    assert (seen[0].digest.subject, seen[0].tags) == ("changed", ("a", "b"))
    assert result.folders == ("Changed",)
    assert (result.content, result.digest) == (new, digest_of(new))


def test_the_same_content_is_no_change() -> None:
    assert filing(hook(lambda incoming: incoming.content)).content is None


def test_a_message_object_is_serialised() -> None:
    def change(message: EmailMessage, _: Incoming) -> EmailMessage:
        message["X-Seen"] = "größer"
        return message

    result = filing(postprocessor()(change))
    assert result.content is not None
    assert b"X-Seen: =?utf-8?q?gr=C3=B6=C3=9Fer?=\r\n" in result.content
    assert result.content.endswith(b"bare \xff LF\r\n")


def test_folders_and_ends() -> None:
    first, last = hook(Postprocessed(folder="A"), "a"), hook(Postprocessed(folder="B/C", reason="so"), "b")
    assert filing(first, last).folders == ("B/C",)
    assert filing(first, last).reason == "b: so"
    assert filing(first, hook(UNCHANGED)).folders == ("A",)
    assert filing(hook(Postprocessed(stop=True, folder="A"), "a"), last).folders == ("A",)


def test_dropping_needs_no_folder_and_says_why() -> None:
    never = hook(AssertionError("asked after a drop"), "never")
    assert filing(hook(Postprocessed(drop=True, reason="a virus")), never) == Filing(
        folders=(), reason="dropped by hook: a virus"
    )


def test_reports_about_ours_go_to_their_folder() -> None:
    rules = (ReceiveRule("A"),)
    assert filing(matched=True, rules=rules).folders == ("Reports",)
    assert filing(hook(Postprocessed(folder="B")), matched=True).folders == ("B",)
    assert filing(matched=True, rules=rules, policy=ReceivePolicy(reports_folder=None)).folders == ("A",)


def test_forwarded_messages_have_keys_of_their_own() -> None:
    forward = (
        SUBMISSION,
        replace(SUBMISSION, idempotency_key="k"),
        replace(SUBMISSION, idempotency_key="k" * 250),
    )
    outcomes = [run(hook(Postprocessed(forward=forward)), attempts=attempts) for attempts in (1, 2)]
    messages = [outcome.messages for outcome in outcomes if isinstance(outcome, Filed)]
    assert messages[0] == messages[1]
    one, own, long = messages[0]
    assert one.idempotency_key == f"post:hook:{key_at(NOW)}:0"
    assert own.idempotency_key == "post:hook:own:k"
    assert long.idempotency_key is not None
    assert len(long.idempotency_key) <= 255
    assert len({message.digest for message in messages[0]}) == 3
    assert b"of what it says" not in {message.digest for message in messages[0]}


def test_what_is_dropped_may_be_sent_on() -> None:
    outcome = run(hook(Postprocessed(drop=True, forward=[SUBMISSION])))
    assert isinstance(outcome, Filed)
    assert len(outcome.messages) == 1


BAD: Sequence[Any] = [
    RuntimeError("boom"),
    7,
    Postprocessed(content=7),  # type: ignore[arg-type]
    Postprocessed(content=b"x" * 1001),
    Postprocessed(folder="/"),
    Postprocessed(tags=("not ok",)),
    Postprocessed(tags="vip"),
    Postprocessed(forward=["no"]),  # type: ignore[list-item]
    Postprocessed(forward=[SUBMISSION] * 101),
    Postprocessed(forward=[replace(SUBMISSION, to=None)]),
]


@pytest.mark.parametrize("answer", BAD, ids=map(str, range(len(BAD))))
def test_errors_defer(answer: Any) -> None:
    outcome = run(hook(Postprocessed(tags=("x",)), "before"), hook(answer))
    assert isinstance(outcome, Postponed)
    assert outcome.due == NOW + 60
    assert outcome.error.startswith("postprocessor hook: ")


@pytest.mark.parametrize("answer", BAD, ids=map(str, range(len(BAD))))
def test_errors_skip_and_leave_nothing_behind(answer: Any) -> None:
    result = run(hook(answer, on_error="skip"), hook(Postprocessed(tags=("after",)), "after"))
    assert result == Filed(Filing(folders=("Inbox",), tags=("after",)))


@pytest.mark.parametrize("answer", BAD, ids=map(str, range(len(BAD))))
def test_errors_quarantine_what_came(answer: Any) -> None:
    changed = hook(Postprocessed(content=b"x", tags=("x",), forward=[SUBMISSION]), "before")
    result = run(changed, hook(answer, on_error="quarantine"), tags=("rule",))
    assert isinstance(result, Filed)
    assert result.messages == ()
    assert (result.filing.folders, result.filing.content, result.filing.tags) == (
        ("Quarantine",),
        None,
        ("rule",),
    )
    assert result.filing.reason.startswith("postprocessor hook: ")


def test_the_last_attempt_ends_in_quarantine() -> None:
    result = filing(hook(RuntimeError("x" * 1000)), attempts=3)
    assert result.folders == ("Quarantine",)
    assert result.reason.startswith("postprocessor hook: RuntimeError: xxx")
    assert len(result.reason) == 500
    assert put_off(record(attempts=3), "x", POLICY, NOW) == Filed(
        Filing(folders=("Quarantine",), reason="x (after 3 attempts)")
    )


def test_what_ended_processes_is_not_tried_again() -> None:
    never = hook(AssertionError("called"))
    assert filing(never, attempts=4, error="boom").reason == "boom (after 4 attempts)"
    assert filing(never, attempts=4).reason.startswith("its postprocessing never came to an end")


def test_malformed_messages_that_cannot_be_written_anew_are_an_error() -> None:
    class Broken(EmailMessage):
        def as_bytes(self, *_: Any, **__: Any) -> bytes:
            raise UnicodeEncodeError("ascii", "x", 0, 1, "no")

    outcome = run(hook(lambda _: Broken()))
    assert isinstance(outcome, Postponed)
    assert "cannot be serialised" in outcome.error


def test_names_are_unique() -> None:
    with pytest.raises(ConfigurationError, match=r"postprocessors\[1\].name"):
        run(hook(UNCHANGED), hook(UNCHANGED))


@pytest.mark.parametrize(
    ("field", "given"),
    [
        ("name", {"name": "a b"}),
        ("name", {"name": "ü"}),
        ("timeout", {"timeout": 0}),
        ("on_error", {"on_error": "fail"}),
    ],
)
def test_bad_postprocessors_are_named(field: str, given: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        postprocessor(**given)(lambda _message, _incoming: None)
    assert caught.value.field == field


# In clerks' threads


def processor(each: Postprocessor, hung: Hung | None = None) -> Processor:
    chain = Chain([each], rules=(), policy=POLICY, admit=admit, max_size=1000)
    return Processor(chain, hung or Hung(2, 2), ManualClock())


NEW = NewInbound(
    key=key_at(NOW), arrival=ARRIVAL, receiver="imap", received=NOW, digest=digest_of(CONTENT), folders=()
)


def test_one_that_hangs_is_left_behind() -> None:
    gate = threading.Event()
    back = threading.Event()

    def hang(_: Incoming) -> None:
        gate.wait(PATIENCE)
        back.set()

    hanging = hook(hang)
    hanging.timeout = 0.05
    hung = Hung(1, 1)
    work = processor(hanging, hung)
    outcome = work.perform((record(), NEW))
    assert isinstance(outcome, Postponed)
    assert "no answer within 0.05 s" in outcome.error
    assert hung.too_many
    refused = work.perform((record(), NEW))
    assert isinstance(refused, Postponed)
    assert "not called because" in refused.error
    gate.set()
    assert back.wait(PATIENCE)
    work.close()


def test_an_interruption_is_nobodys_error() -> None:
    began = threading.Event()
    gate = threading.Event()

    def wait(_: Incoming) -> None:
        began.set()
        gate.wait(PATIENCE)

    work = processor(hook(wait, on_error="skip"))
    outcome: list[BaseException] = []

    def perform() -> None:
        try:
            work.perform((record(), NEW))
        except BaseException as error:  # noqa: BLE001 - that is what is looked at
            outcome.append(error)

    thread = threading.Thread(target=perform)
    thread.start()
    assert began.wait(PATIENCE)
    work.interrupt()
    thread.join(PATIENCE)
    assert isinstance(outcome[0], Interrupted)
    with pytest.raises(Interrupted):
        work.perform((record(), NEW))
    gate.set()
    work.close()
