"""``[transport.throttle]``: how a configuration file slows a transport down."""

from collections.abc import Mapping
from dataclasses import replace
from glob import escape
from typing import Final

from postroom.config_retries import WAIT, read_wait
from postroom.config_values import (
    Reader,
    Section,
    destination,
    integer,
    number,
    rate,
    table,
    unlimited,
    window,
)
from postroom.retries import MINUTE
from postroom.throttles import DestinationLimits, Throttle

__all__ = ["DESTINATION", "THROTTLE", "read_throttle"]

THROTTLE: Final[Mapping[str, Reader]] = {
    "rate": rate,
    "hours": window,
    "destination": table,
    "overrides": table,
}
DESTINATION: Final[Mapping[str, Reader]] = {
    "concurrency": integer,
    "initial": integer,
    "rate": unlimited(rate),
    "cohorts": number,
    "probe": table,
}


def read_throttle(section: Section) -> Throttle:
    """Return what a ``throttle`` table says; what an override leaves out is as in ``destination``."""
    given = section.read(THROTTLE)
    common: DestinationLimits | None = None
    if "destination" in given:
        common = _limits(section.inner("destination", given["destination"]), DestinationLimits())
    overrides: dict[str, DestinationLimits] = {}
    for name, values in given.get("overrides", {}).items():
        key = f'overrides."{name}"'
        glob = section.convert(key, destination, name)
        if glob.startswith("[") and glob.endswith("]"):
            # An address literal, which a glob would take for a set of characters.
            glob = escape(glob)
        if glob in overrides:
            raise section.error(key, "is there twice", "case does not count: join the two")
        inner = section.inner(key, section.convert(key, table, values))
        overrides[glob] = _limits(inner, common or DestinationLimits())
    return Throttle(rate=given.get("rate"), hours=given.get("hours"), destination=common, overrides=overrides)


def _limits(section: Section, otherwise: DestinationLimits) -> DestinationLimits:
    given = section.read(DESTINATION)
    if "probe" in given:
        probe = section.inner("probe", given["probe"])
        given["probe"] = read_wait(probe, probe.read(WAIT), initial=10.0, longest=10 * MINUTE)
    limits = section.make(lambda: replace(otherwise, **given), _last)
    if "initial" in given and limits.initial > limits.concurrency:
        raise section.error(
            "initial",
            f"{limits.initial} is more than the concurrency {limits.concurrency}",
            "give less, or raise concurrency",
        )
    return limits


def _last(field: str) -> str:
    return field.rpartition(".")[2]
