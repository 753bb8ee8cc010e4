"""Settings of all tests."""

import pytest
from hypothesis import HealthCheck, settings

# what is asserted in these helpers tells its values too
pytest.register_assert_rewrite("tests.conformance")

# how long an example takes depends on what else the machine does, so it is not judged
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")
