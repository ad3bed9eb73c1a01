"""ingest: look at the source, detect and check what changed, stage it as a batch."""

from __future__ import annotations

from flows.operations.ingest import ingest
from flows.tasks import stage

ingest_stage = stage("ingest", "Look at the source, read and check what changed, stage it as a batch.")(ingest)
