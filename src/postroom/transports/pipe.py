"""Delivery to a program: it gets the message on its standard input, and its exit status says what became of it.

The command is a list of arguments and is never seen by a shell. A placeholder in an argument is replaced within that
argument, whatever the value holds:

================  ==========================================================================================
``{sender}``      envelope sender; ``null_sender`` for the null reverse-path
``{recipient}``   the recipient: ``ann@example.org``, and of another type what stands behind the type
``{address}``     the recipient with its type, ``pipe:ann``
``{local}``       what stands before the last "@" of the recipient, all of it where there is none
``{domain}``      what stands behind it, or nothing
``{message_id}``  the message's id in the spool
``{index}``       the recipient's number within its message, from 0
``{attempt}``     1 for the first attempt
``{size}``        octets on the standard input
``{recipients}``  an argument by itself: one argument for each recipient, and one run for all of them
================  ==========================================================================================

A sender or recipient that would look like an option, since its argument begins with "-", is refused (5.1.3), unless an
argument ``--`` stands before it.

What an exit status means is :data:`postroom.transports.sysexits.EXITS`. **In doubt** is an attempt whose program was
killed, by us after ``timeout`` or by anybody: it may have delivered before. A program that must not deliver twice can
remember ``{message_id}`` and ``{index}``, which are the same at every attempt.

The program runs in a session and process group of its own, without the host's environment (but PATH, HOME, user name,
locale, time zone), and with no open file but the three standard ones. When the time is over the whole group is told to
end, and killed two seconds later.
"""

import os
import string
from collections.abc import Collection, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Final, Literal

from postroom.delivery import Delivery, Target
from postroom.errors import ConfigurationError, SessionStale, TransportDown
from postroom.mailfiles import mbox_entry
from postroom.outcomes import Deferred, Delivered, Failed, Outcome, Relayed, Reply
from postroom.replies import one_line
from postroom.transports.base import Limits, Outcomes, Session, Transport
from postroom.transports.pipe_process import Program, is_executable
from postroom.transports.sysexits import ExitRow, exit_outcome, exit_row, exit_table

__all__ = ["PipeTransport", "SendmailTransport"]

INHERITED: Final = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR")
"""What the program gets of the host's environment."""

_ALL: Final = "{recipients}"
_PLACEHOLDERS: Final = frozenset(
    {"sender", "recipient", "address", "local", "domain", "message_id", "index", "attempt", "size"}
)
_OF_ONE: Final = frozenset({"recipient", "address", "local", "domain", "index", "attempt"})
_SENDMAIL: Final = "/usr/sbin/sendmail"


@dataclass(eq=False)
class PipeTransport(Transport):
    """Hands messages to a program. Thread-safe; as many programs run at once as there are couriers.

    Attributes:
        command: the program and its arguments, with the placeholders of :mod:`postroom.transports.pipe`.
        address_types: "pipe" by default: ``pipe:ann`` has the recipient "ann".
        env: variables of the program's environment, besides ``INHERITED`` of the host's.
        cwd: the folder that it runs in; the host's if None.
        timeout: seconds that it may run.
        max_size: octets that a message may have; a larger one fails with status 5.3.4. None: any.
        input: "message" or "nothing".
        line_ends: of the standard input, "lf" or "crlf".
        from_line: put a line ``From sender date`` before the message, as in an mbox (pipe(8) of Postfix: flag F).
        delivered_to: put a ``Delivered-To`` header before it (flag D; RFC 9228).
        return_path: put a ``Return-Path`` header before it (flag R; RFC 5321 section 4.4).
        null_sender: what ``{sender}`` is for the null reverse-path.
        outcome: what an exit status that means ok is called: ``Delivered``, or ``Relayed`` where the program only
            passes messages on.
        exits: rows that replace those of the built-in table.

    Raises:
        ConfigurationError: an option is wrong.
    """

    command: Sequence[str]
    _: KW_ONLY
    name: str = "pipe"
    address_types: Collection[str] = frozenset({"pipe"})
    env: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    cwd: str | os.PathLike[str] | None = None
    timeout: float = 300.0
    max_size: int | None = None
    input: Literal["message", "nothing"] = "message"
    line_ends: Literal["lf", "crlf"] = "lf"
    from_line: bool = False
    delivered_to: bool = False
    return_path: bool = False
    null_sender: str = "MAILER-DAEMON"
    outcome: type[Delivered] | type[Relayed] = Delivered
    exits: Sequence[ExitRow] = ()

    def __post_init__(self) -> None:
        self.command = _read_command(self.command)
        for name, words in (("input", ("message", "nothing")), ("line_ends", ("lf", "crlf"))):
            if getattr(self, name) not in words:
                raise ConfigurationError(
                    name, f"{getattr(self, name)!r} is not possible", f"give {' or '.join(words)}"
                )
        if self.timeout <= 0:
            raise ConfigurationError("timeout", f"{self.timeout!r} is not positive", "give seconds above 0")
        if self.at_once and self.delivered_to:
            raise ConfigurationError(
                "delivered_to",
                "names one recipient, and a run has several",
                "use {recipient} for {recipients}",
            )
        self.table = exit_table(self.exits)

    @property
    def at_once(self) -> bool:
        """Whether one run serves all recipients of a delivery."""
        return _ALL in self.command

    def prepare(self) -> None:
        """Check that the program is there.

        Raises:
            ConfigurationError: it is not.
        """
        program = self.command[0].format()
        if not is_executable(program, self.environment().get("PATH", os.defpath)):
            raise ConfigurationError(
                "command", f"{program} is not a program that this process may run", "give its path"
            )

    def open(self) -> Session:
        """Return a session; nothing is started before there is something to send.

        Raises:
            TransportDown: this process has no file handle left.
        """
        try:
            return PipeSession(self)
        except OSError as error:
            raise TransportDown(f"{self.name}: {error.strerror}") from error

    def environment(self) -> dict[str, str]:
        """Return the whole environment of the program."""
        return {name: os.environ[name] for name in INHERITED if name in os.environ} | dict(self.env)

    def arguments(self, delivery: Delivery, targets: Sequence[Target], size: int) -> list[str]:
        """Return the command line of one run (pure).

        Raises:
            ValueError: a value would be taken for an option.
        """
        first = targets[0]
        local, at, domain = first.address.value.rpartition("@")
        values = {
            "sender": delivery.sender or self.null_sender,
            "recipient": first.address.value,
            "address": str(first.address),
            "local": local if at else first.address.value,
            "domain": domain if at else "",
            "message_id": delivery.message_id,
            "index": str(first.index),
            "attempt": str(first.attempts + 1),
            "size": str(size),
        }
        filled: list[str] = []
        options_possible = True
        for argument in self.command:
            is_all = argument == _ALL
            more = [each.address.value for each in targets] if is_all else [argument.format_map(values)]
            if (
                options_possible
                and any(each.startswith("-") for each in more)
                and not argument.startswith("-")
            ):
                raise ValueError("it begins with a hyphen, and the program would take it for an option")
            options_possible = options_possible and argument != "--"
            filled += more
        return filled

    def stdin(self, delivery: Delivery, target: Target) -> bytes:
        """Return what the program reads (pure)."""
        if self.input == "nothing":
            return b""
        head = ""
        if self.return_path:
            head = f"Return-Path: <{one_line(delivery.sender)}>\r\n"
        if self.delivered_to:
            address = target.address
            head += f"Delivered-To: {one_line(address.value if address.type == 'smtp' else str(address))}\r\n"
        content = head.encode("utf-8", "replace") + delivery.content
        if self.from_line:
            line = mbox_entry(delivery.sender, delivery.created, b"").partition(b"\n")[0]
            content = line + b"\r\n" + content
        return content if self.line_ends == "crlf" else content.replace(b"\r\n", b"\n")


class PipeSession(Session):
    """Holds nothing between runs but the means to end one."""

    def __init__(self, transport: PipeTransport) -> None:
        self._transport = transport
        self._program = Program()

    def send(self, delivery: Delivery) -> Outcomes:
        """Run the program, once for all targets if it takes several, else for each."""
        if not self.usable:
            raise SessionStale("the session is closed")
        transport = self._transport
        size = len(delivery.content)
        if transport.max_size is not None and size > transport.max_size:
            return Failed(Reply(f"message of {size} octets; at most {transport.max_size} are taken", "5.3.4"))
        if not transport.at_once:
            return self._one_by_one(delivery)
        code, outcome = self._run(delivery, delivery.targets)
        if len(delivery.targets) > 1 and code is not None and exit_row(code, transport.table).one_recipient:
            # It refused the whole because of one of them; which one shows when each is tried by itself.
            return self._one_by_one(delivery)
        return outcome

    def _one_by_one(self, delivery: Delivery) -> list[Outcome]:
        outcomes: list[Outcome] = []
        for target in delivery.targets:
            try:
                outcomes.append(self._run(delivery, [target])[1])
            except TransportDown as down:
                if not outcomes:
                    raise
                # What the program took before must be settled now, or it would be sent again.
                outcomes.append(Deferred(Reply(one_line(down.reason), "4.3.0"), down.retry_after))
        return outcomes

    def _run(self, delivery: Delivery, targets: Sequence[Target]) -> tuple[int | None, Outcome]:
        """Return the exit status, if there is one, and what became of the targets."""
        transport = self._transport
        content = transport.stdin(delivery, targets[0])
        try:
            arguments = transport.arguments(delivery, targets, len(content))
        except ValueError as error:
            return None, Failed(Reply(f"not a usable address: {error}", "5.1.3"))
        if not self.usable:
            return None, Deferred(Reply("aborted before it was tried", "4.3.2"))
        try:
            ended = self._program.run(
                arguments,
                content,
                env=transport.environment(),
                cwd=transport.cwd,
                timeout=transport.timeout,
            )
        except OSError as error:
            raise TransportDown(f"{arguments[0]} cannot be started: {error.strerror}") from error
        if ended.stopped:
            said = f"{ended.stopped}: {ended.output}" if ended.output else ended.stopped
            return None, Deferred(Reply(one_line(said), "4.4.2"), in_doubt=True)
        return ended.code, exit_outcome(ended.code, ended.output, transport.table, transport.outcome)

    def close(self) -> None:
        """Release the file handles."""
        self.usable = False
        self._program.close()

    def abort(self) -> None:
        """Kill the program that runs, with all that it started."""
        self.usable = False
        self._program.abort()


@dataclass(eq=False)
class SendmailTransport(PipeTransport):
    """Hands mail to a sendmail command: that of Postfix, Exim, OpenSMTPD, msmtp … Thread-safe.

    It runs ``sendmail -i -f sender -- recipients…``, for many recipients at once. The outcome is ``Relayed``: the mail
    system has the message in its own queue, and reports failures to the sender itself.

    Attributes:
        path: the command.
        options: arguments that follow ``-i``, for example ``["-N", "failure"]``.

    Raises:
        ConfigurationError: an option is wrong.
    """

    command: Sequence[str] = field(init=False)
    path: str | os.PathLike[str] = _SENDMAIL
    _: KW_ONLY
    name: str = "sendmail"
    address_types: Collection[str] = frozenset({"smtp"})
    limits: Limits = field(default_factory=lambda: Limits(recipients_per_delivery=50))
    null_sender: str = "<>"
    outcome: type[Delivered] | type[Relayed] = Relayed
    options: Sequence[str] = ()

    def __post_init__(self) -> None:
        options = [
            each.replace("{", "{{").replace("}", "}}") for each in (os.fspath(self.path), *self.options)
        ]
        self.command = [options[0], "-i", *options[1:], "-f", "{sender}", "--", _ALL]
        super().__post_init__()


def _read_command(command: Sequence[str]) -> tuple[str, ...]:
    if isinstance(command, str):
        remedy = 'give a list: ["program", "{recipient}"]'
        raise ConfigurationError("command", "is one text, and no shell parts it", remedy)
    if not command or not command[0]:
        raise ConfigurationError("command", "is empty", "give a program and its arguments")
    used = set[str]().union(*(_read_argument(f"command[{at}]", each) for at, each in enumerate(command)))
    if _read_argument("command[0]", command[0]):
        raise ConfigurationError("command[0]", "the program depends on the message", "name one program")
    if _ALL in command and used & _OF_ONE:
        problem = f"{sorted(used & _OF_ONE)} is of one recipient, and a run has several"
        raise ConfigurationError("command", problem, "drop {recipients}")
    return tuple(command)


def _read_argument(where: str, argument: str) -> set[str]:
    """Return the placeholders of an argument."""
    if "\0" in argument:
        raise ConfigurationError(where, "holds a NUL", "remove it")
    if argument == _ALL:
        return {"recipients"}
    try:
        parts = list(string.Formatter().parse(argument))
    except ValueError as error:
        raise ConfigurationError(where, str(error), "double a brace that is no placeholder") from None
    used: set[str] = set()
    for _, name, form, conversion in parts:
        if name == "recipients":
            raise ConfigurationError(
                where, "{recipients} stands beside text", "make it an argument by itself"
            )
        if name is not None and (name not in _PLACEHOLDERS or form or conversion):
            remedy = f"use one of: {', '.join(sorted(_PLACEHOLDERS))}, or double the braces"
            raise ConfigurationError(where, f"{{{name}}} is not a placeholder", remedy)
        if name is not None:
            used.add(name)
    return used
