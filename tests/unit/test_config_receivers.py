"""What a configuration file says of receivers, and of the return paths that bounces come back by."""

import dataclasses
import re
import ssl
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from postroom.breaker import consecutive_wait
from postroom.config import Config
from postroom.config_receivers import COMMON, RECEIVERS
from postroom.errors import ConfigurationError
from postroom.receivers.base import Receiver
from postroom.receivers.imap import ImapReceiver
from postroom.receivers.listener import SmtpListener
from postroom.receivers.maildir import MaildirReceiver
from postroom.receivers.memory import MemoryReceiver
from postroom.receivers.pop3 import Pop3Receiver
from postroom.tokens import Tokens
from postroom.transports.mx import MxTransport
from postroom.transports.smtp import SmtpTransport
from tests.support.config_files import MEMORY, SMTP, SPOOL_ONLY, configured

MODULE = "receivers_for_test_config"


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / f"{MODULE}.py").write_text(
        "from postroom.receivers.memory import MemoryReceiver\n"
        "made = MemoryReceiver(name='made')\n"
        "def ours(address): return address == 'ann@here.example'\n"
        "def fits(user, password): return 'tenant' if password == 'word' else None\n"
        "number = 3\n",
        encoding="utf-8",
    )
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    yield
    sys.modules.pop(MODULE, None)


def receiver(kind: str, text: str = "") -> str:
    return f'{MEMORY}[[receiver]]\nkind = "{kind}"\n{text}'


def made(folder: Path, text: str) -> Receiver:
    (source,) = configured(folder, text).receivers
    return source.make()


MAILBOX = 'host = "mail.example.org"\nuser = "desk"\npassword_env = "DESK"\n'
DOOR = 'port = 0\nlocal = ["here.example"]\n'


def test_imap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DESK", "word")
    text = receiver(
        "imap",
        MAILBOX
        + 'name = "desk"\nfolders = ["INBOX", "Support"]\nafter = "move:Done"\nbacklog = "none"\nidle = false\n'
        'max_message_size = "1MiB"\nbatch_messages = 7\nbatch_octets = "2MiB"\ntimeout = "9s"\nconnect_timeout = "8s"\n'
        'interval = "2m"\npoll_timeout = "3m"\nexclusive = false\n'
        'retry = { initial = "5s", max = "15s", jitter = 0.0 }\n',
    )
    imap = made(tmp_path, text)
    assert isinstance(imap, ImapReceiver)
    assert (imap.host, imap.port, imap.user, imap.name, imap.tls) == (
        "mail.example.org", 993, "desk", "desk", "implicit",
    )  # fmt: skip
    assert (imap.folders, imap.after, imap.backlog, imap.idle) == (
        ["INBOX", "Support"],
        "move:Done",
        "none",
        False,
    )
    assert (imap.max_message_size, imap.batch_messages, imap.batch_octets) == (1 << 20, 7, 2 << 20)
    assert (imap.timeout, imap.connect_timeout, imap.interval, imap.poll_timeout) == (9.0, 8.0, 120.0, 180.0)
    assert imap.exclusive is False
    assert imap.retry is not None
    assert [consecutive_wait(imap.retry, failures) for failures in (1, 2, 3)] == [5.0, 10.0, 15.0]
    assert callable(imap.password)
    assert imap.password() == "word"
    monkeypatch.setenv("DESK", "another")
    assert imap.password() == "another"
    assert "another" not in repr(imap)


def test_an_access_token_and_a_certification_authority(tmp_path: Path) -> None:
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    (tmp_path / "token").write_text("t0k3n\n", encoding="ascii")
    place = 'host = "h"\nuser = "desk"\naccess_token_file = "token"\nca_file = "ca.pem"\n'
    config = configured(tmp_path, receiver("imap", place))
    config.check_secrets()
    imap = config.receivers[0].make()
    assert isinstance(imap, ImapReceiver)
    assert callable(imap.access_token)
    assert (imap.access_token(), imap.password) == ("t0k3n", None)
    assert isinstance(imap.ssl_context, ssl.SSLContext)
    assert imap.ssl_context.cert_store_stats()["x509_ca"] == 1


def test_pop3(tmp_path: Path) -> None:
    pop3 = made(tmp_path, receiver("pop3", MAILBOX + 'after = "keep"\nkeep_days = 2.5\n'))
    assert isinstance(pop3, Pop3Receiver)
    assert (pop3.port, pop3.after, pop3.keep_days, pop3.name) == (995, "keep", 2.5, "pop3")


@pytest.mark.parametrize(("kind", "plain"), [("imap", 143), ("pop3", 110)])
def test_the_port_follows_the_protection(tmp_path: Path, kind: str, plain: int) -> None:
    mailbox = made(tmp_path, receiver(kind, MAILBOX + 'tls = "starttls"\n'))
    assert isinstance(mailbox, ImapReceiver | Pop3Receiver)
    assert mailbox.port == plain
    mailbox = made(tmp_path, receiver(kind, MAILBOX + 'tls = "none"\ninsecure = true\nport = 4711\n'))
    assert isinstance(mailbox, ImapReceiver | Pop3Receiver)
    assert mailbox.port == 4711


def test_maildir(tmp_path: Path) -> None:
    text = 'path = "drop"\nafter = "seen"\nwatch = false\nfolders = true\nmax_size = "64KiB"\n'
    drop = made(tmp_path, receiver("maildir", text))
    assert isinstance(drop, MaildirReceiver)
    assert (drop.path, drop.after, drop.watch, drop.folders, drop.max_size) == (
        tmp_path / "drop",
        "seen",
        False,
        True,
        1 << 16,
    )


def test_a_listener(tmp_path: Path) -> None:
    text = (
        'host = "127.0.0.2"\nport = 2525\nlocal = ["here.example"]\nrelay = "networks"\nnetworks = ["10.0.0.0/8"]\n'
        'hostname = "mail.here.example"\ninsecure_auth = true\nmax_message_size = "1MiB"\nmax_recipients = 7\n'
        'max_connections = 8\nmax_buffered = "2MiB"\nmax_hops = 9\nmax_errors = 10\nmax_auth_failures = 11\n'
        'timeout = "1m"\ndata_timeout = "2m"\ntake_timeout = "3s"\ndrain_timeout = "4s"\nworkers = 5\nremember = "6d"\n'
        "reuse_port = true\nexclusive = false\n"
    )
    door = made(tmp_path, receiver("smtp", text))
    assert isinstance(door, SmtpListener)
    expected = SmtpListener(
        "127.0.0.2", 2525, local=["here.example"], relay="networks", networks=["10.0.0.0/8"],
        hostname="mail.here.example", insecure_auth=True, max_message_size=1 << 20, max_recipients=7,
        max_connections=8, max_buffered=2 << 20, max_hops=9, max_errors=10, max_auth_failures=11, timeout=60.0,
        data_timeout=120.0, take_timeout=3.0, drain_timeout=4.0, workers=5, remember=6 * 86400.0, reuse_port=True,
        exclusive=False,
    )  # fmt: skip
    assert door == expected
    lmtp = made(tmp_path, receiver("lmtp", DOOR))
    assert isinstance(lmtp, SmtpListener)
    assert lmtp.protocol == "lmtp"


def test_the_passwords_of_a_listener(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APP_PASSWORD", "word")
    (tmp_path / "crm.password").write_text("wörter\n", encoding="utf-8")
    auth = 'port = 0\nauth = { app = { env = "APP_PASSWORD" }, crm = { file = "crm.password" } }\n'
    config = configured(tmp_path, receiver("smtp", auth))
    assert len(config.secrets) == 2
    config.check_secrets()
    door = config.receivers[0].make()
    assert isinstance(door, SmtpListener)
    assert callable(door.auth)
    assert door.auth("app", "word") is True
    assert door.auth("crm", "wörter") is True
    assert door.auth("app", "wörter") is False
    assert door.auth("nobody", "") is False
    monkeypatch.setenv("APP_PASSWORD", "another")
    assert door.auth("app", "word") is False
    monkeypatch.delenv("APP_PASSWORD")
    assert "word" not in repr(door)


@pytest.mark.usefixtures("module")
def test_functions_of_a_listener_are_imported_where_it_runs(tmp_path: Path) -> None:
    text = receiver("smtp", f'port = 0\nlocal = "{MODULE}:ours"\nauth = "{MODULE}:fits"\n')
    config = configured(tmp_path, text)
    config.spooler(deliver=False)
    assert MODULE not in sys.modules
    door = config.receivers[0].make()
    assert isinstance(door, SmtpListener)
    assert callable(door.local)
    assert callable(door.auth)
    assert door.local("ann@here.example") is True
    assert door.auth("app", "word") == "tenant"
    with pytest.raises(
        ConfigurationError, match=r"local: .*:number is no function; name one that takes an address"
    ):
        made(tmp_path, text.replace(":ours", ":number"))


def test_the_certificate_of_a_listener_is_read_where_it_runs(tmp_path: Path) -> None:
    text = receiver("smtp", DOOR + 'tls = "starttls"\ncert_file = "mail.pem"\n')
    config = configured(tmp_path, text)
    config.spooler(deliver=False)
    with pytest.raises(
        ConfigurationError, match=r"\[\[receiver\]\] number 1 cert_file: .*mail.pem: No such file"
    ):
        config.spooler()
    certificate = trustme.CA().issue_cert("mail.here.example")
    certificate.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "mail.pem"))
    door = config.receivers[0].make()
    assert isinstance(door, SmtpListener)
    assert (door.tls, isinstance(door.ssl_context, ssl.SSLContext)) == ("starttls", True)
    certificate.private_key_pem.write_to_path(str(tmp_path / "mail.key"))
    assert configured(tmp_path, text + 'key_file = "mail.key"\n').receivers[0].make().name == "smtp-listener"


@pytest.mark.usefixtures("module")
def test_receivers_of_ones_own(tmp_path: Path) -> None:
    text = receiver("python", f'object = "{MODULE}:made"\n')
    assert made(tmp_path, text).name == "made"
    assert made(tmp_path, text + 'name = "other"\ninterval = "3s"\n').name == "other"
    fresh = made(
        tmp_path, receiver("python", f'object = "{MODULE}:MemoryReceiver"\noptions = {{ name = "mine" }}\n')
    )
    assert isinstance(fresh, MemoryReceiver)
    assert fresh.name == "mine"
    with pytest.raises(ConfigurationError, match="number is no Receiver; name one, or a class"):
        made(tmp_path, receiver("python", f'object = "{MODULE}:number"\n'))


def test_who_only_accepts_has_no_receivers(tmp_path: Path) -> None:
    config = configured(tmp_path, receiver("smtp", DOOR))
    assert (config.receivers[0].name, config.receivers[0].exclusive) == ("smtp-listener", True)
    with config.spooler(deliver=False) as spooler:
        assert spooler.receivers() == ()
    with config.spooler() as spooler:
        assert [each.name for each in spooler.receivers()] == ["smtp-listener"]


def test_receivers_alone_are_enough(tmp_path: Path) -> None:
    config = configured(tmp_path, f'{SPOOL_ONLY}[[receiver]]\nkind = "smtp"\n{DOOR}')
    assert config.transports == ()
    with config.spooler():
        pass


@pytest.mark.parametrize("kind", [kind for kind, (make, _, _) in RECEIVERS.items() if make is not None])
def test_every_option_of_a_receiver_can_be_said(kind: str) -> None:
    classes: dict[str, type[Any]] = {"imap": ImapReceiver, "pop3": Pop3Receiver, "maildir": MaildirReceiver}
    _, own, required = RECEIVERS[kind]
    fields = {field.name for field in dataclasses.fields(classes.get(kind, SmtpListener)) if field.init}
    not_for_files = {"password", "access_token", "ssl_context", "monotonic", "wall", "clock", "protocol"}
    assert fields - not_for_files <= set(own) | set(COMMON)
    said_otherwise = {f"{key}_{where}" for key in ("password", "access_token") for where in ("env", "file")}
    assert set(own) - said_otherwise - {"ca_file", "cert_file", "key_file"} <= fields
    assert set(required) <= set(own)


MISTAKES = [
    (f"{MEMORY}[[receivers]]\n", r"\[receivers\]: is not a known section", "did you mean receiver"),
    (f"{MEMORY}[[receiver]]\nname = 'x'\n", r"\[\[receiver\]\] x kind: is missing", "imap, pop3, maildir"),
    (receiver("imapp"), "kind: 'imapp' is not possible", "did you mean imap"),
    (receiver("imap", MAILBOX + 'folder = "INBOX"\n'), "folder: is not a known key", "did you mean folders"),
    (receiver("imap", 'user = "u"\n'), "host: is missing", "add host"),
    (receiver("imap", MAILBOX + 'password = "x"\n'), "password: is a secret", "password_file"),
    (receiver("imap", MAILBOX + 'access_token_env = "T"\n'), "password_env: stands beside", "give one of"),
    (receiver("pop3", 'host = "h"\nuser = "u"\n'), "password_env: is missing", "give one of password_env"),
    (receiver("pop3", MAILBOX + 'password_file = "f"\n'), "password_env: stands beside password_file", "one"),
    (receiver("imap", MAILBOX + 'after = "burn"\n'), "after: 'burn' is unknown", '"seen"'),
    (receiver("imap", MAILBOX + 'tls = "none"\n'), "tls: the password and the messages", "insecure"),
    (receiver("imap", MAILBOX + 'ca_file = "ca.pem"\n'), "ca_file: .*No such file", "PEM"),
    (receiver("pop3", MAILBOX + "keep_days = 3\n"), "keep_days: nothing is kept", "keep"),
    (receiver("maildir"), "path: is missing", "add path"),
    (
        receiver("maildir", 'path = "x"\nretry = { initial = "9m" }\nmax_size = 0\n'),
        "max_size: 0 is not",
        "octets",
    ),
    (receiver("maildir", 'path = "x"\nretry = { inital = "9m" }\n'), "retry: inital: is not", "initial"),
    (receiver("smtp", 'local = ["here.example"]\n'), "port: is missing", "add port"),
    (receiver("smtp", "port = 0\n"), "local: nobody could send anything", "name our domains"),
    (
        receiver("smtp", 'port = 0\nlocal = "here.example"\n'),
        "local: 'here.example' does not name",
        r"\[\"example",
    ),
    (receiver("smtp", 'port = 0\nauth = { app = "x" }\n'), "auth: app: is a secret", "env"),
    (receiver("smtp", "port = 0\nauth = { app = {} }\n"), "auth: app: says not where", "file"),
    (receiver("smtp", "port = 0\nauth = {}\n"), "auth: names no user", "env"),
    (receiver("smtp", DOOR + 'tls = "starttls"\n'), "cert_file: and tls go together", "both or neither"),
    (receiver("smtp", DOOR + 'cert_file = "c"\n'), "cert_file: and tls go together", "both or neither"),
    (receiver("smtp", DOOR + 'key_file = "c"\n'), "key_file: is of no use", "add cert_file"),
    (receiver("smtp", DOOR + 'networks = ["ten"]\n'), r"networks\[0\]: 'ten'", "192.0.2.0/24"),
    (receiver("smtp", DOOR + "reuse_port = true\n"), "reuse_port: is of no use", "exclusive=False"),
    (receiver("smtp", DOOR + 'name = "a/b"\n'), "name: 'a/b' is not a name", "without a slash"),
    (receiver("python", 'object = "a.b.c"\n'), "object: 'a.b.c' does not name", "a.b:c"),
    (
        receiver("smtp", DOOR) + f'[[receiver]]\nkind = "lmtp"\n{DOOR}',
        r"number 2 name: 'smtp-listener' is taken",
        "a name of its own",
    ),
]


@pytest.mark.parametrize(("text", "problem", "remedy"), MISTAKES)
def test_mistakes_are_named(tmp_path: Path, text: str, problem: str, remedy: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"postroom\.toml: .*{problem}") as raised:
        configured(tmp_path, text)
    assert re.search(remedy, raised.value.remedy)


# Bounces

BOUNCES = '[bounces]\nformat = "bounces+{token}@example.org"\nsecret_env = "BOUNCE_SECRET"\n'
LOCAL = '[[transport]]\nkind = "lmtp"\nhost = "/run/lmtp"\n'
SECOND = '[[transport]]\nkind = "smtp"\nname = "second"\nhost = "mail2.example.org"\n'


def bounces_of(config: Config, *, deliver: bool = True) -> list[Tokens | None]:
    spooler = config.spooler(deliver=deliver)
    smtp = [each for each in spooler.transports_configured if isinstance(each, SmtpTransport)]
    assert all(each.limits.recipients_per_delivery == 1 for each in smtp if each.bounces is not None)
    return [each.bounces for each in smtp]


def test_mail_servers_share_the_return_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOUNCE_SECRET", "0123456789abcdef")
    config = configured(tmp_path, SMTP + SECOND + LOCAL + BOUNCES)
    config.check_secrets()
    expected = Tokens("0123456789abcdef", "bounces+{token}@example.org")
    assert bounces_of(config) == [expected, expected, None]
    assert bounces_of(config, deliver=False) == [expected, expected, None]


def test_mail_exchangers_get_them_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOUNCE_SECRET", "0123456789abcdef")
    text = SPOOL_ONLY + '[[transport]]\nkind = "mx"\nhostname = "mail.example.org"\nmax_mx = 3\n' + BOUNCES
    (mx,) = configured(tmp_path, text).spooler().transports_configured
    assert isinstance(mx, MxTransport)
    assert mx.bounces == Tokens("0123456789abcdef", "bounces+{token}@example.org")
    assert (mx.max_mx, mx.limits.recipients_per_delivery) == (3, 1)


def test_what_a_former_secret_signed_is_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOUNCE_SECRET", "0123456789abcdef")
    (tmp_path / "former").write_text("fedcba9876543210\n", encoding="ascii")
    tokens, *_ = bounces_of(configured(tmp_path, SMTP + BOUNCES + 'former_file = "former"\n'))
    former = Tokens("fedcba9876543210", "bounces+{token}@example.org")
    assert tokens is not None
    assert tokens.read(former.address_for(7, 1)) == (7, 1)
    assert tokens.read(tokens.address_for(7, 1)) == (7, 1)
    assert former.read(tokens.address_for(7, 1)) is None


def test_who_only_accepts_may_do_without_the_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BOUNCE_SECRET", raising=False)
    config = configured(tmp_path, SMTP + BOUNCES)
    assert bounces_of(config, deliver=False) == [None]
    with pytest.raises(ConfigurationError, match="no variable BOUNCE_SECRET"):
        config.spooler()
    monkeypatch.setenv("BOUNCE_SECRET", "short")
    with pytest.raises(
        ConfigurationError, match=r"\[bounces\] secret_env or secret_file: one has fewer than 16"
    ):
        config.spooler()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (SMTP + '[bounces]\nsecret_env = "S"\n', "format: is missing"),
        (SMTP + '[bounces]\nformat = "bounces+{token}@example.org"\n', "secret_env: is missing"),
        (SMTP + BOUNCES.replace("{token}", "token"), "format: .* does not hold {token} once"),
        (SMTP + BOUNCES + 'secret = "x"\n', "secret: is a secret, and this file is no place"),
        (SMTP + BOUNCES + 'former_key = "x"\n', "former_key: is not a known key"),
        (MEMORY + BOUNCES, "format: is for transports to mail servers, and there are none"),
    ],
)
def test_mistakes_about_bounces(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"\[bounces\] {problem}"):
        configured(tmp_path, text)


# The page about it

PAGE = (Path(__file__).resolve().parents[2] / "docs/configuration.md").read_text(encoding="utf-8")
SECTIONS = [block for block in re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL) if block.startswith("[")]


@pytest.mark.parametrize("block", [block for block in SECTIONS if "lists.txt" not in block])
def test_what_the_page_shows_can_be_loaded(tmp_path: Path, block: str) -> None:
    configured(tmp_path, SMTP + block)


def test_the_page_shows_a_section_of_each_sort() -> None:
    shown = {name for block in SECTIONS for name in re.findall(r"^\[+([a-z_]+)\]+$", block, re.MULTILINE)}
    assert {"receiver", "rule", "postprocessor", "subscriber", "bounces"} <= shown
