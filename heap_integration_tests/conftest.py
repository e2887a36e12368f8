"""How all property tests run."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# A busy machine draws and runs slowly, which says nothing about the code; and where examples share a fixture, they are
# written so that they may.
SUPPRESSED = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
settings.register_profile("hub", deadline=None, suppress_health_check=SUPPRESSED)
settings.load_profile("hub")
