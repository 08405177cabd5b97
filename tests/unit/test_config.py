"""The configuration file: everything it may say, and that each mistake is named with file, table, key and remedy."""

import dataclasses
import logging
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from postroom.breaker import consecutive_wait
from postroom.config import METRICS, SPOOL, load
from postroom.config_bounces import BOUNCES
from postroom.config_hooks import COMMON as HOOK
from postroom.config_hooks import KEY, PREPROCESSING, SENT_HOOK
from postroom.config_hooks import KINDS as HOOKS
from postroom.config_inbound import COMMON as POSTPROCESSOR
from postroom.config_inbound import POSTPROCESSORS, RECEIVING, RULE
from postroom.config_listeners import USER
from postroom.config_lists import MEMBER
from postroom.config_receivers import COMMON as RECEIVER
from postroom.config_receivers import RECEIVERS
from postroom.config_replies import REPLY
from postroom.config_reports import REPORTS, TEMPLATES
from postroom.config_retries import RETRY, WAIT
from postroom.config_subscribers import SUBSCRIBER
from postroom.config_throttles import DESTINATION, THROTTLE
from postroom.config_transports import COMMON, EXIT, KINDS, LIMITS, SERVICE
from postroom.config_values import SECONDS, parse_duration
from postroom.envelope_recipients import Recipient, Report
from postroom.errors import ConfigurationError
from postroom.outcomes import Delivered
from postroom.preprocessing.dkim import DkimKey, DkimSigner
from postroom.preprocessing.footers import Footer
from postroom.replies import ReplyRow
from postroom.reports.policy import ReportPolicy
from postroom.retries import DAY, RetryPolicy
from postroom.settings import MIB, Settings
from postroom.throttles import DestinationLimits, Throttle
from postroom.transports.base import Limits
from postroom.transports.log import LogTransport
from postroom.transports.maildir import MaildirTransport
from postroom.transports.smtp import LmtpTransport, SmtpTransport
from postroom.transports.webhook import WebhookTransport
from tests.support.config_files import MEMORY, SMTP, SPOOL_ONLY, WEBHOOK

ROOT = Path(__file__).resolve().parents[2]

OWN_KEYS = {
    "password_file",
    "secret_env",
    "logger",
    "keep",
    "local_hostname",
    "allow_plaintext_auth",
    "pipelining",
    "outcome",
    "one_recipient",
    "access_token_env",
    "access_token_file",
    "former_env",
}
"""What the example leaves to docs/configuration.md."""

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def to_file(text: str) -> Path:
        file = tmp_path / "postroom.toml"
        file.write_text(text, encoding="utf-8")
        return file

    return to_file


def smtp_of(file: Path) -> SmtpTransport:
    (transport,) = load(file).transports
    assert isinstance(transport, SmtpTransport)
    return transport


def retry_of(file: Path) -> RetryPolicy:
    policy = smtp_of(file).retry
    assert isinstance(policy, RetryPolicy)
    return policy


def test_the_example_says_what_it_seems_to_say(monkeypatch: pytest.MonkeyPatch) -> None:
    config = load(ROOT / "examples/postroom.toml")
    assert config.path == ROOT / "examples/spool.db"
    assert (config.metrics_host, config.metrics_port) == ("127.0.0.1", 9125)
    assert [transport.name for transport in config.transports] == [
        "relay",
        "lmtp",
        "webhook",
        "maildir",
        "log",
    ]
    relay, lmtp, webhook, maildir, log = config.transports
    assert isinstance(relay, SmtpTransport)
    assert isinstance(lmtp, LmtpTransport)
    assert isinstance(webhook, WebhookTransport)
    assert isinstance(maildir, MaildirTransport)
    assert isinstance(log, LogTransport)
    assert (relay.host, relay.port, relay.security, relay.username) == (
        "mail.example.org",
        587,
        "starttls",
        "app",
    )
    assert relay.timeouts.connect == 30.0
    assert relay.limits.concurrency == 8
    assert lmtp.host == "/run/dovecot/lmtp"
    assert maildir.root == ROOT / "examples/mail"
    assert log.level == logging.INFO
    monkeypatch.delenv("RELAY_PASSWORD", raising=False)
    with pytest.raises(ConfigurationError, match="RELAY_PASSWORD"):
        config.check_secrets()


def test_what_the_example_comments_out_as_defaults_are_the_defaults(write: Write) -> None:
    lines = (ROOT / "examples/postroom.toml").read_text(encoding="utf-8").splitlines()
    begin = lines.index("[spool]")
    spool = [line.removeprefix("# ") for line in lines[begin : lines.index("", begin)] if " = " in line]
    shown = [line for line in spool if not line.startswith(("message_id_domain", "lifetime"))]
    assert len(shown) == len(SPOOL) - 2
    config = load(write("[spool]\n" + "\n".join(shown) + '\n[[transport]]\nkind = "memory"\n'))
    assert config.settings == Settings()


def every_key() -> set[str]:
    tables: list[Mapping[str, object]] = [
        SPOOL, METRICS, COMMON, LIMITS, RETRY, WAIT, THROTTLE, DESTINATION, REPLY, REPORTS, TEMPLATES, MEMBER,
        PREPROCESSING, HOOK, KEY, SENT_HOOK, EXIT, SERVICE,
        BOUNCES, RECEIVER, USER, RECEIVING, RULE, POSTPROCESSOR, SUBSCRIBER,
        *(own for _, own, _ in KINDS.values()), *(own for own, _ in HOOKS.values()),
        *(own for _, own, _ in RECEIVERS.values()), *(own for _, own, _ in POSTPROCESSORS.values()),
    ]  # fmt: skip
    return {key for table in tables for key in table}


def test_the_example_shows_every_key() -> None:
    text = (ROOT / "examples/postroom.toml").read_text(encoding="utf-8")
    shown = set(re.findall(r"\b([a-z_]+)\s*=", text))
    for header in re.findall(r"^(?:# )?\[([^\]]+)\]", text, re.MULTILINE):
        shown.update(header.split("."))
    assert every_key() - OWN_KEYS - shown == set()


def test_the_page_about_it_names_every_key() -> None:
    page = (ROOT / "docs/configuration.md").read_text(encoding="utf-8")
    assert every_key() - set(re.findall(r"`([a-z_]+)(?:`| = )", page)) == set()


def test_what_the_example_comments_out_can_be_said(tmp_path: Path) -> None:
    lines = (ROOT / "examples/postroom.toml").read_text(encoding="utf-8").splitlines()
    text = "\n".join(re.sub(r"^# (?=\[|[a-z_]+ = )", "", line) for line in lines)
    assert text.count("[[preprocessor]]\n") + text.count("[[preprocessor]] ") == 3
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    for kind in Report:
        (tmp_path / f"{kind}.txt").write_text("Subject: $subject\n\n$failed\n", encoding="utf-8")
    (tmp_path / "lists.txt").write_text("more: ann@example.org\n", encoding="utf-8")
    file = tmp_path / "postroom.toml"
    file.write_text(text, encoding="utf-8")
    config = load(file)
    assert config.settings.lifetime == 5 * DAY
    assert len(config.lists) == 2
    assert [source.kind for source in config.preprocessors] == ["footer", "python", "dkim"]
    assert len(config.sent_hooks) == 1
    assert [source.kind for source in config.receivers] == ["imap", "pop3", "maildir", "smtp", "python"]
    assert [source.kind for source in config.postprocessors] == ["spam", "strip", "route", "python"]
    assert (len(config.rules), len(config.subscribers)) == (3, 1)
    assert config.bounces is not None
    assert config.reports.deliver == "myapp.reports:take"


def test_every_setting_and_every_limit_can_be_configured() -> None:
    assert set(SPOOL) == {"path"} | {field.name for field in dataclasses.fields(Settings)}
    assert set(LIMITS) == {field.name for field in dataclasses.fields(Limits)}
    assert set(REPORTS) == {"enabled"} | {field.name for field in dataclasses.fields(ReportPolicy)}
    assert set(DESTINATION) == {field.name for field in dataclasses.fields(DestinationLimits)}
    assert set(THROTTLE) == {field.name for field in dataclasses.fields(Throttle)}
    assert set(KEY) == {field.name for field in dataclasses.fields(DkimKey)}
    assert set(MEMBER) == {field.name for field in dataclasses.fields(Recipient)}
    assert len(REPLY) == len(dataclasses.fields(ReplyRow))
    said = {key for own, _ in HOOKS.values() for key in own} | set(HOOK)
    assert {
        field.name for kind in (Footer, DkimSigner) for field in dataclasses.fields(kind) if field.init
    } <= said


@pytest.mark.parametrize("kind", KINDS)
def test_every_option_of_a_transport_is_one_of_its_constructor(kind: str) -> None:
    make, own, required = KINDS[kind]
    fields = {field.name for field in dataclasses.fields(make)}  # type: ignore[arg-type]
    said_otherwise = {"ca_file", "password_env", "password_file", "secret_env", "secret_file"}
    assert set(own) - said_otherwise <= fields
    assert set(required) <= set(own)
    not_for_files = {
        "answer", "clock", "monotonic", "password", "secret", "ssl_context", "tls", "bounces", "resolver", "shuffle",
    }  # fmt: skip
    settable = {field.name for field in dataclasses.fields(make) if field.init}  # type: ignore[arg-type]
    assert settable - not_for_files <= set(own) | set(COMMON)


def test_a_small_file_is_enough(write: Write, tmp_path: Path) -> None:
    config = load(write(MEMORY))
    assert (config.lists, config.names, config.preprocessors, config.sent_hooks) == ((), None, (), ())
    assert config.reports.policy == ReportPolicy()
    assert config.path == tmp_path / "spool.db"
    assert config.settings == Settings()
    assert config.metrics_port is None
    with config.spooler() as spooler:
        receipt = spooler.submit(b"From: a@example.org\n\nhi\n", to="memory:ann")
        assert receipt.wait(10).succeeded


def test_settings_are_read(write: Write) -> None:
    text = 'keep_sent = "forever"\nkeep_content = "1h30m"\nmax_message_size = "2MiB"\nmax_recipients = 7\n'
    text += 'expire_held = true\nunroutable = "fail"\nsearch = false\n'
    settings = load(write(SPOOL_ONLY + text + '[[transport]]\nkind = "memory"\n')).settings
    assert settings.keep_sent is None
    assert settings.keep_content == 5400.0
    assert settings.max_message_size == 2 * MIB
    assert settings.max_recipients == 7
    assert (settings.expire_held, settings.unroutable, settings.search) == (True, "fail", False)


def test_retry_is_an_exponential_schedule(write: Write) -> None:
    retry = 'retry = { initial = "1m", max = "4m", jitter = 0.0, give_up = "1h", attempts = 9 }\n'
    policy = retry_of(write(SMTP + retry))
    waits = [policy.next_attempt(attempts=n, first_attempt=0.0, now=0.0) for n in range(1, 5)]
    assert waits == [60.0, 120.0, 240.0, 240.0]
    assert policy.next_attempt(attempts=9, first_attempt=0.0, now=0.0) is None
    assert policy.next_attempt(attempts=2, first_attempt=0.0, now=3600.0) is None


def test_retry_may_go_on_forever(write: Write) -> None:
    policy = retry_of(write(SMTP + 'retry = { give_up = "forever" }\n'))
    assert policy.next_attempt(attempts=10_000, first_attempt=0.0, now=1e9) is not None


def test_probes_are_an_exponential_schedule(write: Write) -> None:
    probe = smtp_of(write(SMTP + 'probe = { initial = "5s", max = "15s", jitter = 0.0 }\n')).probe
    assert probe is not None
    assert [consecutive_wait(probe, failures) for failures in range(1, 5)] == [5.0, 10.0, 15.0, 15.0]
    assert smtp_of(write(SMTP)).probe is None


def test_limits_that_are_not_given_are_the_transports_own(write: Write) -> None:
    limits = smtp_of(write(SMTP + 'limits = { concurrency = 3, session_age = "1m" }\n')).limits
    assert (limits.concurrency, limits.session_age) == (3, 60.0)
    assert (
        limits.recipients_per_delivery
        == SmtpTransport("h", security="none").limits.recipients_per_delivery
        == 100
    )


def test_a_password_is_read_from_the_environment_when_it_is_needed(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_WORD", "first")
    transport = smtp_of(write(SMTP + 'username = "app"\npassword_env = "SECRET_WORD"\n'))
    assert callable(transport.password)
    assert transport.password() == "first"
    monkeypatch.setenv("SECRET_WORD", "second")
    assert transport.password() == "second"
    assert "second" not in repr(transport)


def test_a_password_file_is_relative_to_the_configuration_and_read_anew(write: Write, tmp_path: Path) -> None:
    (tmp_path / "word").write_text("first\n", encoding="utf-8")
    config = load(write(SMTP + 'username = "app"\npassword_file = "word"\n'))
    config.check_secrets()
    (secret,) = config.secrets
    (tmp_path / "word").write_text("second\n", encoding="utf-8")
    assert secret() == "second"
    (tmp_path / "word").unlink()
    assert secret() == "second"


def test_an_empty_or_unreadable_secret_is_refused(write: Write, tmp_path: Path) -> None:
    config = load(write(WEBHOOK + 'secret_file = "word"\n'))
    with pytest.raises(ConfigurationError, match="cannot be read: No such file"):
        config.check_secrets()
    (tmp_path / "word").write_text(" \n", encoding="utf-8")
    with pytest.raises(ConfigurationError, match="the secret is empty"):
        config.check_secrets()


def test_an_lmtp_socket_and_an_outcome(write: Write, tmp_path: Path) -> None:
    text = SPOOL_ONLY + '[[transport]]\nkind = "lmtp"\nhost = "./lmtp.sock"\n'
    assert smtp_of(write(text)).host == str(tmp_path / "lmtp.sock")
    assert smtp_of(write(SMTP + 'outcome = "delivered"\n')).outcome is Delivered


MISTAKES = [
    ("[spool", "is not TOML", "mend the syntax"),
    (MEMORY + "[spol]\nx = 1\n", r"\[spol\]: is not a known section", "did you mean spool?"),
    (MEMORY.replace("path", "pth"), r"\[spool\] pth: is not a known key", "did you mean path?"),
    ("[spool]\n[[transport]]\nkind = 'memory'\n", r"\[spool\] path: is missing", "add path"),
    ("spool = 3\n", "spool: is not a table", r"begin a section with \[spool\]"),
    (SPOOL_ONLY + "keep_snt = 1\n" + MEMORY[len(SPOOL_ONLY) :], "keep_snt: is not a known key", "keep_sent"),
    (
        SPOOL_ONLY + "keep_sent = true\n" + MEMORY[len(SPOOL_ONLY) :],
        "keep_sent: True is not a duration",
        "30s",
    ),
    (SPOOL_ONLY + "keep_sent = nan\n" + MEMORY[len(SPOOL_ONLY) :], "keep_sent: nan is not a duration", "30s"),
    (SPOOL_ONLY + "keep_sent = '7 days'\n" + MEMORY[len(SPOOL_ONLY) :], "'7 days' is not a duration", "7d"),
    (SPOOL_ONLY + "max_message_size = '1 MB'\n" + MEMORY[len(SPOOL_ONLY) :], "'1 MB' is not a size", "50MiB"),
    (
        SPOOL_ONLY + "max_recipients = 0\n" + MEMORY[len(SPOOL_ONLY) :],
        r"\[spool\] max_recipients: 0 is not",
        "above 0",
    ),
    (
        SPOOL_ONLY + "max_recipients = 2.5\n" + MEMORY[len(SPOOL_ONLY) :],
        "2.5 is not a whole number",
        "digits",
    ),
    (
        SPOOL_ONLY + "synchronous = 'ful'\n" + MEMORY[len(SPOOL_ONLY) :],
        "'ful' is not possible",
        "did you mean full?",
    ),
    (MEMORY + "[metrics]\nport = 70000\n", r"\[metrics\] port: 70000 is not a TCP port", "0 to 65535"),
    (SPOOL_ONLY, r"\[\[transport\]\]: is missing", "add one"),
    (SPOOL_ONLY + "[transport]\nkind = 'memory'\n", r"\[transport\]: is one table", "double brackets"),
    (SPOOL_ONLY + "[[transport]]\nname = 'x'\n", r"\[\[transport\]\] x kind: is missing", "webhook"),
    (
        SPOOL_ONLY + "[[transport]]\nkind = 'smpt'\n",
        "number 1 kind: 'smpt' is not possible",
        "did you mean smtp?",
    ),
    (SPOOL_ONLY + "[[transport]]\nkind = 'smtp'\n", "host: is missing", "add host"),
    (SMTP + "prot = 25\n", "prot: is not a known key", "did you mean port?"),
    (SMTP + "port = '25'\n", "port: '25' is not a whole number", "without quotes"),
    (SMTP + "pipelining = 'yes'\n", "pipelining: 'yes' is neither true nor false", "without quotes"),
    (SMTP + "patterns = '*@x'\n", "patterns: .* is not a list", "write"),
    (SMTP + "limits = 4\n", "limits: 4 is not a table", "section of its own"),
    (SMTP + "[transport.limits]\nconcurency = 4\n", "limits: concurency: is not a known key", "concurrency"),
    (SMTP + "[transport.limits]\nconcurrency = 0\n", "limits.concurrency: 0 is not positive", "above 0"),
    (
        SMTP + "[transport.retry]\ninitial = '5h'\nmax = '1h'\n",
        "retry: initial: is not between",
        "less than max",
    ),
    (SMTP + "[transport.retry]\njitter = 2\n", "retry: jitter: is not a fraction", "0 to 1"),
    (SMTP + "[transport.retry]\nattempts = 0\n", "retry: attempts: is less than 1", "how many"),
    (SMTP + "password = 'x'\n", "password: is a secret", "use password_file"),
    (SMTP + "username = 'x'\n", "username: username and password go together", "both or neither"),
    (
        SMTP + "username = 'x'\npassword_env = 'A'\npassword_file = 'b'\n",
        "stands beside password_file",
        "one of them",
    ),
    (SMTP + "ca_file = 'none.pem'\n", "ca_file: .*none.pem", "PEM"),
    (WEBHOOK + "secret = 'x'\n", "secret: is a secret", "secret_file"),
    (WEBHOOK + "headers = { Host = 'x' }\n", "headers.'Host'.: is set by the transport", "leave it out"),
    (WEBHOOK + "timeouts = { read = 0 }\n", "timeouts: read: 0.0 is not positive", "above 0"),
    (MEMORY + "name = 'preprocess'\n", "'preprocess' is the preprocessors' stage", "otherwise"),
    (
        MEMORY + "[[preprocesor]]\nkind = 'dkim'\n",
        r"\[preprocesor\]: is not a known section",
        "preprocessor?",
    ),
    (
        SPOOL_ONLY + "unroutable = 'fial'\n" + MEMORY[len(SPOOL_ONLY) :],
        "'fial' is not possible",
        "mean fail?",
    ),
    (SPOOL_ONLY + "search = 1\n" + MEMORY[len(SPOOL_ONLY) :], "search: 1 is neither true nor", "quotes"),
    (MEMORY + "[[transport]]\nkind = 'memory'\n", "number 2 name: 'memory' is taken", "a name of its own"),
    (
        SPOOL_ONLY + "[[transport]]\nkind = 'maildir'\nroot = 'm'\nfolder = '{x}'\n",
        "folder: .'x'. is not",
        "{value}",
    ),
]


@pytest.mark.parametrize(("text", "problem", "remedy"), MISTAKES)
def test_a_mistake_is_named_with_its_place_and_its_remedy(
    write: Write, text: str, problem: str, remedy: str
) -> None:
    with pytest.raises(ConfigurationError, match=problem) as caught:
        load(write(text))
    assert "postroom.toml" in caught.value.field
    assert re.search(remedy, caught.value.remedy)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"none\.toml: cannot be read: No such file"):
        load(tmp_path / "none.toml")


@given(st.lists(st.tuples(st.integers(0, 10_000), st.sampled_from(sorted(SECONDS))), min_size=1, max_size=4))
def test_durations_are_the_sum_of_their_parts(parts: list[tuple[int, str]]) -> None:
    text = "".join(f"{amount}{unit}" for amount, unit in parts)
    assert parse_duration(text) == pytest.approx(sum(amount * SECONDS[unit] for amount, unit in parts))


@given(st.text(max_size=8))
def test_a_text_is_a_duration_or_refused_with_a_remedy(text: str) -> None:
    try:
        seconds = parse_duration(text)
    except ValueError as error:
        assert "; write " in str(error)  # noqa: PT017 - either is right
    else:
        assert 0 <= seconds < float("inf")


@pytest.mark.parametrize("value", [None, [], {}, 1.5])
def test_values_of_other_types_are_refused_not_crashed_on(value: Any) -> None:
    for key, reader in SPOOL.items():
        if isinstance(value, float) and key in {
            "keep_sent",
            "keep_content",
            "keep_events",
            "lifetime",
            "submit_timeout",
            "sync_interval",
        }:
            continue
        with pytest.raises(ValueError, match=r"is not|is neither"):
            reader(value)
