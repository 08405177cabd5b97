"""Preprocessors and sent-hooks as people write them, and what is done when a message is complete."""

import threading
from email.message import EmailMessage
from typing import Any

import pytest

from postroom.errors import ConfigurationError
from postroom.hooks import (
    UNCHANGED,
    FunctionPreprocessor,
    SentHook,
    Verdict,
    Work,
    preprocessor,
    sent_hook,
)
from postroom.preprocessing.aftermath import Aftermath
from postroom.status import MessageStatus
from tests.support.hooks import CONTENT, KEY, Scripted, tagging, work

STATUS = MessageStatus("0ABCDEFGHJKMN", "ann@example.org", "Hello", "<m@x>", 0.0, 1, 0, None, ())


class TestFunctions:
    def test_a_function_gets_the_parsed_message(self) -> None:
        @preprocessor(address_types={"smtp"}, timeout=5, on_error="fail")
        def urgent(message: EmailMessage, given: Work) -> EmailMessage:
            message["Importance"] = "high"
            assert given.message_id
            return message

        assert isinstance(urgent, FunctionPreprocessor)
        assert (urgent.name, urgent.timeout, urgent.on_error) == ("urgent", 5, "fail")
        assert urgent.handles("smtp")
        assert not urgent.handles("https")
        verdict = urgent.process(work())
        assert isinstance(verdict.content, EmailMessage)
        assert verdict.content["Importance"] == "high"

    def test_none_changes_nothing_and_a_verdict_is_taken_as_it_is(self) -> None:
        own = Verdict(content=b"x")

        @preprocessor(name="quiet")
        def nothing(_message: EmailMessage, _work: Work) -> None:
            return None

        @preprocessor()
        def everything(_message: EmailMessage, _work: Work) -> Verdict:
            return own

        assert nothing.name == "quiet"
        assert nothing.process(work()) is UNCHANGED
        assert everything.process(work()) is own

    def test_parse_gives_another_object_each_time(self) -> None:
        given = work()
        first = given.parse()
        first["X-Mine"] = "yes"
        assert "X-Mine" not in given.parse()
        assert given.content == CONTENT


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"name": ""}, "name"),
        ({"name": "a,b"}, "name"),
        ({"name": "a b"}, "name"),
        ({"name": "é"}, "name"),
        ({"name": "x" * 65}, "name"),
        ({"timeout": 0}, "timeout"),
        ({"on_error": "ignore"}, "on_error"),
        ({"address_types": "smtp"}, "address_types"),
    ],
)
def test_bad_settings_are_named(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Scripted(**arguments)
    assert caught.value.field == says


class Cleaner(Scripted):
    """Keeps something for each message until it is complete."""

    def __init__(self, name: str) -> None:
        super().__init__(name=name)
        self.kept = {work().message_id, STATUS.id}

    def clean_up(self, message_id: str) -> None:
        self.kept.discard(message_id)


class TestAftermath:
    def test_everybody_is_told_and_cleaned_up(self) -> None:
        told: list[tuple[MessageStatus, bytes | None]] = []

        @sent_hook
        def log(status: MessageStatus, content: bytes | None) -> None:
            told.append((status, content))

        cleaner = Cleaner("cleaner")
        aftermath = Aftermath([log], [tagging("a"), cleaner])
        assert aftermath.needed
        assert aftermath.conclude(STATUS, CONTENT) == ()
        assert told == [(STATUS, CONTENT)]
        assert STATUS.id not in cleaner.kept
        assert aftermath.conclude(STATUS, None) == ()
        aftermath.close()

    def test_it_is_not_needed_without_anybody_to_tell(self) -> None:
        assert not Aftermath([], [tagging("a")]).needed
        assert Aftermath([], [Cleaner("b")]).needed

    def test_a_failure_is_told_and_harms_nobody_else(self) -> None:
        told: list[str] = []

        class Broken(SentHook):
            def sent(self, status: MessageStatus, content: bytes | None) -> None:
                del status, content
                raise RuntimeError("full")

        @sent_hook
        def after(status: MessageStatus, content: bytes | None) -> None:
            assert content is None
            told.append(status.id)

        aftermath = Aftermath([Broken(name="broken"), after], [Cleaner("c")])
        assert aftermath.conclude(STATUS, None) == ("sent-hook broken: RuntimeError: full",)
        assert told == [STATUS.id]
        aftermath.close()

    def test_a_hanging_one_is_left_behind(self) -> None:
        let_go = threading.Event()

        class Hanging(SentHook):
            def sent(self, status: MessageStatus, content: bytes | None) -> None:
                del status, content
                let_go.wait(30.0)

        cleaner = Cleaner("c")
        aftermath = Aftermath([Hanging(name="hanging", timeout=0.05)], [cleaner])
        (problem,) = aftermath.conclude(STATUS, None)
        assert "sent-hook hanging: no answer" in problem
        assert STATUS.id not in cleaner.kept
        let_go.set()
        aftermath.close()


def test_the_work_knows_its_message() -> None:
    given = work("a@x.org", "https://h.example.org/x")
    assert given.key == KEY
    assert [address.type for address in given.addresses] == ["smtp", "https"]
