"""A real spool without actors, for tests of what follows when a message ends."""

from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from postroom.clock import ManualClock
from postroom.envelopes import Report, Submission, prepare_envelope
from postroom.messages import prepare
from postroom.metrics import Instruments
from postroom.outcomes import Reply
from postroom.recipients import State
from postroom.reports.following import Done, Reporter
from postroom.reports.limiting import SenderLimiter
from postroom.reports.policy import ReportPolicy
from postroom.stores.base import Followup, NewMessage, NewRecipient, Settlement
from postroom.stores.inbox_reader import SqliteInboxReader
from postroom.stores.sqlite import SqliteStore
from tests.support.reporting import reports_counted

NO = Reply("user unknown", "5.1.1", 550, "mx.example.net:25")


class Spool:
    """A spool with a hand-made spooler around it."""

    def __init__(self, path: Path) -> None:
        self.clock = ManualClock()
        self.store = SqliteStore(path, self.clock, linger=10.0)
        self.store.open()
        self.reader = SqliteInboxReader(path)
        self.instruments = Instruments(CollectorRegistry())
        self.max_size = 10**6

    def close(self) -> None:
        self.reader.close()
        self.store.close(leave=True)

    def prepare(self, submission: Submission) -> NewMessage:
        now = self.clock.time()
        prepared = prepare(
            submission.message, now=now, message_id_domain="x.example", unique="x", max_size=self.max_size
        )
        envelope = prepare_envelope(submission, prepared, now=now, max_recipients=100)
        return NewMessage(
            self.store.ids.next(), envelope.sender, prepared.content,
            tuple(NewRecipient(address, "smtp") for address in envelope.recipients), now, now,
            subject=prepared.subject, message_id=prepared.message_id, report=",".join(sorted(envelope.report)),
            idempotency_key=envelope.idempotency_key, digest=envelope.digest,
        )  # fmt: skip

    def submit(self, *to: str, sender: str = "app@example.org", **more: Any) -> int:
        body = more.pop("body", b"Hello\r\n")
        content = b"From: app@example.org\r\nSubject: Invoice\r\nMessage-ID: <m@example.org>\r\n\r\n" + body
        report = more.pop("report", {Report.FAILURE})
        message = self.prepare(Submission(message=content, sender=sender, to=to, report=report))
        return self.accept(message._replace(**more))

    def accept(self, message: NewMessage) -> int:
        self.store.begin()
        (accepted,) = self.store.accept([message], {(message.key, i) for i in range(len(message.recipients))})
        self.store.commit()
        assert not accepted.duplicate
        return accepted.key

    def settle(self, key: int, index: int, state: State, reply: Reply = NO, **more: Any) -> None:
        self.store.begin()
        applied, _ = self.store.settle(
            [
                Settlement(
                    key, index, "smtp", State.QUEUED, state, self.clock.time(), 1, self.clock.time(), reply=reply,
                    outcome=state.label, due=more.pop("due", None), **more,
                )
            ]
        )  # fmt: skip
        self.store.commit()
        assert len(applied) == 1

    def due(self) -> list[Followup]:
        return list(self.reader.followups(self.clock.time(), 100))

    def reporter(self, policy: ReportPolicy | None = None, **more: Any) -> Reporter:
        policy = policy or ReportPolicy()
        values: dict[str, Any] = {
            "policy": policy, "reader": self.reader, "clock": self.clock, "prepare": self.prepare,
            "host": "mail.example.org", "transports": {}, "instruments": self.instruments,
            "limiter": SenderLimiter(policy.per_hour, policy.max_wait),
        }  # fmt: skip
        return Reporter(**{**values, **more})

    def finish(self, followup: Followup, done: Done) -> bool:
        self.store.begin()
        there = self.store.followed_up(followup, done.reported, done.again)
        if there:
            self.store.accept(done.messages, ())
        self.store.commit()
        return there

    def count(self, kind: str, result: str) -> float:
        return reports_counted(self.instruments.registry, kind, result)
