"""What all tests share: Hypothesis profiles, and no environment of the developer's."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large]}
settings.register_profile("dev", max_examples=30, stateful_step_count=12, **COMMON)
settings.register_profile("ci", max_examples=30, stateful_step_count=12, derandomize=True, **COMMON)
settings.register_profile("soak", max_examples=1000, stateful_step_count=30, **COMMON)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))

for name in [name for name in os.environ if name.startswith(("AUTOSYNC_", "PREFECT_", "GIT_"))]:
    del os.environ[name]
