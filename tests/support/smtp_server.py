"""An SMTP or LMTP server in a process of its own, that misbehaves as its script says.

As a program (``python tests/support/smtp_server.py --record FILE``) it prints one line of JSON, ``{"port": …}``,
when it listens, and appends one line of JSON to the record for each message that it accepted, before it says
so. A line of JSON on its standard input replaces the script and is answered with ``{"script": "set"}``. It is
stopped or killed by its pid; ``--exit-with-parent`` also ends it when its standard input is closed.

``--engine scripted`` (the default) speaks SMTP with PIPELINING, or LMTP, itself, and does what its
:class:`Script` says.
``--engine aiosmtpd`` is aiosmtpd: STARTTLS, TLS, AUTH and LMTP as someone else understood them. With ``--dsn`` it
offers DSN (RFC 3461), and records the parameters.

In tests, :class:`SmtpServer` starts, scripts, kills and restarts it::

    with SmtpServer(tmp_path / "received.jsonl") as server:
        server.script(Script(replies={"MAIL": "451 4.3.0 later"}))
        ... server.port ... server.messages()
"""

import argparse
import asyncio
import json
import os
import re
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from aiosmtpd.lmtp import LMTP
from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword

__all__ = ["Message", "Script", "SmtpServer"]

FEATURES = ["PIPELINING", "SIZE 52428800", "8BITMIME", "ENHANCEDSTATUSCODES", "SMTPUTF8"]


@dataclass(kw_only=True)
class Script:
    """How the scripted engine behaves. Verbs: CONNECT, EHLO, MAIL, RCPT, DATA, CONTENT, RSET, NOOP, QUIT.

    Attributes:
        features: what EHLO and LHLO offer.
        replies: an answer in place of the usual one, by verb; "\\n" parts the lines. CONNECT is the banner.
        recipients: an answer to RCPT, by address.
        content: an answer to the content, by address (LMTP).
        drop_before: close the connection instead of answering this verb; "MIDDATA" closes within the content.
        drop_after: close the connection after answering this verb.
        drop_at: with a verb that comes several times (RCPT, or CONTENT in LMTP), which one, from 1.
        silent: never answer this verb, nor anything after it.
        delays: seconds before the answer, by verb.
        max_recipients: RCPT is answered 452 4.5.3 beyond this.
        max_size: octets after which the content is refused with 552 and the connection closed.
        session_messages: messages over one connection, after which ``session_end`` is sent and it is closed.
        session_end: what is said then; "" closes without a word.
        lie: what happens to pipelined commands although PIPELINING is offered: "discard" (what came with the
            first command is ignored), "drop" (the connection is closed), "skip" (a pipelined RCPT is not
            answered), "double" (MAIL is answered twice), "refuse" (503 to RCPT that came with MAIL).
        sessions: only the first so many connections after the script was set misbehave; None for all.
        transcript: record each command line as well.
        keep_content: record the content as well.
    """

    features: list[str] = field(default_factory=lambda: list(FEATURES))
    replies: dict[str, str] = field(default_factory=dict[str, str])
    recipients: dict[str, str] = field(default_factory=dict[str, str])
    content: dict[str, str] = field(default_factory=dict[str, str])
    drop_before: str = ""
    drop_after: str = ""
    drop_at: int = 1
    silent: str = ""
    delays: dict[str, float] = field(default_factory=dict[str, float])
    max_recipients: int = 100_000
    max_size: int = 1 << 40
    session_messages: int = 1_000_000_000
    session_end: str = "421 4.3.2 enough for one session"
    lie: str = ""
    sessions: int | None = None
    transcript: bool = False
    keep_content: bool = False

    def honest(self) -> "Script":
        """Return a script that only offers and records as this one does."""
        return Script(features=self.features, transcript=self.transcript, keep_content=self.keep_content)


_DSN_PARAMETER = re.compile(r" (RET|ENVID|NOTIFY|ORCPT)=(\S+)", re.IGNORECASE)


class Record:
    """The record: one line of JSON per event, appended in one write, not synchronised."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self.count = 0

    def add(self, event: dict[str, Any]) -> None:
        os.write(self._file, json.dumps(event, separators=(",", ":")).encode() + b"\n")
        self.count += event["event"] == "message"


_IDS = re.compile(rb"^(?:x-postroom-id|message-id):[ \t]*(\S+)", re.IGNORECASE | re.MULTILINE)


def message_event(
    content: bytes, sender: str, recipients: list[str], *, session: int, mail: str, keep: bool
) -> dict[str, Any]:
    head = content[: content.find(b"\r\n\r\n") + 2] or content
    found = {match[0].split(b":")[0].lower(): match[1].decode("latin-1") for match in _IDS.finditer(head)}
    event: dict[str, Any] = {
        "event": "message",
        "id": found.get(b"x-postroom-id") or found.get(b"message-id") or "",
        "from": sender,
        "to": recipients,
        "size": len(content),
        "session": session,
        "mail": mail,
    }
    if keep:
        event["content"] = content.decode("latin-1")
    return event


class Hangup(Exception):
    """The session is over."""


@dataclass
class Server:
    """What the sessions share."""

    record: Record
    script: Script
    lmtp: bool
    session: int = 0
    scripted: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.session += 1
        self.scripted += 1
        script = self.script
        if script.sessions is not None and self.scripted > script.sessions:
            script = script.honest()
        try:
            await Session(self, script, reader, writer, self.session).run()
        except (Hangup, ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


class Session:
    """One connection to the scripted engine."""

    def __init__(
        self,
        server: Server,
        script: Script,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        number: int,
    ) -> None:
        self.server = server
        self.script = script
        self.reader = reader
        self.writer = writer
        self.number = number
        self.buffer = bytearray()
        self.out: list[str] = []
        self.seen: dict[str, int] = {}
        self.delivered = 0
        self.sender: str | None = None
        self.mail = ""
        self.recipients: list[str] = []

    async def run(self) -> None:
        await self.answer("CONNECT", "220 scripted.example ESMTP")
        while True:
            line = await self.line()
            verb = line[:4].upper()
            verb = {"HELO": "EHLO", "LHLO": "EHLO"}.get(verb, verb)
            if self.script.transcript:
                self.server.record.add({"event": "command", "session": self.number, "line": line})
            if not await self.lied(verb):
                await self.command(verb, line)

    async def command(self, verb: str, line: str) -> None:  # noqa: C901 - one branch per verb
        if verb == "EHLO":
            await self.answer(
                verb, "\n".join(["250 scripted.example", *(f"250 {f}" for f in self.script.features)])
            )
        elif verb == "MAIL":
            if self.delivered >= self.script.session_messages:
                if self.script.session_end:
                    self.say(self.script.session_end)
                    await self.flush()
                raise Hangup
            if await self.answer(verb, "250 2.1.0 Ok" if self.sender is None else "503 5.5.1 nested MAIL"):
                self.sender, self.mail, self.recipients = address(line), line, []
        elif verb == "RCPT":
            await self.rcpt(line)
        elif verb == "DATA":
            usual = "354 go on" if self.recipients else "503 5.5.1 no valid recipients"
            if await self.answer(verb, usual):
                await self.flush()
                await self.content()
        elif verb in {"RSET", "NOOP"}:
            if verb == "RSET":
                self.sender, self.recipients = None, []
            await self.answer(verb, "250 2.0.0 Ok")
        elif verb == "QUIT":
            await self.answer(verb, "221 2.0.0 Bye")
            await self.flush()
            raise Hangup
        else:
            await self.answer(verb, "500 5.5.2 unknown command")

    async def rcpt(self, line: str) -> None:
        to = address(line)
        if self.sender is None:
            usual = "503 5.5.1 MAIL first"
        elif len(self.recipients) >= self.script.max_recipients:
            usual = "452 4.5.3 too many recipients"
        else:
            usual = self.script.recipients.get(to, "250 2.1.5 Ok")
        if await self.answer("RCPT", usual):
            self.recipients.append(to)

    async def content(self) -> None:
        content = await self.read_content()
        sender, recipients = self.sender or "", self.recipients
        self.sender, self.recipients = None, []
        for_all = self.script.replies.get("CONTENT", "250 2.0.0 Ok: queued")
        said = [self.script.content.get(to, for_all) for to in recipients] if self.server.lmtp else [for_all]
        taken = recipients
        if self.server.lmtp:
            taken = [to for to, text in zip(recipients, said, strict=True) if text.startswith("2")]
        elif not for_all.startswith("2"):
            taken = []
        if taken:
            keep = self.script.keep_content
            self.server.record.add(
                message_event(content, sender, taken, session=self.number, mail=self.mail, keep=keep)
            )
            self.delivered += 1
        for text in said:
            await self.answer("CONTENT", text, scripted=False)

    async def read_content(self) -> bytes:
        start = 0
        if self.script.drop_before == "MIDDATA":
            while len(self.buffer) < 1000:
                await self.more()
            raise Hangup
        while True:
            if self.buffer.startswith(b".\r\n"):
                del self.buffer[:3]
                return b""
            end = self.buffer.find(b"\r\n.\r\n", max(0, start - 5))
            if end >= 0:
                break
            start = len(self.buffer)
            if start > self.script.max_size:
                self.say("552 5.3.4 too big")
                await self.flush()
                raise Hangup
            await self.more()
        content = bytes(self.buffer[: end + 2])
        del self.buffer[: end + 5]
        if content.startswith(b"."):
            content = content[1:]
        return content.replace(b"\r\n.", b"\r\n") if b"\r\n." in content else content

    async def answer(self, verb: str, usual: str, *, scripted: bool = True) -> bool:
        """Answer as the script says; return whether the answer was positive."""
        script = self.script
        seen = self.seen[verb] = self.seen.get(verb, 0) + 1
        chosen = seen >= script.drop_at
        if script.drop_before == verb and chosen:
            await self.flush()
            raise Hangup
        if script.silent == verb:
            await self.flush()
            while True:
                await self.more()
        if verb in script.delays:
            await self.flush()
            await asyncio.sleep(script.delays[verb])
        text = script.replies.get(verb, usual) if scripted else usual
        self.say(text)
        if verb == "CONNECT" or (script.drop_after == verb and chosen):
            await self.flush()
            if script.drop_after == verb:
                raise Hangup
        return text[0] in "23"

    async def lied(self, verb: str) -> bool:
        """Mistreat pipelined commands; return whether this one is done with."""
        lie = self.script.lie
        pipelined = bool(self.buffer)
        if not lie or not pipelined:
            return False
        if lie == "drop":
            raise Hangup
        if lie == "discard":
            self.buffer.clear()
        elif lie == "skip":
            return verb == "RCPT"
        elif lie == "double" and verb == "MAIL":
            self.say("250 2.1.0 Ok")
        elif lie == "refuse" and verb == "RCPT":
            self.say("503 5.5.1 MAIL first")
            return True
        return False

    def say(self, text: str) -> None:
        lines = text.split("\n")
        code = lines[0][:3]
        for line in lines[:-1]:
            self.out.append(f"{code}-{line.removeprefix(code)[1:]}\r\n")
        self.out.append(f"{lines[-1]}\r\n")

    async def line(self) -> str:
        while (end := self.buffer.find(b"\n")) < 0:
            await self.more()
        line = bytes(self.buffer[:end]).decode(errors="surrogateescape").rstrip("\r")
        del self.buffer[: end + 1]
        return line

    async def more(self) -> None:
        await self.flush()
        octets = await self.reader.read(65536)
        if not octets:
            raise Hangup
        self.buffer += octets

    async def flush(self) -> None:
        if self.out:
            self.writer.write("".join(self.out).encode(errors="surrogateescape"))
            self.out.clear()
            await self.writer.drain()


def address(line: str) -> str:
    return line.partition("<")[2].rpartition(">")[0]


async def run_scripted(options: argparse.Namespace, record: Record) -> tuple[Server, int]:
    server = Server(record, Script(**json.loads(options.script)), options.lmtp)
    if options.unix:
        await asyncio.start_unix_server(server.serve, options.unix)
        return server, 0
    listening = await asyncio.start_server(server.serve, options.host, options.port, reuse_address=True)
    return server, listening.sockets[0].getsockname()[1]


class DsnSMTP(SMTP):
    """aiosmtpd with the parameters of RFC 3461, which it would refuse: taken out, and kept."""

    async def smtp_MAIL(self, arg: str | None) -> None:  # noqa: N802 - aiosmtpd's name
        self.dsn = [self._found(arg)]
        await super().smtp_MAIL(None if arg is None else _DSN_PARAMETER.sub("", arg))

    async def smtp_RCPT(self, arg: str | None) -> None:  # noqa: N802 - aiosmtpd's name
        self.dsn.append(self._found(arg))
        await super().smtp_RCPT(None if arg is None else _DSN_PARAMETER.sub("", arg))

    def _found(self, arg: str | None) -> dict[str, str]:
        return {name.upper(): value for name, value in _DSN_PARAMETER.findall(arg or "")}


async def run_aiosmtpd(options: argparse.Namespace, record: Record) -> int:
    class Handler:
        async def handle_DATA(self, server: SMTP, session: Any, envelope: Any) -> str:  # noqa: N802 - aiosmtpd's name
            assert server.transport is not None
            tls = server.transport.get_extra_info("ssl_object")
            keep = {
                "tls": tls is not None,
                "cipher": "" if tls is None else f"{tls.version()} {tls.cipher()[0]}",
                "user": session.authenticated and session.auth_data.login.decode(),
                "dsn": getattr(server, "dsn", []),
            }
            event = message_event(
                envelope.original_content,
                envelope.mail_from,
                envelope.rcpt_tos,
                session=0,
                mail="",
                keep=True,
            )
            record.add(event | keep)
            return "250 2.0.0 Ok"

    class DsnHandler(Handler):
        async def handle_EHLO(  # noqa: N802 - aiosmtpd's name
            self, server: SMTP, session: Any, envelope: Any, hostname: str, responses: list[str]
        ) -> list[str]:
            del server, envelope
            session.host_name = hostname
            return [*responses[:-1], "250-ENHANCEDSTATUSCODES", "250-DSN", *responses[-1:]]

    def authenticate(*arguments: Any) -> AuthResult:
        data = arguments[4]
        good = (
            isinstance(data, LoginPassword)
            and f"{data.login.decode()}:{data.password.decode()}" == options.auth
        )
        return AuthResult(success=good, handled=False, auth_data=data)

    context = None
    if options.cert:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(options.cert)
    settings: dict[str, Any] = {"hostname": "aiosmtpd.example", "enable_SMTPUTF8": True}
    if options.auth:
        settings |= {"authenticator": authenticate, "auth_required": True, "auth_require_tls": False}
        settings["auth_exclude_mechanism"] = options.auth_exclude
    if context is not None and not options.implicit_tls:
        settings |= {"tls_context": context, "require_starttls": True}
    engine = LMTP if options.lmtp else DsnSMTP if options.dsn else SMTP

    def factory() -> SMTP:
        return engine((DsnHandler if options.dsn else Handler)(), **settings)

    loop = asyncio.get_running_loop()
    if options.unix:
        await loop.create_unix_server(factory, options.unix)
        return 0
    implicit = context if options.implicit_tls else None
    listening = await loop.create_server(
        factory, options.host, options.port, ssl=implicit, reuse_address=True
    )
    port: int = listening.sockets[0].getsockname()[1]
    return port


async def main(options: argparse.Namespace) -> None:
    record = Record(options.record)
    server: Server | None = None
    if options.engine == "scripted":
        server, port = await run_scripted(options, record)
    else:
        port = await run_aiosmtpd(options, record)
    print(json.dumps({"port": port, "pid": os.getpid()}), flush=True)  # noqa: T201 - the program's interface
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    control = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(control), sys.stdin)
    listening = asyncio.ensure_future(listen(control, server))
    stopping = asyncio.ensure_future(ended.wait())
    await asyncio.wait({listening, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if not options.exit_with_parent:
        await stopping


async def listen(control: asyncio.StreamReader, server: Server | None) -> None:
    while line := await control.readline():
        if server is not None:
            server.script = Script(**json.loads(line))
            server.scripted = 0
        print('{"script": "set"}', flush=True)  # noqa: T201 - the program's interface


@dataclass(frozen=True)
class Message:
    """A message that the server accepted.

    Attributes:
        id: its X-Postroom-Id, else its Message-ID, else "".
        sender: the envelope sender.
        recipients: the recipients that were accepted.
        size: octets of its content.
        session: the number of the connection, from 1 (scripted engine).
        mail: the MAIL command line (scripted engine).
        content: the content, if it is kept.
        tls: whether it came over TLS (aiosmtpd engine).
        user: who was authenticated (aiosmtpd engine).
        cipher: TLS version and cipher, as the server sees it (aiosmtpd engine).
        dsn: the DSN parameters of MAIL and of each RCPT, by name (aiosmtpd engine with ``--dsn``).
    """

    id: str
    sender: str
    recipients: tuple[str, ...]
    size: int
    session: int
    mail: str
    content: bytes = b""
    tls: bool = False
    user: str = ""
    cipher: str = ""
    dsn: Sequence[Mapping[str, str]] = ()


class SmtpServer:
    """Starts the program above and stops it by its pid.

    Args:
        record: where it appends what it received; survives kills and restarts.
        script: how it behaves at first.
        lmtp: speak LMTP.
        unix: listen on this unix socket instead of a port.
        port: listen there; 0 lets the system choose. A restart keeps it.
        host: the loopback address to listen on.
        options: further command line options, such as ``("--engine", "aiosmtpd")``.
    """

    def __init__(
        self,
        record: Path,
        *,
        script: Script | None = None,
        lmtp: bool = False,
        unix: Path | None = None,
        port: int = 0,
        host: str = "127.0.0.1",
        options: tuple[str, ...] = (),
    ) -> None:
        self.record = record
        self.port = port
        self._script = script or Script()
        self._options = [
            "--host",
            host,
            *options,
            *(["--lmtp"] if lmtp else []),
            *(["--unix", str(unix)] if unix else []),
        ]
        self._process: subprocess.Popen[str] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> Self:
        command = [sys.executable, __file__, "--record", str(self.record), "--port", str(self.port)]
        command += ["--exit-with-parent", "--script", json.dumps(asdict(self._script)), *self._options]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.port = json.loads(self._process.stdout.readline())["port"]
        return self

    def script(self, script: Script) -> None:
        """Behave so from the next connection on."""
        self._script = script
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asdict(script)) + "\n")
        self._process.stdin.flush()
        assert json.loads(self._process.stdout.readline()) == {"script": "set"}

    def kill(self) -> None:
        """End it at once, as kill -9 does."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it."""
        self._end(signal.SIGTERM)

    def restart(self) -> None:
        """Start it again on the same port after ``kill`` or ``stop``."""
        self.start()

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(how)
        process.communicate(timeout=10)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def events(self) -> Iterator[dict[str, Any]]:
        if self.record.exists():
            with self.record.open("rb") as lines:
                for line in lines:
                    if line.endswith(b"\n"):
                        yield json.loads(line)

    def messages(self) -> list[Message]:
        """Return what was accepted, in order."""
        return [
            Message(
                event["id"],
                event["from"],
                tuple(event["to"]),
                event["size"],
                event["session"],
                event["mail"],
                event.get("content", "").encode("latin-1"),
                event.get("tls", False),
                event.get("user") or "",
                event.get("cipher", ""),
                event.get("dsn", ()),
            )
            for event in self.events()
            if event["event"] == "message"
        ]

    def count(self) -> int:
        """Return how many messages were accepted, cheaply: the record's lines, when it has no transcript."""
        return self.record.read_bytes().count(b'{"event":"message"') if self.record.exists() else 0

    def commands(self) -> list[str]:
        """Return the command lines received, if the script asks for a transcript."""
        return [event["line"] for event in self.events() if event["event"] == "command"]


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="An SMTP or LMTP server for tests")
    parser.add_argument("--engine", choices=["scripted", "aiosmtpd"], default="scripted")
    parser.add_argument("--record", required=True, help="file to which accepted messages are appended")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--unix", default="", help="unix socket to listen on instead")
    parser.add_argument("--lmtp", action="store_true")
    parser.add_argument("--script", default="{}", help="JSON of a Script (scripted engine)")
    parser.add_argument("--cert", default="", help="PEM with certificate and key (aiosmtpd engine)")
    parser.add_argument(
        "--implicit-tls", action="store_true", help="TLS from the first byte (aiosmtpd engine)"
    )
    parser.add_argument("--auth", default="", help="user:password that AUTH takes (aiosmtpd engine)")
    parser.add_argument(
        "--auth-exclude", nargs="*", default=[], help="mechanisms not to offer (aiosmtpd engine)"
    )
    parser.add_argument("--dsn", action="store_true", help="offer DSN (aiosmtpd engine)")
    parser.add_argument("--exit-with-parent", action="store_true", help="end when standard input is closed")
    return parser.parse_args()


if __name__ == "__main__":
    asyncio.run(main(options()))
