import pytest

from postroom.errors import ConfigurationError
from postroom.throttles import Throttle
from postroom.transports.base import Limits
from postroom.transports.memory import MemoryTransport


def test_nothing_is_throttled_by_default() -> None:
    transport = MemoryTransport()
    assert transport.throttle == Throttle()
    assert (transport.failover_after, transport.tightly_coupled, transport.limits.strict_order) == (
        None,
        False,
        False,
    )


def test_several_couriers_cannot_keep_an_order() -> None:
    assert Limits(concurrency=1, strict_order=True).strict_order
    with pytest.raises(ConfigurationError, match=r"limits\.strict_order: 2 couriers cannot keep an order"):
        Limits(concurrency=2, strict_order=True)


@pytest.mark.parametrize("values", [{"concurrency": 0}, {"window": -1}, {"attempt_timeout": 0.0}])
def test_limits_are_positive(values: dict[str, int]) -> None:
    with pytest.raises(ConfigurationError, match="not positive"):
        Limits(**values)  # type: ignore[arg-type] # by test
