"""What a configuration file says of a transport: throttles, retries by destination, reply rows, failover."""

import re
import ssl
from pathlib import Path

import pytest

from postroom.addresses import parse_address
from postroom.breaker import consecutive_wait
from postroom.errors import ConfigurationError, TransportDown
from postroom.outcomes import Deferred, Failed, Reply
from postroom.replies import Phase, Verdict
from postroom.retries import RetryPolicies, RetryPolicy
from postroom.throttles import DestinationLimits, Rate, Throttle
from postroom.transports.memory import MemoryTransport
from postroom.transports.mx import MX_DESTINATION, MxTransport
from postroom.transports.smtp import SmtpTransport
from postroom.transports.webhook import WebhookTransport
from postroom.windows import parse_window
from tests.support.config_files import MEMORY, SMTP, SPOOL_ONLY, WEBHOOK, configured, transport_of

smtp_of = transport_of(SmtpTransport)
webhook_of = transport_of(WebhookTransport)
memory_of = transport_of(MemoryTransport)
mx_of = transport_of(MxTransport)

MX = SPOOL_ONLY + '[[transport]]\nkind = "mx"\nhostname = "mail.example.org"\n'

THROTTLE = SMTP + "[transport.throttle]\n"
DESTINATION = SMTP + "[transport.throttle.destination]\n"


def waits(policy: RetryPolicy, *, greylisted: bool = False, count: int = 4) -> list[float | None]:
    return [
        policy.next_attempt(attempts=n, first_attempt=0.0, now=0.0, greylisted=greylisted)
        for n in range(1, count + 1)
    ]


# What is said of the whole


def test_failover_coupling_and_strict_order(tmp_path: Path) -> None:
    text = MEMORY + 'failover_after = "30m"\ntightly_coupled = true\n'
    text += "limits = { concurrency = 1, strict_order = true }\n"
    memory = memory_of(tmp_path, text)
    assert memory.failover_after == 1800.0
    assert memory.tightly_coupled
    assert memory.limits.strict_order


def test_nothing_of_it_by_default(tmp_path: Path) -> None:
    memory = memory_of(tmp_path, MEMORY)
    assert memory.throttle == Throttle()
    assert memory.failover_after is None
    assert not memory.tightly_coupled
    assert not memory.limits.strict_order
    assert isinstance(memory.retry, RetryPolicy)


def test_dsn_can_be_switched_off(tmp_path: Path) -> None:
    assert smtp_of(tmp_path, SMTP).dsn
    assert not smtp_of(tmp_path, SMTP + "dsn = false\n").dsn


# Straight to mail exchangers


def test_an_mx_transport(tmp_path: Path) -> None:
    text = MX + 'own_hosts = ["MX.example.org"]\ntls = "required"\nsource_address = "192.0.2.1"\nmax_mx = 2\n'
    text += 'timeouts = { connect = "5s" }\nthrottle = { rate = "5/s" }\nlimits = { concurrency = 3 }\n'
    text += 'replies = [{ code = 450, verdict = "destination_down" }]\n'
    transport = mx_of(tmp_path, text)
    assert (transport.hostname, transport.tls, transport.max_mx) == ("mail.example.org", "required", 2)
    assert transport.own_names == {"mail.example.org", "mx.example.org"}
    assert (transport.source_address, transport.families) == ("192.0.2.1", (4,))
    assert transport.timeouts.connect == 5.0
    assert transport.throttle == Throttle(rate=Rate(5), destination=MX_DESTINATION)
    assert (transport.limits.concurrency, transport.limits.recipients_per_delivery) == (3, 50)
    held = transport.table.outcome(Reply("no", "", 450), Phase.RCPT)
    assert isinstance(held, Deferred)
    assert held.destination_down


# Throttles


def test_rates_and_hours(tmp_path: Path) -> None:
    text = THROTTLE + 'rate = "100/min burst 20"\nhours = "Mo-Fr 09:00-17:00 Europe/Berlin"\n'
    throttle = smtp_of(tmp_path, text).throttle
    assert throttle.rate == Rate(100, 60.0, 20)
    assert throttle.hours == parse_window("Mo-Fr 09:00-17:00 Europe/Berlin")
    assert not throttle.by_destination


def test_limits_of_destinations(tmp_path: Path) -> None:
    text = DESTINATION + 'concurrency = 8\ninitial = 2\nrate = "5/s"\ncohorts = 0\n'
    text += 'probe = { initial = "5s", max = "15s", jitter = 0 }\n'
    limits = smtp_of(tmp_path, text).throttle.destination
    assert limits is not None
    assert (limits.concurrency, limits.initial, limits.rate, limits.cohorts) == (8, 2, Rate(5), 0.0)
    assert limits.probe is not None
    assert [consecutive_wait(limits.probe, failures) for failures in range(1, 4)] == [5.0, 10.0, 15.0]


def test_an_empty_destination_table_limits_with_the_defaults(tmp_path: Path) -> None:
    assert smtp_of(tmp_path, DESTINATION).throttle.destination == DestinationLimits()


def test_an_override_leaves_the_rest_as_it_is_for_all(tmp_path: Path) -> None:
    text = DESTINATION + 'concurrency = 10\nrate = "5/s"\n'
    text += '[transport.throttle.overrides."*.Example.COM"]\nconcurrency = 1\n'
    text += '[transport.throttle.overrides."bücher.example"]\nrate = "unlimited"\n'
    throttle = smtp_of(tmp_path, text).throttle
    assert list(throttle.overrides) == ["*.example.com", "xn--bcher-kva.example"]
    assert throttle.overrides["*.example.com"] == DestinationLimits(concurrency=1, rate=Rate(5))
    assert throttle.overrides["xn--bcher-kva.example"] == DestinationLimits(concurrency=10)


def test_an_override_without_a_destination_table(tmp_path: Path) -> None:
    throttle = smtp_of(tmp_path, SMTP + '[transport.throttle.overrides."[::1]"]\nconcurrency = 1\n').throttle
    assert throttle.destination is None
    assert throttle.overrides == {"[[]::1]": DestinationLimits(concurrency=1)}


# Retries


def test_retries_by_destination(tmp_path: Path) -> None:
    text = SMTP + '[transport.retry]\ninitial = "1m"\nmax = "4m"\njitter = 0\ngive_up = "forever"\n'
    text += '[transport.retry.destinations."gmail.com"]\nmax = "2m"\n'
    text += '[transport.retry.destinations."*.example.com"]\nattempts = 2\n'
    policies = smtp_of(tmp_path, text).retry
    assert isinstance(policies, RetryPolicies)
    at = policies.for_address
    assert waits(at(parse_address("ann@example.org"))) == [60.0, 120.0, 240.0, 240.0]
    assert waits(at(parse_address("ann@gmail.com"))) == [60.0, 120.0, 120.0, 120.0]
    assert waits(at(parse_address("ann@mail.example.com"))) == [60.0, None, None, None]


def test_greylisted_recipients_wait_in_steps(tmp_path: Path) -> None:
    policy = smtp_of(tmp_path, SMTP + 'retry = { greylist = ["1m", "10m"] }\n').retry
    assert isinstance(policy, RetryPolicy)
    for wait, step in zip(waits(policy, greylisted=True), (60, 600, 600, 600), strict=True):
        assert wait is not None
        assert step <= wait <= 1.2 * step


# Replies


def test_reply_rows_come_before_the_built_in_ones(tmp_path: Path) -> None:
    text = SMTP + (
        "replies = [\n"
        '  { code = 450, status = "4.7.*", text = "slow down", verdict = "destination_down", retry_after = "5m" },\n'
        '  { code = [550, 554], phases = ["rcpt"], verdict = "deferred", record_status = "4.7.1", why = "ours" },\n'
        '  { code = "45.", attempts = 1, verdict = "greylisted" },\n'
        "]\n"
    )
    transport = smtp_of(tmp_path, text)
    slow = transport.table.outcome(Reply("Slow down!", "4.7.0", 450), Phase.RCPT)
    assert isinstance(slow, Deferred)
    assert (slow.destination_down, slow.retry_after) == (True, 300.0)
    refused = transport.table.outcome(Reply("no", "", 554), Phase.RCPT)
    assert isinstance(refused, Deferred)
    assert refused.reply.status == "4.7.1"
    assert isinstance(transport.table.outcome(Reply("no", "", 554), Phase.DATA), Failed)
    first = transport.table.outcome(Reply("later", "", 451), Phase.RCPT)
    second = transport.table.outcome(Reply("later", "", 451), Phase.RCPT, attempts=1)
    assert isinstance(first, Deferred)
    assert isinstance(second, Deferred)
    assert (first.greylisted, second.greylisted) == (True, False)
    assert transport.replies[1].why == "ours"


def test_reply_rows_about_exceptions(tmp_path: Path) -> None:
    text = SMTP + (
        "replies = [\n"
        '  { exception = "ssl:SSLCertVerificationError", verdict = "transport_down", retry_after = "1h" },\n'
        '  { exception = "ConnectionRefusedError", verdict = "transport_down", retry_after = "9s" },\n]\n'
    )
    transport = smtp_of(tmp_path, text)
    assert transport.table.outage(ssl.SSLCertVerificationError("bad"), "mail").retry_after == 3600.0
    refused = transport.table.outage(ConnectionRefusedError(), "mail")
    assert isinstance(refused, TransportDown)
    assert refused.retry_after == 9.0


def test_reply_rows_of_webhooks(tmp_path: Path) -> None:
    text = WEBHOOK + 'replies = [{ code = 404, asked = true, verdict = "destination_down" }]\n'
    row = webhook_of(tmp_path, text).replies[0]
    assert (row.codes, row.asked, row.means) == ("404", True, Verdict.DESTINATION_DOWN)


# Mistakes

OVERRIDE = SMTP + '[transport.throttle.overrides."{}"]\n'
REPLIES = "replies = [{{ {} }}]\n"
RETRY_FOR = SMTP + '[transport.retry.destinations."{}"]\n'

MISTAKES = [
    (SPOOL_ONLY + "[[transport]]\nkind = 'mx'\n", "hostname: is missing", "add"),
    (
        SPOOL_ONLY + "[[transport]]\nkind = 'mx'\nhostname = 'host'\n",
        "hostname: 'host' is a name",
        "full name",
    ),
    (MX + "tls = 'always'\n", "tls: 'always' is not possible", "one of"),
    (MX + "source_address = 'eth0'\n", "source_address: 'eth0' is no IP address", "192.0.2.1"),
    (SMTP + "failover_after = 'soon'\n", "failover_after: 'soon' is not a duration", "30s"),
    (SMTP + "tightly_coupled = 'yes'\n", "tightly_coupled: 'yes' is neither", "without quotes"),
    (
        MEMORY + "tightly_coupled = true\n[[transport]]\nkind = 'log'\ntightly_coupled = true\n",
        "number 2 tightly_coupled: memory is so already",
        "one transport",
    ),
    (SMTP + "limits = { strict_order = true }\n", "limits.strict_order: 8 couriers", "concurrency to 1"),
    (SMTP + "throttle = 5\n", "throttle: 5 is not a table", "section"),
    (THROTTLE + "rat = 5\n", "throttle: rat: is not a known key", "did you mean rate?"),
    (THROTTLE + "rate = 5\n", "throttle: rate: 5 is not a text", "quotes"),
    (THROTTLE + "rate = '5/year'\n", "throttle: rate: '5/year' is not understood", "100/min"),
    (THROTTLE + "hours = 'Mo-Fry 9-5'\n", "throttle: hours: .* is not", "Mo"),
    (
        THROTTLE + "hours = 'Mo 09:00-10:00 Europe/Nowhere'\n",
        "hours: the time zone 'Europe/Nowhere'",
        "Berlin",
    ),
    (DESTINATION + "concurency = 1\n", "throttle: destination: concurency: is not a known", "concurrency"),
    (DESTINATION + "concurrency = 0\n", "throttle: destination: concurrency: 0 is less than 1", "at least 1"),
    (DESTINATION + "cohorts = -1\n", "throttle: destination: cohorts: -1.0 is negative", "0 for never"),
    (DESTINATION + "concurrency = 2\ninitial = 3\n", "initial: 3 is more than the concurrency 2", "raise"),
    (
        DESTINATION + "probe = { initial = 0 }\n",
        "destination: probe: initial: is not between",
        "less than max",
    ),
    (OVERRIDE.format("ann@example.com"), 'overrides."ann@example.com": is neither a domain', "follows the @"),
    (OVERRIDE.format("*.bücher.example"), r'overrides."\*.bücher.example": ', "xn--"),
    (
        OVERRIDE.format("a") + "rate = 'x'\n",
        "throttle: overrides.\"a\": rate: 'x' is not understood",
        "100/min",
    ),
    (
        SMTP + "[transport.throttle.overrides]\na = 3\n",
        'throttle: overrides."a": 3 is not a table',
        "section",
    ),
    (OVERRIDE.format("a") + OVERRIDE.format("A")[len(SMTP) :], 'overrides."A": is there twice', "join"),
    (SMTP + "retry = { greylist = '5m' }\n", "retry: greylist: '5m' is not a list of durations", "15m"),
    (SMTP + "retry = { greylist = [0] }\n", "retry: greylist: a wait of 0 is none", "above 0"),
    (RETRY_FOR.format("x y"), 'retry: destinations."x y": is neither a domain', "host"),
    (RETRY_FOR.format("a") + "give_upp = 1\n", 'destinations."a": give_upp: is not a known key', "give_up?"),
    (RETRY_FOR.format("a") + "attempts = 0\n", 'destinations."a": attempts: is less than 1', "how many"),
    (
        RETRY_FOR.format("a") + "destinations = {}\n",
        'destinations."a": destinations: is not a known',
        "use one",
    ),
    (RETRY_FOR.format("a") + RETRY_FOR.format("A")[len(SMTP) :], 'destinations."A": is there twice', "join"),
    (SMTP + "replies = { code = 450 }\n", "replies: .* is not a list", "write"),
    (SMTP + REPLIES.format("code = 450"), r"number 1 replies\[0\]: verdict: is missing", "add"),
    (
        SMTP + REPLIES.format("code = 450, verdict = 'greylist'"),
        r"replies\[0\]: verdict: 'greylist' is not possible",
        "did you mean greylisted?",
    ),
    (SMTP + REPLIES.format("code = 450, verdict = 'ok'"), "verdict: 'ok' is not possible", "one of|did you"),
    (SMTP + REPLIES.format("cod = 450, verdict = 'failed'"), r"replies\[0\]: cod: is not a known", "code?"),
    (SMTP + REPLIES.format("code = 45, verdict = 'failed'"), r"replies\[0\]: code: 45 is no reply", "450"),
    (SMTP + REPLIES.format("code = [], verdict = 'failed'"), r"replies\[0\]: code: \[\] is no reply", "450"),
    (SMTP + REPLIES.format("code = '(', verdict = 'failed'"), r"replies\[0\]: code: is no regular", "escape"),
    (
        SMTP + REPLIES.format("code = 250, verdict = 'failed'"),
        r"replies\[0\]: code: '250' matches succ",
        "400",
    ),
    (
        SMTP + REPLIES.format("status = 'x', verdict = 'failed'"),
        r"replies\[0\]: status: 'x' is no glob",
        "4.7",
    ),
    (
        SMTP + REPLIES.format("code = 450, verdict = 'failed', record_status = '4.1.1'"),
        r"replies\[0\]: record_status: 4.1.1 contradicts failed",
        "begin it with 5",
    ),
    (
        SMTP + REPLIES.format("code = 450, verdict = 'failed', retry_after = '5m'"),
        r"replies\[0\]: retry_after: nothing is tried again",
        "leave it out",
    ),
    (
        SMTP + REPLIES.format("verdict = 'failed'"),
        r"replies\[0\]: verdict: is for every refusal",
        "say which",
    ),
    (
        SMTP + REPLIES.format("code = 450, phases = ['rcp'], verdict = 'failed'"),
        r"replies\[0\]: phases: 'rcp' is not possible",
        "did you mean rcpt?",
    ),
    (
        SMTP + REPLIES.format("code = 450, asked = true, verdict = 'deferred'"),
        r"replies\[0\]: asked: SMTP has no Retry-After",
        "leave it out",
    ),
    (
        SMTP + REPLIES.format("exception = 'ConnectionEror', verdict = 'transport_down'"),
        "exception: 'ConnectionEror' is not a built-in",
        "did you mean ConnectionError?",
    ),
    (
        SMTP + REPLIES.format("exception = 'len', verdict = 'transport_down'"),
        "exception: 'len' is not the class",
        "ConnectionError",
    ),
    (
        SMTP + REPLIES.format("exception = 'ssl:SSLEror', verdict = 'transport_down'"),
        "exception: the module ssl has no 'SSLEror'",
        "did you mean SSLError?",
    ),
    (
        WEBHOOK + REPLIES.format("code = 450, status = '4.*', verdict = 'failed'"),
        r"replies\[0\]: status: HTTP has no enhanced",
        "leave it out",
    ),
    (
        SMTP + REPLIES.format("exception = 'OSError', code = 450, verdict = 'transport_down'"),
        r"replies\[0\]: code: stands beside exception",
        "two rows",
    ),
    (
        SMTP + REPLIES.format("exception = 'OSError', verdict = 'failed'"),
        r"replies\[0\]: verdict: an SMTP connection that fails is about the whole server",
        "transport_down",
    ),
    (SPOOL_ONLY + "[[transport]]\nkind = 'log'\nreplies = []\n", "replies: is not a known key", "use one of"),
]


@pytest.mark.parametrize(("text", "problem", "remedy"), MISTAKES)
def test_a_mistake_is_named_with_its_place_and_its_remedy(
    tmp_path: Path, text: str, problem: str, remedy: str
) -> None:
    with pytest.raises(ConfigurationError, match=problem) as caught:
        configured(tmp_path, text)
    assert caught.value.field.startswith("postroom.toml: [[transport]] ")
    assert re.search(remedy, caught.value.remedy)
