"""What all tests share: Hypothesis profiles, and no environment of the developer's."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

COMMON = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
settings.register_profile("dev", COMMON, max_examples=30, stateful_step_count=12)
settings.register_profile("ci", COMMON, max_examples=30, stateful_step_count=12, derandomize=True)
settings.register_profile("soak", COMMON, max_examples=1000, stateful_step_count=30)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))

for name in [name for name in os.environ if name.startswith(("AUTOSYNC_", "PREFECT_", "GIT_"))]:
    del os.environ[name]
