"""A real Dovecot (2.3) for tests: IMAP, POP3 and LMTP on loopback ports, mail in Maildirs of a temporary folder.

It is started as the user who runs the tests. As root, mail belongs to ``nobody``, since Dovecot does not touch mail as
root. ``kill`` ends it and all its processes as a crash of the machine would; ``start`` starts it on the same ports.
"""

import base64
import contextlib
import hmac
import imaplib
import json
import os
import pwd
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import trustme

from tests.support.system import require

__all__ = ["PASSWORD", "Dovecot"]

PASSWORD = "a-secret-of-Dovecots"

TOKEN_KEY = b"the key by which tokens are signed"

PATIENCE = 20.0

T = TypeVar("T")

GLOBAL = """\
base_dir = {folder}/run
state_dir = {folder}/run
log_path = {folder}/log
protocols = imap pop3 lmtp
listen = 127.0.0.1
disable_plaintext_auth = no
auth_mechanisms = plain login xoauth2 oauthbearer
auth_failure_delay = 0
mail_location = maildir:{folder}/mail/%u
mail_fsync = never
maildir_very_dirty_syncs = no
mailbox_idle_check_interval = 1 secs
first_valid_uid = 1
auth_username_format = %n
default_internal_user = {internal}
default_internal_group = {group}
default_login_user = {login}
import_environment =
{tls}
passdb {{
  driver = static
  mechanisms = plain login
  args = password={password}
}}
passdb {{
  driver = oauth2
  mechanisms = xoauth2 oauthbearer
  args = {folder}/oauth2.conf
}}
userdb {{
  driver = static
  args = uid={uid} gid={gid} home={folder}/home/%u allow_all_users=yes
}}
service anvil {{
  chroot =
  # Nobody is made to wait after a wrong password.
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
service stats {{
  chroot =
}}
service imap-login {{
  chroot =
  service_count = 0
  inet_listener imap {{
    port = {imap}
  }}
  inet_listener imaps {{
    port = {imaps}
  }}
}}
service pop3-login {{
  chroot =
  service_count = 0
  inet_listener pop3 {{
    port = {pop3}
  }}
  inet_listener pop3s {{
    port = {pop3s}
  }}
}}
service lmtp {{
  inet_listener lmtp {{
    port = {lmtp}
  }}
}}
protocol imap {{
  mail_max_userip_connections = 100
  {capability}
}}
"""

# Dovecot checks tokens by itself (RFC 7519), without an authorisation server.
OAUTH2 = """\
introspection_mode = local
username_attribute = sub
local_validation_key_dict = fs:posix:prefix={folder}/keys/
"""


class Dovecot:
    """A context manager; skips the test where Dovecot is missing.

    Args:
        capability: instead of what Dovecot says it can do in IMAP after the login.
        authority: signs a certificate for 127.0.0.1 and localhost; without it there is no TLS.

    Attributes:
        imap, pop3, lmtp: ports, with STARTTLS where there is a certificate.
        imaps, pop3s: ports with TLS from the first octet.
    """

    def __init__(self, *, capability: str = "", authority: trustme.CA | None = None) -> None:
        self._program = require("dovecot", "dovecot-imapd dovecot-pop3d dovecot-lmtpd")
        self.imap, self.pop3, self.lmtp, self.imaps, self.pop3s = _free_ports(5)
        self._capability = capability
        self._authority = authority
        self._lock = threading.Lock()
        self._clients: dict[str, imaplib.IMAP4] = {}
        self._process: subprocess.Popen[bytes] | None = None
        # Not below pytest's folder: nobody must be able to get there, and a socket's path is to be short.
        self.folder = Path(tempfile.mkdtemp(prefix="postroom-dovecot-"))

    def __enter__(self) -> Self:
        try:
            self._configure()
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End it, and remove its mail."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _configure(self) -> None:
        root = os.geteuid() == 0
        me = pwd.getpwuid(os.geteuid())
        owner = pwd.getpwnam("nobody") if root else me
        group = subprocess.run(["id", "-gn"], check=True, capture_output=True, text=True).stdout.strip()
        self.folder.chmod(0o755)
        for name in ("mail", "home", "run"):
            (self.folder / name).mkdir()
            if name != "run" and root:
                os.chown(self.folder / name, owner.pw_uid, owner.pw_gid)
        text = GLOBAL.format(
            folder=self.folder,
            internal="dovecot" if root else me.pw_name,
            group="dovecot" if root else group,
            login="dovenull" if root else me.pw_name,
            tls=self._tls(),
            password=PASSWORD,
            uid=owner.pw_uid,
            gid=owner.pw_gid,
            capability=f"imap_capability = {self._capability}" if self._capability else "",
            imap=self.imap,
            pop3=self.pop3,
            lmtp=self.lmtp,
            imaps=self.imaps if self._authority else 0,
            pop3s=self.pop3s if self._authority else 0,
        )
        (self.folder / "dovecot.conf").write_text(text)
        (self.folder / "oauth2.conf").write_text(OAUTH2.format(folder=self.folder))
        key = self.folder / "keys/default/HS256/default"
        key.parent.mkdir(parents=True)
        key.write_bytes(base64.b64encode(TOKEN_KEY))

    def token(self, user: str, lasts: float = 600.0) -> str:
        """Return an access token (a signed JWT) for a user."""
        now = int(time.time())
        parts = ({"alg": "HS256", "typ": "JWT"}, {"sub": user, "iat": now, "exp": now + int(lasts)})
        signed = b".".join(_base64url(json.dumps(part).encode()) for part in parts)
        signature = hmac.digest(TOKEN_KEY, signed, "sha256")
        return b".".join((signed, _base64url(signature))).decode()

    def _tls(self) -> str:
        if self._authority is None:
            return "ssl = no"
        certificate = self._authority.issue_cert("127.0.0.1", "localhost")
        chain, key = self.folder / "chain.pem", self.folder / "key.pem"
        chain.write_bytes(b"".join(pem.bytes() for pem in certificate.cert_chain_pems))
        key.write_bytes(certificate.private_key_pem.bytes())
        key.chmod(0o600)
        return f"ssl = yes\nssl_cert = <{chain}\nssl_key = <{key}\nssl_dh =\nssl_min_protocol = TLSv1.2"

    def client_context(self) -> ssl.SSLContext:
        """Return a context that trusts the authority and nobody else."""
        assert self._authority is not None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=self._authority.cert_pem.bytes().decode())
        return context

    # Life

    def start(self) -> None:
        """Start it; returns when it greets."""
        assert self._process is None
        # Dovecot would wait for a while until it believes that who made them is dead.
        for lock in (self.folder / "mail").glob("**/*.lock"):
            lock.unlink()
        command = [str(self._program), "-F", "-c", str(self.folder / "dovecot.conf")]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        deadline = time.monotonic() + PATIENCE
        for port, greeting in ((self.imap, b"* OK"), (self.pop3, b"+OK"), (self.lmtp, b"220")):
            while not _greets(port, greeting):
                assert self._process.poll() is None, self._ended()
                assert time.monotonic() < deadline, f"Dovecot does not greet:\n{self.log()}"
                time.sleep(0.01)

    def _ended(self) -> str:
        assert self._process is not None
        assert self._process.stderr is not None
        return f"Dovecot ended: {self._process.stderr.read().decode()}\n{self.log()}"

    def log(self) -> str:
        """Return what it logged."""
        path = self.folder / "log"
        return path.read_text() if path.exists() else ""

    def kill(self) -> None:
        """Kill it and all its processes."""
        self._hang_up()
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stderr is not None
        # Its processes are all in its own session's group.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(PATIENCE)
        process.stderr.close()
        # Its processes are no children of ours; their ports tell when they are gone.
        deadline = time.monotonic() + PATIENCE
        while any(_listens(port) for port in (self.imap, self.pop3, self.lmtp)):
            assert time.monotonic() < deadline, "Dovecot's processes live on"
            time.sleep(0.005)

    def recover(self) -> None:
        """Make it run if it was killed, and go on if it was stopped."""
        if self._process is None:
            self.start()
        self.signal(signal.SIGCONT)

    def signal(self, number: signal.Signals) -> None:
        """Send all its processes a signal, as SIGSTOP and SIGCONT."""
        assert self._process is not None
        os.killpg(self._process.pid, number)

    # Mail

    def put(self, user: str, content: bytes, folder: str = "INBOX") -> None:
        """Lay a message down as it is, by IMAP's APPEND."""

        def append(client: imaplib.IMAP4) -> None:
            if folder != "INBOX":
                client.create(folder)
            kind, said = client.append(folder, "", "", content)
            assert kind == "OK", said

        self._with_mailbox(user, append)

    def list(self, user: str, folder: str = "INBOX") -> Sequence[tuple[bytes, frozenset[str]]]:
        """Return the messages of a folder with their flags, in their order; () if there is no such folder."""

        def look(client: imaplib.IMAP4) -> Sequence[tuple[bytes, frozenset[str]]]:
            kind, count = client.select(folder, readonly=True)
            if kind != "OK" or count == [b"0"]:
                return ()
            parts = client.fetch("1:*", "(FLAGS BODY.PEEK[])")[1]
            return [
                (part[1], frozenset(flag.decode() for flag in imaplib.ParseFlags(part[0])))
                for part in parts
                if isinstance(part, tuple)
            ]

        return self._with_mailbox(user, look)

    def flag(
        self, user: str, flag: str, messages: str = "1:*", folder: str = "INBOX", how: str = "+FLAGS"
    ) -> None:
        """Flag messages, as another client would."""

        def store(client: imaplib.IMAP4) -> None:
            if client.select(folder)[1] != [b"0"]:
                client.store(messages, how, f"({flag})")

        self._with_mailbox(user, store)

    def unflag(self, user: str, flag: str, messages: str = "1:*") -> None:
        """Take a flag from messages, as another client would."""
        self.flag(user, flag, messages, how="-FLAGS")

    def files(self, user: str) -> Iterator[Path]:
        """Return the files in which the messages of the mailbox lie."""
        inbox = self.folder / "mail" / user
        return (path for name in ("new", "cur") for path in (inbox / name).iterdir())

    def file(self, user: str, name: str) -> Path:
        """Return where a message's file is by now; its name may have got flags since."""
        return next(path for path in self.files(user) if path.name.startswith(name.partition(":")[0]))

    def clear(self, user: str, folder: str = "INBOX") -> None:
        """Remove all messages of a folder, as another client would."""
        self.flag(user, r"\Deleted", folder=folder)
        self._with_mailbox(user, lambda client: client.expunge())

    def _with_mailbox(self, user: str, work: Callable[[imaplib.IMAP4], T]) -> T:
        """Do something over a connection that is kept, but not beyond a crash."""
        with self._lock:
            client = self._clients.get(user)
            if client is None:
                client = self._clients[user] = imaplib.IMAP4("127.0.0.1", self.imap, timeout=PATIENCE)
                client.socket().setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                client.login(user, PASSWORD)
            return work(client)

    def _hang_up(self) -> None:
        with self._lock:
            for client in self._clients.values():
                with contextlib.suppress(OSError):
                    client.shutdown()
            self._clients.clear()

    def renumber(self, user: str) -> None:
        """Give the messages of a user's mailbox new UIDs under a new UIDVALIDITY, as a rebuilt server would."""
        self._hang_up()
        for path in (self.folder / "mail" / user).glob("**/dovecot*"):
            # What is kept is the last number, so that the next is another.
            if not path.name.startswith("dovecot-uidvalidity"):
                path.unlink()


def _base64url(octets: bytes) -> bytes:
    return base64.urlsafe_b64encode(octets).rstrip(b"=")


def _free_ports(count: int) -> list[int]:
    """Return ports that nobody uses, all different."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports: list[int] = [sock.getsockname()[1] for sock in sockets]
    for sock in sockets:
        sock.close()
    return ports


def _greets(port: int, greeting: bytes) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as sock:
            return sock.recv(512).startswith(greeting)
    except OSError:
        return False


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
