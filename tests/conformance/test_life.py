"""Whatever happens, in whatever order: the ledger balances, nobody is settled twice, and everybody comes to an end."""

import pytest
from hypothesis import HealthCheck, settings

from tests.conformance.life_machine import LifeMachine

# Only a failure takes long: it is made as short as can be.
pytestmark = pytest.mark.timeout(900)

TestLife = LifeMachine.TestCase
TestLife.settings = settings(
    max_examples=50, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
