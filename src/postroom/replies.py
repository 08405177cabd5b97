"""What a remote reply means for a recipient: the one table for SMTP, LMTP, HTTP and exceptions.

A table is a list of rows (:class:`~postroom.reply_rows.ReplyRow`), those of the transport's ``replies=`` before the
built-in ones (:mod:`postroom.reply_tables`); the first row that matches decides. Everything here is pure, so that
a transport only has to say what was answered and when. Errors are temporary unless a row says otherwise.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache

from postroom.errors import ConfigurationError, TransportDown
from postroom.outcomes import Deferred, Delivered, Failed, Outcome, Relayed, Reply
from postroom.reply_reading import exception_reply, hinted_wait, one_line, smtp_reply
from postroom.reply_rows import OPENING, REFUSALS, TRANSACTION, Phase, ReplyRow, Verdict
from postroom.reply_tables import EXCEPTION_NAMES, HTTP_TABLE, SMTP_TABLE

__all__ = [
    "EXCEPTION_NAMES",
    "HTTP_TABLE",
    "SMTP_TABLE",
    "Phase",
    "ReplyRow",
    "ReplyTable",
    "Verdict",
    "exception_reply",
    "hinted_wait",
    "http_table",
    "one_line",
    "smtp_reply",
    "smtp_table",
    "written",
]


class ReplyTable:
    """The rows that are in effect for one transport. Immutable, thread-safe.

    Args:
        built_in: the protocol's rows; the last of those about replies matches every code.
        own: rows that are tried before them, for whatever is no success. Before MAIL, and before a connection
            stands, they can only say ``TRANSPORT_DOWN`` (SMTP).

    Attributes:
        rows: all rows in the order in which they are tried.
    """

    def __init__(self, built_in: Sequence[ReplyRow], own: Sequence[ReplyRow] = ()) -> None:
        self.rows: tuple[ReplyRow, ...] = (*own, *built_in)
        self._built_in = tuple(built_in)
        # Bounded, since the other side chooses codes and status codes.
        self._candidates: Callable[[int, str, Phase], tuple[ReplyRow, ...]] = lru_cache(maxsize=512)(
            self._find_candidates
        )

    def _find_candidates(self, code: int, status: str, phase: Phase) -> tuple[ReplyRow, ...]:
        found: list[ReplyRow] = []
        for row in self._built_in if phase in OPENING else self.rows:
            if row.matches(code, status, phase):
                found.append(row)
                if not row.is_conditional:
                    break
        return tuple(found)

    def row(  # noqa: PLR0913 - what the columns of the table are about
        self, code: int, status: str, phase: Phase, *, text: str = "", attempts: int = 0, asked: bool = False
    ) -> ReplyRow:
        """Return the row that decides about a reply.

        Args:
            code: the reply code, 100 to 599.
            status: the server's enhanced status code, or "".
            phase: what was answered.
            text: what was said.
            attempts: attempts made before this one.
            asked: the other side said when to come back.
        """
        candidates = self._candidates(code, status, phase)
        if len(candidates) == 1:
            return candidates[0]
        return next(row for row in candidates if row.holds(text, attempts, asked=asked))

    def verdict(self, code: int, status: str, phase: Phase) -> Verdict:
        """Return what a reply means of which nothing more is known."""
        return self.row(code, status, phase).means

    def outcome(
        self,
        reply: Reply,
        phase: Phase,
        *,
        success: type[Relayed | Delivered] = Relayed,
        attempts: int = 0,
        retry_after: float | None = None,
    ) -> Outcome:
        """Return what a reply means for the recipients that it is about.

        A missing enhanced status code is filled in, and one whose class disagrees with the outcome is corrected.

        Args:
            reply: what the other side said.
            phase: what was answered.
            success: ``Relayed`` for a relay, ``Delivered`` where the other side is the last hop.
            attempts: attempts made before this one.
            retry_after: seconds after which the other side said to come back (RFC 9110 section 10.2.3), or None.

        Raises:
            TransportDown: the reply is about the whole messaging system.
        """
        asked = retry_after is not None
        row = self.row(reply.code or 0, reply.status, phase, text=reply.text, attempts=attempts, asked=asked)
        if row.means is Verdict.OK:
            return success(_fitted(reply, row))
        return _outcome(row, reply, phase, retry_after)

    def exception_outcome(self, error: BaseException, phase: Phase, reply: Reply) -> Outcome:
        """Return what an exception means for the recipients of the attempt.

        Args:
            error: what was raised.
            phase: during which step.
            reply: its record, as :func:`exception_reply` makes it.

        Raises:
            TransportDown: it concerns the whole messaging system.
        """
        return _outcome(self._exception_row(error, phase, reply), reply, None, None)

    def outage(self, error: BaseException, remote: str) -> TransportDown:
        """Return what to raise for an exception after which there is no session (SMTP)."""
        reply = exception_reply(error, remote)
        return TransportDown(str(reply), self._exception_row(error, Phase.CONNECT, reply).retry_after)

    def _exception_row(self, error: BaseException, phase: Phase, reply: Reply) -> ReplyRow:
        return next(row for row in self.rows if row.matches_exception(error, phase, reply.text))


def _outcome(row: ReplyRow, reply: Reply, phase: Phase | None, asked: float | None) -> Outcome:
    retry_after = asked
    if retry_after is None and row.means is Verdict.GREYLISTED:
        retry_after = hinted_wait(reply.text)
    if retry_after is None:
        retry_after = row.retry_after
    if row.means is Verdict.TRANSPORT_DOWN:
        raise TransportDown(str(reply) if phase is None else f"{phase.value}: {reply}", retry_after)
    reply = _fitted(reply, row)
    if row.means is Verdict.FAILED:
        return Failed(reply)
    return Deferred(
        reply,
        retry_after,
        destination_down=row.means is Verdict.DESTINATION_DOWN,
        greylisted=row.means is Verdict.GREYLISTED,
    )


def _fitted(reply: Reply, row: ReplyRow) -> Reply:
    """Return the reply with an enhanced status code whose class fits the outcome."""
    wanted = row.status_class
    if not reply.status:
        status = row.status or ("" if row.means is Verdict.OK else f"{wanted}.0.0")
        return replace(reply, status=status) if status else reply
    return reply if reply.status[0] == wanted else replace(reply, status=wanted + reply.status[1:])


def smtp_table(own: Sequence[ReplyRow] = ()) -> ReplyTable:
    """Return the table of an SMTP or LMTP transport with ``replies=own``.

    Raises:
        ConfigurationError: a row can never match, or would undo what the server has taken over.
    """
    for position, row in enumerate(own):
        where = f"replies[{position}]"
        _check_own(where, row)
        if row.exception is not None:
            if row.means is not Verdict.TRANSPORT_DOWN:
                said = f"an SMTP connection that fails is about the whole server, not {row.means}"
                raise ConfigurationError(f"{where}.means", said, "give transport_down, with retry_after= say")
            if Phase.CONNECT not in row.phases:
                raise _unmet(where, "the exception says by itself what failed: leave phases= out")
            continue
        if not row.phases & TRANSACTION:
            raise _unmet(where, "before MAIL every refusal is the server's: match the exception")
        if row.asked:
            raise ConfigurationError(f"{where}.asked", "SMTP has no Retry-After", "leave it out")
        if row.codes != REFUSALS and any(re.fullmatch(row.codes, str(code)) for code in range(200, 400)):
            raise ConfigurationError(
                f"{where}.codes", f"{row.codes!r} matches successes, too", "give codes from 400 to 599"
            )
    return ReplyTable(SMTP_TABLE, [replace(row, codes=_FROM_400) if _is_open(row) else row for row in own])


def http_table(own: Sequence[ReplyRow] = ()) -> ReplyTable:
    """Return the table of a webhook transport with ``replies=own``.

    A row about a success (a receiver that answers 200 and says in the text that it failed) must name its ``codes``.

    Raises:
        ConfigurationError: a row can never match.
    """
    for position, row in enumerate(own):
        where = f"replies[{position}]"
        _check_own(where, row)
        wanted = {Phase.REQUEST} if row.exception is None else {Phase.REQUEST, Phase.CONNECT}
        if not row.phases & wanted:
            raise _unmet(where, "HTTP has the phases CONNECT (exceptions only) and REQUEST")
        if row.given != "*":
            raise ConfigurationError(f"{where}.given", "HTTP has no enhanced status codes", "leave it out")
    return ReplyTable(HTTP_TABLE, own)


_FROM_400 = "[45].."


def _is_open(row: ReplyRow) -> bool:
    return row.exception is None and row.codes == REFUSALS


def _check_own(where: str, row: ReplyRow) -> None:
    if not isinstance(row, ReplyRow):  # pyright: ignore[reportUnnecessaryIsInstance] - callers may be untyped
        raise ConfigurationError(where, f"{row!r} is no row", "give ReplyRow(…)")
    if row.means in {Verdict.OK, Verdict.NONSENSE}:
        known = ", ".join(each for each in Verdict if each not in {Verdict.OK, Verdict.NONSENSE})
        raise ConfigurationError(
            f"{where}.means", f"{row.means} is not for own rows", f"give one of: {known}"
        )
    if row == ReplyRow(row.means, retry_after=row.retry_after, status=row.status, why=row.why):
        remedy = "say which: codes=, given=, text=, phases= or exception="
        raise ConfigurationError(where, "it would match every refusal", remedy)


def _unmet(where: str, why: str) -> ConfigurationError:
    return ConfigurationError(f"{where}.phases", "it can never match", why)


def written(rows: Sequence[ReplyRow]) -> list[tuple[str, str, str, str]]:
    """Return rows as text for people: the answer, when it counts, what it means, and why."""
    return [(_answer(row), _condition(row), _meaning(row), row.why) for row in rows]


def _answer(row: ReplyRow) -> str:
    if row.exception is not None:
        return row.exception.__qualname__
    given = "" if row.given == "*" else f" {row.given}"
    return row.codes + given + (f" /{row.text}/" if row.text else "")


def _condition(row: ReplyRow) -> str:
    parts: list[str] = []
    if row.phases != frozenset(Phase):
        named = {OPENING: "before MAIL", TRANSACTION: "from MAIL on", OPENING | TRANSACTION: ""}
        parts.append(named.get(row.phases, ", ".join(each.value for each in Phase if each in row.phases)))
    if row.attempts is not None:
        parts.append("first attempt" if row.attempts == 1 else f"first {row.attempts} attempts")
    if row.asked:
        parts.append("with Retry-After")
    if row.exception is not None and row.text:
        parts.append(f"/{row.text}/")
    return "; ".join(filter(None, parts))


def _meaning(row: ReplyRow) -> str:
    status = f" {row.status}" if row.status else ""
    wait = f", after {row.retry_after:g} s" if row.retry_after is not None else ""
    return row.means.replace("_", " ") + status + wait
