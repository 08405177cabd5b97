"""What a configuration file says of transports to programs, mbox files, Apprise and NATS."""

import re
import ssl
from pathlib import Path

import pytest
import trustme

from postroom.addresses import parse_address
from postroom.errors import ConfigurationError
from postroom.outcomes import Delivered, Relayed
from postroom.replies import Verdict
from postroom.transports.apprise import AppriseTransport
from postroom.transports.mbox import MboxTransport
from postroom.transports.nats import NatsTransport
from postroom.transports.pipe import PipeTransport, SendmailTransport
from tests.support.config_files import SPOOL_ONLY, configured, transport_of


def kind(name: str, text: str = "") -> str:
    return f'{SPOOL_ONLY}[[transport]]\nkind = "{name}"\n{text}'


def test_a_pipe(tmp_path: Path) -> None:
    text = kind(
        "pipe",
        'command = ["/usr/bin/deliver", "--", "{recipient}"]\nenv = { LEVEL = "3" }\ncwd = "work"\n'
        'timeout = "2m"\nmax_size = "1MiB"\nline_ends = "crlf"\nfrom_line = true\noutcome = "relayed"\n'
        'exits = [{ code = 69, means = "deferred", status = "4.3.0", why = "busy" }]\n',
    )
    pipe = transport_of(PipeTransport)(tmp_path, text)
    assert pipe.command == ("/usr/bin/deliver", "--", "{recipient}")
    assert (pipe.env, pipe.cwd, pipe.timeout, pipe.max_size) == (
        {"LEVEL": "3"},
        tmp_path / "work",
        120.0,
        1 << 20,
    )
    assert (pipe.line_ends, pipe.from_line, pipe.outcome) == ("crlf", True, Relayed)
    assert pipe.table[69].means is Verdict.DEFERRED


def test_sendmail(tmp_path: Path) -> None:
    plain = transport_of(SendmailTransport)(tmp_path, kind("sendmail"))
    assert (plain.command[0], plain.outcome) == ("/usr/sbin/sendmail", Relayed)
    text = kind("sendmail", 'path = "/usr/bin/msmtp"\noptions = ["-v"]\noutcome = "delivered"\n')
    own = transport_of(SendmailTransport)(tmp_path, text)
    assert own.command[:3] == ("/usr/bin/msmtp", "-i", "-v")
    assert own.outcome is Delivered


def test_an_mbox(tmp_path: Path) -> None:
    mbox = transport_of(MboxTransport)(tmp_path, kind("mbox", 'root = "mail"\nlock_timeout = "1m"\n'))
    assert (mbox.root, mbox.lock_timeout) == (tmp_path / "mail", 60.0)


def test_apprise_and_where_its_urls_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "team.url").write_text("json://team\n", encoding="ascii")
    text = kind(
        "apprise", 'urls = false\nservices = { ops = { env = "OPS" }, team = { file = "team.url" } }\n'
    )
    config = configured(tmp_path, text)
    (apprise,) = config.transports
    assert isinstance(apprise, AppriseTransport)
    assert not apprise.urls
    with pytest.raises(ConfigurationError, match=r"OPS"):
        config.check_secrets()
    monkeypatch.setenv("OPS", "json://ops")
    config.check_secrets()
    assert apprise.url(parse_address("apprise:ops")) == "json://ops"
    assert apprise.url(parse_address("apprise:team")) == "json://team"


def test_nats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NATS_PASSWORD", "p")
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    text = kind(
        "nats",
        'servers = ["tls://a.example.org:4222", "tls://b.example.org:4222"]\nusername = "app"\n'
        'password_env = "NATS_PASSWORD"\nca_file = "ca.pem"\nbody = "json"\nno_stream = "fail"\nack_timeout = "3s"\n',
    )
    nats = transport_of(NatsTransport)(tmp_path, text)
    assert nats.servers == ("tls://a.example.org:4222", "tls://b.example.org:4222")
    assert callable(nats.password)
    assert nats.password() == "p"
    assert isinstance(nats.tls, ssl.SSLContext)
    assert (nats.jetstream, nats.body, nats.no_stream, nats.ack_timeout) == (True, "json", "fail", 3.0)


WRONG = [
    (kind("pipe"), "command: is missing", "add command"),
    (kind("pipe", 'command = "x"\n'), "command: 'x' is not a list", "write"),
    (kind("pipe", "command = ['x', '{who}']\n"), r"\{who\} is not a placeholder", "use one of"),
    (kind("pipe", "command = ['x']\nexits = [{ code = 1 }]\n"), "means: is missing", "add means"),
    (kind("pipe", "command = ['x']\nexits = [{ code = 1, means = 'bad' }]\n"), "means: 'bad'", "failed"),
    (kind("mbox"), "root: is missing", "add root"),
    (kind("apprise", "services = { ops = 'slack://x' }\n"), "ops: is a secret", "env = "),
    (kind("apprise", "services = { ops = { } }\n"), "ops: says not where", "file = "),
    (kind("apprise", "services = { ops = { url = 'x' } }\n"), "url: is not a known key", "use one of"),
    (kind("apprise", "services = { ops = { env = 'A', file = 'b' } }\n"), "stands beside", "one of them"),
    (kind("nats", "password = 'x'\n"), "password: is a secret", "password_file"),
    (kind("nats", "no_stream = 'ignore'\n"), "no_stream: 'ignore' is not", "defer"),
]


@pytest.mark.parametrize(("text", "problem", "remedy"), WRONG)
def test_mistakes_are_named(tmp_path: Path, text: str, problem: str, remedy: str) -> None:
    with pytest.raises(ConfigurationError, match=problem) as caught:
        configured(tmp_path, text)
    assert re.search(re.escape(remedy), caught.value.remedy)
