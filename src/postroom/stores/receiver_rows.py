"""What a spool has on the record of its receivers, whichever process runs them."""

from dataclasses import dataclass

from postroom.stores.inbox_reader import SqliteInboxReader

__all__ = ["ReceiverReader", "ReceiverRow"]

LEASE = "receiver/"
"""What the names of the receivers' leases begin with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiverRow:
    """What is on the record of a receiver. How it does is not: that is known to the process that runs it.

    Attributes:
        name: the receiver's.
        node: of the process that holds its lease, None where nobody does, or where it needs none.
        leased_until: wall-clock seconds until which the lease holds unless it is prolonged.
        known: remote copies in the ledger, which are not taken again.
        sources: where they are.
        kept: messages of it that are in the spool.
        last: wall-clock seconds at which the last of these was taken.
    """

    name: str
    node: int | None = None
    leased_until: float | None = None
    known: int = 0
    sources: int = 0
    kept: int = 0
    last: float | None = None


class ReceiverReader(SqliteInboxReader):
    """Reads the record of receivers; the argument is the base's. The cost grows with ledger and inbox."""

    def receiver_rows(self) -> tuple[ReceiverRow, ...]:
        """Return what is on the record of each receiver that left something there, by name.

        Raises:
            SpoolUnavailable: the spool cannot be read.
        """
        with self._snapshot() as connection:
            leases = connection.execute(
                "SELECT substr(name, ?), node, until FROM lease WHERE substr(name, 1, ?) = ?",
                (len(LEASE) + 1, len(LEASE), LEASE),
            ).fetchall()
            ledger = connection.execute(
                "SELECT receiver, count(*), count(DISTINCT source) FROM ledger GROUP BY receiver"
            ).fetchall()
            inbound = connection.execute(
                "SELECT receiver, count(*), max(received) FROM inbound GROUP BY receiver"
            ).fetchall()
        leased = {name: (node, until) for name, node, until in leases}
        known = {name: (keys, sources) for name, keys, sources in ledger}
        kept = {name: (messages, last) for name, messages, last in inbound}
        rows: list[ReceiverRow] = []
        for name in sorted({*leased, *known, *kept}):
            node, until = leased.get(name, (None, None))
            keys, sources = known.get(name, (0, 0))
            messages, last = kept.get(name, (0, None))
            rows.append(
                ReceiverRow(
                    name=name, node=node, leased_until=until, known=keys, sources=sources, kept=messages, last=last
                )
            )  # fmt: skip
        return tuple(rows)
