"""Receive rules, the policy, and the way of a message that just came in."""

from typing import Any

import pytest
from tenacity import wait_fixed

from postroom.errors import ConfigurationError
from postroom.ids import key_at
from postroom.inbound.digesting import digest_of
from postroom.inbound.policy import ReceivePolicy
from postroom.inbound.rules import ReceiveRule, check_rules, folders_for
from postroom.inbound.sorting import sort_arrival
from postroom.inbound.values import Arrival, RemoteReport, ReportedRecipient

CONTENT = (
    b"Received: from a\r\nFrom: Ann <ann@example.org>\r\nTo: Support <support@example.com>\r\n"
    b"Cc: carl@example.com\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\nX-Spam-Flag: YES (7)\r\nX-Twice: 1\r\n"
    b"X-Twice: 2\r\n\r\nX-Body: 1\r\n"
)


def filed(
    *rules: ReceiveRule, content: bytes = CONTENT, tags: tuple[str, ...] = (), **arrival: Any
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    arrived = Arrival(content=content, **arrival)
    return folders_for(arrived, digest_of(content), tags, rules, receiver="imap")


@pytest.mark.parametrize(
    ("rule", "holds"),
    [
        ({}, True),
        ({"message_class": "IPM"}, True),
        ({"message_class": "ipm.note"}, True),
        ({"message_class": "IPM.Note."}, True),
        ({"message_class": "IPM.No"}, False),
        ({"message_class": "IPM.Note.OOF"}, False),
        ({"recipient": "SUPPORT@*"}, True),
        ({"recipient": "carl@*"}, True),
        ({"recipient": "ann@*"}, False),
        ({"sender": "*@example.org"}, True),
        ({"sender": "<>"}, False),
        ({"subject": "*grüße"}, True),
        ({"subject": "grü"}, False),
        ({"header": "x-spam-flag: yes*"}, True),
        ({"header": "X-Spam-Flag:no"}, False),
        ({"header": "X-Twice: 2"}, True),
        ({"header": "X-Twice"}, True),
        ({"header": "X-Body"}, False),
        ({"receiver": "imap"}, True),
        ({"receiver": "pop"}, False),
        ({"remote_folder": "INBOX"}, False),
        ({"tag": "v*"}, True),
        ({"tag": "spam"}, False),
        ({"sender": "ann@*", "subject": "no"}, False),
    ],
)
def test_conditions(rule: dict[str, str], holds: bool) -> None:
    folders, _ = filed(ReceiveRule("There", **rule), tags=("vip",))  # type: ignore[arg-type]
    assert folders == (("There",) if holds else ("Inbox",))


def test_the_envelope_goes_before_the_header() -> None:
    known: dict[str, Any] = {"sender": "", "recipients": ("desk@example.com",), "folder": "Lists/x"}
    assert filed(ReceiveRule("R", recipient="support@*"), **known)[0] == ("Inbox",)
    assert filed(ReceiveRule("R", recipient="desk@*"), **known)[0] == ("R",)
    assert filed(ReceiveRule("R", sender="<>"), **known)[0] == ("R",)
    assert filed(ReceiveRule("R", sender="ann@*"), **known)[0] == ("R",)
    assert filed(ReceiveRule("R", remote_folder="lists/*"), **known)[0] == ("R",)


def test_what_the_mailbox_noted_goes_before_to_and_cc() -> None:
    content = b"Delivered-To: ann+lists@example.org\r\n" + CONTENT
    assert filed(ReceiveRule("R", recipient="support@*"), content=content)[0] == ("Inbox",)
    assert filed(ReceiveRule("R", recipient="ann+lists@*"), content=content)[0] == ("R",)


def test_the_first_rule_decides() -> None:
    rules = ReceiveRule("A", subject="no"), ReceiveRule("B"), ReceiveRule("C")
    assert filed(*rules) == (("B",), ())


def test_copies_and_tags() -> None:
    audit = ReceiveRule("Audit", stop=False, tags=("seen-by-audit",))
    label = ReceiveRule(None, sender="ann@*", tags=("ann",))
    tagged = ReceiveRule("Ann", tag="ann")
    # The last one is the message, those before are copies of it.
    assert filed(audit, label, tagged, tags=("x",)) == (("Ann", "Audit"), ("x", "seen-by-audit", "ann"))
    assert filed(audit, label) == (("Inbox", "Audit"), ("seen-by-audit", "ann"))
    assert filed(audit, ReceiveRule("Audit")) == (("Audit",), ("seen-by-audit",))


@pytest.mark.parametrize(
    ("folder", "rule", "field"),
    [
        ("", {}, "folder"),
        ("a//b", {}, "folder"),
        ("/a", {}, "folder"),
        ("a/ b", {}, "folder"),
        ("a/..", {}, "folder"),
        ("a\nb", {}, "folder"),
        ("x" * 256, {}, "folder"),
        (None, {}, "folder"),
        (7, {}, "folder"),
        ("A", {"tags": "vip"}, "tags"),
        ("A", {"tags": ["ok", "not ok"]}, "tags[1]"),
        ("A", {"message_class": ""}, "message_class"),
        ("A", {"message_class": "IPM\n"}, "message_class"),
        ("A", {"header": "X Y: z"}, "header"),
        ("A", {"header": ": z"}, "header"),
        ("A", {"header": 3}, "header"),
        ("A", {"recipient": ""}, "recipient"),
        ("A", {"sender": 3}, "sender"),
        ("A", {"tag": b"x"}, "tag"),
    ],
)
def test_bad_rules_are_named(folder: Any, rule: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        ReceiveRule(folder, **rule)
    assert caught.value.field == field


def test_rules_of_another_type() -> None:
    rule = ReceiveRule("A")
    assert check_rules([rule]) == (rule,)
    with pytest.raises(ConfigurationError, match=r"rules\[1\]"):
        check_rules([rule, "Inbox"])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("folder", ""), ("folder", None), ("reports_folder", "/"), ("quarantine", None), ("max_hops", 0),
        ("max_hops", True), ("attempts", 1.5), ("clerks", -1), ("keep_trash", -1.0), ("wait", 60),
        ("read_receipts", "perhaps"),
    ],
)  # fmt: skip
def test_bad_policies_are_named(field: str, value: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        ReceivePolicy(**{field: value})
    assert caught.value.field == field


def test_attempts_have_pauses_and_an_end() -> None:
    policy = ReceivePolicy(attempts=3, wait=wait_fixed(7))
    now = 1_800_000_000.0
    due = [policy.next_attempt(key=key_at(now), attempts=n, now=now) for n in (1, 2, 3, 4)]
    assert due == [now + 7, now + 7, None, None]
    usual = [ReceivePolicy().next_attempt(key=key_at(now), attempts=n, now=now) for n in (1, 2, 3, 4)]
    for at, about in zip(usual, (30, 60, 120, 240), strict=True):
        assert at is not None
        assert 0.8 * about <= at - now <= 1.2 * about


POLICY = ReceivePolicy(folder="In", max_hops=3)
REPORT = RemoteReport(kind="dsn", recipients=(ReportedRecipient(action="failed"),))


def sort(content: bytes = CONTENT, **more: Any) -> Any:
    given: dict[str, Any] = {
        "key": 5,
        "receiver": "imap",
        "now": 1000.0,
        "policy": POLICY,
        "postprocessed": False,
        **more,
    }
    arrival = given.pop("arrival", Arrival(content=content))
    return sort_arrival(arrival, **given)


def test_sorting() -> None:
    new = sort(rules=[ReceiveRule("Ann", sender="ann@*", tags=("a",))])
    assert (new.key, new.receiver, new.received, new.folders, new.tags) == (
        5,
        "imap",
        1000.0,
        ("Ann",),
        ("a",),
    )
    assert new.digest == digest_of(CONTENT)
    assert (new.report_folder, new.reports, new.quarantine) == (None, (), "")
    assert sort().folders == ("In",)
    assert sort(arrival=Arrival(content=b"", received=7.0)).received == 7.0


def test_postprocessors_see_it_first() -> None:
    new = sort(postprocessed=True, rules=[ReceiveRule("Ann")], reports=[REPORT])
    assert (new.folders, new.tags, new.report_folder, new.reports) == ((), (), "Reports", (REPORT,))


def test_reports_have_a_folder_if_they_are_ours() -> None:
    new = sort(reports=[REPORT])
    assert (new.folders, new.report_folder) == (("In",), "Reports")
    assert sort(reports=[REPORT], policy=ReceivePolicy(reports_folder=None)).report_folder is None


@pytest.mark.parametrize("postprocessed", [False, True])
def test_a_message_in_a_loop_goes_to_quarantine(postprocessed: bool) -> None:
    content = b"Received: again\r\n" * 3 + CONTENT
    new = sort(content, postprocessed=postprocessed, rules=[ReceiveRule("Ann")], reports=[REPORT])
    assert new.folders == ("Quarantine",)
    assert new.quarantine == "mail loop: 4 Received fields, at most 3 are let pass (max_hops)"
    assert (new.reports, new.report_folder) == ((), None)
    assert new.arrival.content == content
    assert sort(b"Received: again\r\n" * 2 + CONTENT).quarantine == ""
