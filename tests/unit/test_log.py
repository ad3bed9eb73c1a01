"""logs/app.log."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from flows.log import event, mask, open_log

SECRETS = [
    "ghp_" + "a1" * 18,
    "xoxb-" + "12" * 6 + "-abcdefghijkl",
    "https://hooks.slack.com/" + "services/T0/B0/" + "x" * 8,
    "github_pat_" + "11" * 12,
]


@pytest.mark.parametrize("secret", SECRETS)
def test_what_looks_like_a_secret_is_masked(secret: str) -> None:
    """Tokens and webhook addresses become ***, wherever they stand."""
    assert secret not in mask(f"push failed with {secret} somewhere")


def test_a_login_in_an_address_is_masked() -> None:
    """User and password of an address don't stay readable; its host does."""
    said = mask("fetch https://user:hunter2@example.org/data.git")
    assert "hunter2" not in said and "example.org/data.git" in said


def test_events_carry_run_and_source_and_are_masked(tmp_path: Path) -> None:
    """An event's line has time, level, run and source, and no secret."""
    path = tmp_path / "logs" / "app.log"
    open_log(path)
    event("r-1", "orders", f"failed with {SECRETS[0]}", logging.ERROR)
    line = path.read_text()
    assert "ERROR run=r-1 source=orders failed with ***" in line and SECRETS[0] not in line
