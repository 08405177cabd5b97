"""The chain: one message through all preprocessors that its recipients' address types ask for. Pure but for the hooks.

Recipients that share one content are one group and are shown together. A group splits where a preprocessor gives its
members different contents, groups whose contents are equal become one, and who is returned or put off leaves his group.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from postroom.delivery import Delivery, Target
from postroom.hooks import ANY_TYPE, Preprocessor, Work
from postroom.outcomes import Deferred, Failed, Outcome, Processed, Reply
from postroom.preprocessing.judging import Admit, Judged, judge, origin_of
from postroom.routing import Route
from postroom.stores.base import NewMessage

__all__ = ["Bounds", "Chain", "NotNow", "Processing", "in_order", "type_ranks"]

log = logging.getLogger("postroom.hooks")

Call = Callable[[Preprocessor, Work], object]
"""Runs a preprocessor and returns its verdict, or raises whatever it raises, or :class:`NotNow`."""


class NotNow(Exception):
    """There is no time left to begin a call: its recipients are put off, whatever the preprocessor's policy."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How large things may become. Sizes are in octets.

    Attributes:
        max_size: of one content.
        max_octets: of all different contents of a message together; recipients beyond it are put off to the next turn.
    """

    max_size: int
    max_octets: int


@dataclass(frozen=True, slots=True)
class Processing:
    """What became of a delivery.

    Attributes:
        outcomes: one for each target, in their order.
        added: messages to store together with them.
    """

    outcomes: tuple[Outcome, ...]
    added: tuple[NewMessage, ...] = ()


def type_ranks(routes: Sequence[Route]) -> dict[str, int]:
    """Return the position of each address type in transport order: that of the first transport that handles it."""
    ranks: dict[str, int] = {}
    for position, route in enumerate(routes):
        for address_type in route.address_types:
            ranks.setdefault(address_type, position)
    return ranks


def in_order(preprocessors: Sequence[Preprocessor], ranks: Mapping[str, int]) -> tuple[Preprocessor, ...]:
    """Return preprocessors in the order in which they run; see :mod:`postroom.hooks`.

    One runs as soon as all have run that were given before it and share an address type with it; of those that could,
    the one whose first address type comes first in transport order.
    """
    waiting = list(preprocessors)
    ordered: list[Preprocessor] = []
    while waiting:
        ready = [
            position
            for position, each in enumerate(waiting)
            if not any(_share(each, former) for former in waiting[:position])
        ]
        ordered.append(waiting.pop(min(ready, key=lambda position: _rank(waiting[position], ranks))))
    return tuple(ordered)


def _rank(each: Preprocessor, ranks: Mapping[str, int]) -> int:
    if each.address_types == ANY_TYPE:
        return 0
    return min(
        (ranks.get(address_type, len(ranks)) for address_type in each.address_types), default=len(ranks)
    )


def _share(one: Preprocessor, other: Preprocessor) -> bool:
    if ANY_TYPE in (one.address_types, other.address_types):
        return True
    return not set(one.address_types).isdisjoint(other.address_types)


class Chain:
    """Preprocessors in the order in which they run. Thread-safe as far as ``call`` and ``admit`` are.

    Args:
        preprocessors: as :func:`in_order` returns them.
        admit: makes submissions storable.
        bounds: how large things may become.
    """

    def __init__(self, preprocessors: Sequence[Preprocessor], *, admit: Admit, bounds: Bounds) -> None:
        self._preprocessors = tuple(preprocessors)
        self._admit = admit
        self._bounds = bounds

    def run(self, delivery: Delivery, call: Call, now: float) -> Processing:
        """Take a message through the chain.

        Args:
            delivery: the message as it was submitted, and recipients of it.
            call: how a preprocessor is run.
            now: wall-clock seconds.
        """
        run = _Run(delivery, call, self._admit, self._bounds, now)
        origin = origin_of(delivery.options)
        for each in self._preprocessors:
            if each.name not in origin:
                run.step(each)
        return run.result()


class _Run:
    """One message on its way through the chain."""

    def __init__(self, delivery: Delivery, call: Call, admit: Admit, bounds: Bounds, now: float) -> None:
        self._delivery = delivery
        self._call = call
        self._admit = admit
        self._bounds = bounds
        self._now = now
        self._groups: dict[bytes, list[Target]] = {delivery.content: list(delivery.targets)}
        self._outcomes: dict[int, Failed | Deferred] = {}
        self._added: list[tuple[frozenset[int], tuple[NewMessage, ...]]] = []
        self._applied: dict[int, list[str]] = {target.index: [] for target in delivery.targets}

    def step(self, preprocessor: Preprocessor) -> None:
        """Show every group's recipients that the preprocessor handles to it."""
        groups: dict[bytes, list[Target]] = {}
        anonymous = 0
        for content, members in self._groups.items():
            mine = tuple(
                target
                for target in sorted(members, key=lambda target: target.index)
                if preprocessor.handles(target.address.type)
            )
            judged = Judged()
            if mine:
                judged = self._consult(preprocessor, Work.of(self._delivery, mine, content), anonymous)
                anonymous += judged.anonymous
                if judged.added:
                    self._added.append((frozenset(target.index for target in mine), judged.added))
                self._outcomes |= judged.outcomes
            for target in members:
                if target.index in judged.outcomes:
                    continue
                own = judged.contents.get(target.index, content)
                if own != content:
                    self._applied[target.index].append(preprocessor.name)
                groups.setdefault(own, []).append(target)
        self._groups = groups
        self._put_off_what_is_too_much()

    def _consult(self, preprocessor: Preprocessor, work: Work, first: int) -> Judged:
        name = preprocessor.name
        try:
            return judge(
                work, self._call(preprocessor, work), name=name, admit=self._admit, first=first,
                max_size=self._bounds.max_size, now=self._now,
            )  # fmt: skip
        except NotNow as error:
            return _all(work, Deferred(Reply(f"preprocessor {name}: {error}", "4.3.2")))
        except Exception as error:
            # Other people's code: whatever it raises must not cost more than this message's turn.
            log.exception("the preprocessor %s fails for message %s", name, work.message_id)
            text = f"preprocessor {name}: {type(error).__name__}: {error}"
            if preprocessor.on_error == "skip":
                return Judged()
            if preprocessor.on_error == "fail":
                return _all(work, Failed(Reply(text, "5.3.0")))
            return _all(work, Deferred(Reply(text, "4.3.0")))

    def _put_off_what_is_too_much(self) -> None:
        """Keep groups, the first one in any case, while their contents are within bounds: memory is finite."""
        octets = 0
        for position, (content, members) in enumerate(list(self._groups.items())):
            octets += len(content)
            if position and octets > self._bounds.max_octets:
                del self._groups[content]
                reply = Reply(
                    "waits for its turn: the message has too many different contents at once", "4.3.1"
                )
                self._outcomes |= {target.index: Deferred(reply) for target in members}

    def result(self) -> Processing:
        """Return what became of everybody, and what was added for anybody who is settled."""
        own = self._delivery.content
        outcomes: dict[int, Outcome] = dict(self._outcomes)
        for content, members in self._groups.items():
            for target in members:
                applied = self._applied[target.index]
                reply = Reply(
                    f"preprocessed: {', '.join(applied)}" if applied else "preprocessed, unchanged", "2.0.0"
                )
                outcomes[target.index] = Processed(None if content == own else content, reply)
        settled = {index for index, outcome in outcomes.items() if not isinstance(outcome, Deferred)}
        return Processing(
            tuple(outcomes[target.index] for target in self._delivery.targets),
            tuple(message for indices, added in self._added if indices & settled for message in added),
        )


def _all(work: Work, outcome: Failed | Deferred) -> Judged:
    return Judged(outcomes=dict.fromkeys((target.index for target in work.recipients), outcome))
