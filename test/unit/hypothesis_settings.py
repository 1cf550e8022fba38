"""How many examples hypothesis draws, and what it is not to complain of."""

from hypothesis import HealthCheck, settings

BUSY = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"A machine that others use, too, is no mistake of the tests."
FEW = settings(BUSY, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
"For what takes a file or a fixture each time."
