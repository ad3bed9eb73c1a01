"""up, report: the service and its products."""

from __future__ import annotations
