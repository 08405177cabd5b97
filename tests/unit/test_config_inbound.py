"""What a configuration file says of incoming mail: rules, postprocessors, policy, subscribers and the journal."""

import dataclasses
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from postroom.breaker import consecutive_wait
from postroom.config import Config
from postroom.config_inbound import COMMON, POSTPROCESSORS, RECEIVING, RULE
from postroom.config_subscribers import SUBSCRIBER
from postroom.errors import ConfigurationError
from postroom.events import InboundChanged, NewMessage, RecipientEvent, RecipientFailed
from postroom.inbound.hooks import FunctionPostprocessor, Postprocessor
from postroom.inbound.policy import ReceivePolicy
from postroom.inbound.postprocessors import Route, SpamTag, StripAttachments
from postroom.inbound.rules import ReceiveRule
from postroom.inbound.values import Arrival
from postroom.notifying.journalled import KINDS, LIVE_ONLY
from postroom.notifying.subscribers import WebhookSubscriber
from postroom.settings import Settings
from postroom.transports.memory import MemoryTransport
from tests.support.config_files import MEMORY, SPOOL_ONLY, configured

MODULE = "inbound_for_test_config"


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / f"{MODULE}.py").write_text(
        "from postroom.inbound.postprocessors import SpamTag\n"
        "made = SpamTag(name='made')\n"
        "def ticket(message, incoming): return None\n"
        "def loud(event): return True\n"
        "def one(event): return True\n"
        "number = 3\n",
        encoding="utf-8",
    )
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    yield
    sys.modules.pop(MODULE, None)


def settings_of(folder: Path, text: str) -> Settings:
    return configured(folder, f'{SPOOL_ONLY}{text}[[transport]]\nkind = "memory"\n').settings


def hook(kind: str, text: str = "") -> str:
    return f'[[postprocessor]]\nkind = "{kind}"\n{text}'


def hook_of(folder: Path, text: str, *, deliver: bool = True) -> Postprocessor:
    (source,) = configured(folder, MEMORY + text).postprocessors
    return source.make(deliver=deliver)


CRM = "[[subscriber]]\nto = 'memory:a'\nname = 'a'\n"


def subscriber(text: str = "") -> str:
    return f'{MEMORY}[[subscriber]]\nto = "memory:crm"\nname = "crm"\n{text}'


def test_a_file_that_says_nothing_means_what_the_classes_mean(tmp_path: Path) -> None:
    config = configured(tmp_path, MEMORY)
    assert (config.receivers, config.rules, config.postprocessors, config.subscribers) == ((), (), (), ())
    assert config.bounces is None
    plain = config.receiving
    assert plain is not None
    default = ReceivePolicy()
    for field in dataclasses.fields(ReceivePolicy):
        if field.name != "wait":
            assert getattr(plain, field.name) == getattr(default, field.name)


# The journal


def test_what_the_journal_keeps(tmp_path: Path) -> None:
    settings = settings_of(
        tmp_path, 'keep_events = "1d"\ndurable_events = ["NewMessage", "recipient_failed"]\n'
    )
    assert (settings.keep_events, settings.durable_events) == (
        86400.0,
        frozenset({"NewMessage", "RecipientFailed"}),
    )
    assert settings_of(tmp_path, 'durable_events = "all"\n').journalled == frozenset(KINDS) - LIVE_ONLY
    about = settings_of(tmp_path, 'durable_events = ["RecipientEvent"]\n').journalled
    assert about == {name for name in KINDS if name.startswith("Recipient")}
    assert settings_of(tmp_path, "keep_events = 0\n").journalled == frozenset()


# Policy and rules


def test_the_policy(tmp_path: Path) -> None:
    text = (
        'folder = "Desk"\nreports_folder = "Bounces"\nquarantine = "Odd"\nmax_hops = 9\nkeep_trash = "2d"\n'
        'attempts = 3\nclerks = 2\nread_receipts = "always"\nidentities = ["ann@here.example"]\n'
        'wait = { initial = "5s", max = "15s", jitter = 0.0 }\n'
    )
    policy = configured(tmp_path, f"{MEMORY}[receiving]\n{text}").receiving
    assert policy is not None
    assert (policy.folder, policy.reports_folder, policy.quarantine) == ("Desk", "Bounces", "Odd")
    assert (policy.max_hops, policy.keep_trash, policy.attempts, policy.clerks) == (9, 172800.0, 3, 2)
    assert (policy.read_receipts, policy.identities) == ("always", ("ann@here.example",))
    assert [consecutive_wait(policy.wait, attempts) for attempts in (1, 2, 3)] == [5.0, 10.0, 15.0]
    text = '[receiving]\nkeep_trash = "forever"\nreports_folder = false\n'
    other = configured(tmp_path, MEMORY + text).receiving
    assert other is not None
    assert (other.keep_trash, other.reports_folder) == (None, None)


def test_rules_in_their_order(tmp_path: Path) -> None:
    text = (
        '[[rule]]\nfolder = "Support/Open"\nrecipient = "support@*"\nstop = false\n'
        '[[rule]]\nheader = "List-Id"\ntags = ["list"]\n'
        '[[rule]]\nfolder = "Deep"\nmessage_class = "IPM.Note"\nsender = "*@x.example"\nsubject = "*inv*"\n'
        'receiver = "desk"\nremote_folder = "INBOX"\ntag = "list"\n'
    )
    assert configured(tmp_path, MEMORY + text).rules == (
        ReceiveRule("Support/Open", recipient="support@*", stop=False),
        ReceiveRule(None, header="List-Id", tags=("list",)),
        ReceiveRule(
            "Deep", message_class="IPM.Note", sender="*@x.example", subject="*inv*", receiver="desk",
            remote_folder="INBOX", tag="list",
        ),
    )  # fmt: skip


# Postprocessors


def test_the_postprocessors_that_are_there(tmp_path: Path) -> None:
    spam = hook_of(
        tmp_path,
        hook(
            "spam",
            'header = ""\nscore = "X-Score"\nthreshold = 3\ntag = "junk"\nfolder = false\ntimeout = "5s"\n',
        ),
    )
    assert isinstance(spam, SpamTag)
    assert (spam.name, spam.header, spam.score, spam.threshold, spam.tag, spam.folder, spam.timeout) == (
        "spam-tag", "", "X-Score", 3.0, "junk", None, 5.0,
    )  # fmt: skip
    strip = hook_of(
        tmp_path,
        hook(
            "strip",
            'types = ["video/*"]\nextensions = ["exe"]\nmax_size = "1MiB"\nnote = "gone: {name}"\ntag = "cut"\n'
            'left = "kept"\non_error = "skip"\nname = "knife"\n',
        ),
    )
    assert isinstance(strip, StripAttachments)
    assert (strip.types, strip.extensions, strip.max_size) == (["video/*"], ["exe"], 1 << 20)
    assert (strip.note, strip.tag, strip.left, strip.on_error, strip.name) == (
        "gone: {name}", "cut", "kept", "skip", "knife",
    )  # fmt: skip
    text = 'keep = false\nauthor = "a@here.example"\nsender = ""\nto = { "sales@*" = ["ann@x.example"] }\n'
    route = hook_of(tmp_path, hook("route", text))
    assert isinstance(route, Route)
    assert (route.to, route.keep, route.author, route.sender) == (
        {"sales@*": ["ann@x.example"]},
        False,
        "a@here.example",
        "",
    )


@pytest.mark.usefixtures("module")
def test_postprocessors_of_ones_own(tmp_path: Path) -> None:
    function = hook_of(tmp_path, hook("python", f'object = "{MODULE}:ticket"\non_error = "quarantine"\n'))
    assert isinstance(function, FunctionPostprocessor)
    assert (function.name, function.on_error) == ("ticket", "quarantine")
    assert hook_of(tmp_path, hook("python", f'object = "{MODULE}:made"\ntimeout = "1s"\n')).timeout == 1.0
    tagged = hook_of(
        tmp_path, hook("python", f'object = "{MODULE}:SpamTag"\noptions = {{ tag = "x" }}\nname = "n"\n')
    )
    assert isinstance(tagged, SpamTag)
    assert (tagged.tag, tagged.name) == ("x", "n")
    with pytest.raises(ConfigurationError, match=rf"{MODULE}:one does not take \(message, incoming\)"):
        hook_of(tmp_path, hook("python", f'object = "{MODULE}:one"\n'))
    with pytest.raises(ConfigurationError, match="neither a Postprocessor nor a function"):
        hook_of(tmp_path, hook("python", f'object = "{MODULE}:number"\n'))
    text = f'{MEMORY}[[sent_hook]]\nobject = "{MODULE}:made"\n'
    with pytest.raises(ConfigurationError, match="is a Postprocessor") as raised:
        configured(tmp_path, text).spooler()
    assert "[[postprocessor]]" in raised.value.remedy


@pytest.mark.usefixtures("module")
def test_where_messages_are_only_accepted_they_wait_for_who_runs_the_code(tmp_path: Path) -> None:
    text = MEMORY + hook("python", f'object = "{MODULE}:ticket"\n') + hook("spam")
    config = configured(tmp_path, text)
    with config.spooler(deliver=False) as spooler:
        spooler.inlet("web").take([arrival()])
        assert list(spooler.mail.list(None)) == []
    assert MODULE not in sys.modules
    with config.spooler() as spooler:
        next(event for event in spooler.event_log.follow(kinds=[NewMessage], timeout=20.0))
        assert [message.receiver for message in spooler.mail.list()] == ["web"]


def arrival() -> Arrival:
    return Arrival(content=b"From: ann@sender.example\r\nSubject: x\r\n\r\nhi\r\n")


# Subscribers


@pytest.mark.usefixtures("module")
def test_a_subscriber(tmp_path: Path) -> None:
    text = (
        f'kinds = ["NewMessage", "recipient_failed"]\nfilter = "{MODULE}:loud"\nbatch = 7\nordered = true\n'
        'start = "oldest"\nsender = "a@here.example"\nauthor = "A <a@here.example>"\npriority = "urgent"\n'
        'lifetime = "1h"\n'
    )
    (source,) = configured(tmp_path, subscriber(text)).subscribers
    assert MODULE not in sys.modules
    made = source.make()
    assert made == WebhookSubscriber(
        to="memory:crm", name="crm", kinds=(NewMessage, RecipientFailed), filter=made.filter, batch=7,
        ordered=True, start="oldest", sender="a@here.example", author="A <a@here.example>", priority=1,
        lifetime=3600.0,
    )  # fmt: skip
    assert made.wants(InboundChanged(0.0, "0", "Inbox", "read"))
    assert callable(made.filter)
    wrong = subscriber(f'filter = "{MODULE}:number"\n')
    with pytest.raises(ConfigurationError, match=r"crm filter: .*number is no function"):
        configured(tmp_path, wrong).spooler()


def test_a_subscriber_is_told_through_the_spool(tmp_path: Path) -> None:
    config: Config = configured(tmp_path, subscriber('kinds = ["NewMessage"]\n'))
    with config.spooler() as spooler:
        (memory,) = spooler.transports_configured
        assert isinstance(memory, MemoryTransport)
        spooler.inlet("web").take([arrival()])
        assert memory.wait_for(1, timeout=20.0)
    (told,) = memory.deliveries
    assert b"application/json" in told.content


def test_all_that_classes_take_can_be_said() -> None:
    assert set(RULE) == {field.name for field in dataclasses.fields(ReceiveRule) if field.init}
    assert set(RECEIVING) == {field.name for field in dataclasses.fields(ReceivePolicy)}
    assert set(SUBSCRIBER) == {field.name for field in dataclasses.fields(WebhookSubscriber)}
    for make, own, required in POSTPROCESSORS.values():
        if isinstance(make, type):
            fields = {field.name for field in dataclasses.fields(make) if field.init}
            assert fields == (set(own) | set(COMMON)) - {"kind"}
        assert set(required) <= set(own)
    assert RecipientEvent not in KINDS.values()


MISTAKES = [
    ("[[rules]]\n", r"\[rules\]: is not a known section", "did you mean rule"),
    ("[rule]\n", r"\[rule\]: is one table", r"\[\[rule\]\]"),
    ("[[rule]]\nrecipient = 'a@*'\n", "folder: is missing", "which tags"),
    ("[[rule]]\ntags = ['x']\nstop = true\n", "stop: is for rules with a folder", "leave it out"),
    ("[[rule]]\nfolder = 'a'\nrecipent = 'a@*'\n", "recipent: is not a known key", "did you mean recipient"),
    ("[[rule]]\nfolder = '/a'\n", "folder: '/a'", "."),
    ("[[rule]]\nfolder = 'a'\nheader = 'a b: c'\n", "header: 'a b' is no name", "Name: glob"),
    ("[receiving]\nmax_hop = 3\n", "max_hop: is not a known key", "did you mean max_hops"),
    ("[receiving]\nmax_hops = 0\n", "max_hops: 0 is no positive number", "1 or more"),
    ("[receiving]\nread_receipts = 'maybe'\n", "read_receipts: 'maybe' is not possible", "use one of"),
    ("[receiving]\nreports_folder = true\n", "reports_folder: True is not a text", "quotes"),
    ("[receiving]\nwait = { first = '1s' }\n", "wait: first: is not a known key", "initial"),
    ("[[postprocessor]]\n", r"\[\[postprocessor\]\] number 1 kind: is missing", "spam, strip, route, python"),
    (hook("spam", "threshhold = 3\n"), "threshhold: is not a known key", "did you mean threshold"),
    (hook("spam", 'header = ""\n'), "header: is empty, and so is score", "name one"),
    (hook("spam", 'on_error = "fail"\n'), "on_error: 'fail' is not possible", "quarantine"),
    (hook("spam", "timeout = 0\n"), "timeout: 0.0 is not positive", "above 0"),
    (hook("strip"), "types: says nothing", "types, extensions or max_size"),
    (hook("route"), "to: is missing", "add to"),
    (hook("route", 'to = { "a@*" = "b@x.example" }\n'), r"to: a@\*: 'b@x.example' is not a list", "write"),
    (hook("spam") + hook("spam"), "number 2 name: 'spam-tag' is taken", "a name of its own"),
    ("[[subscriber]]\nto = 'memory:a'\n", "name: is missing", "add name"),
    ("[[subscriber]]\nto = 'memory:a'\nname = 'a/b'\n", "name: 'a/b' has a slash", "plain"),
    (CRM + "batch = 0\n", "batch: 0 is out of range", "1 to 1000"),
    (CRM + "kinds = ['NewMesage']\n", "kinds: 'NewMesage' is no event", "NewMessage"),
    (CRM + "kinds = ['MessageQueued']\n", "kinds: MessageQueued is not kept", "durable_events"),
    (2 * CRM, "a name: 'a' is taken", "a name of its own"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "problem", "remedy"), MISTAKES)
def test_mistakes_are_named(tmp_path: Path, text: str, problem: str, remedy: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"postroom\.toml: .*{problem}") as raised:
        configured(tmp_path, MEMORY + text)
    assert re.search(remedy, raised.value.remedy)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('durable_events = ["NewMesage"]\n', "durable_events: 'NewMesage' is no event"),
        ("durable_events = []\n", r"durable_events: \[\] is not a choice of events"),
        ('durable_events = "some"\n', "durable_events: 'some' is not a list"),
    ],
)
def test_mistakes_about_the_journal(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"\[spool\] {problem}"):
        settings_of(tmp_path, text)
