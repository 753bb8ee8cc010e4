"""Settings of all tests: how long an example takes depends on what else the machine does, so it is not judged."""

from hypothesis import HealthCheck, settings

settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")
