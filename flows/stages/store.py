"""store: apply the staged batch in one transaction: records, change log, source state."""

from __future__ import annotations

from flows.operations.store import store
from flows.tasks import stage

store_stage = stage("store", "Apply the batch: records, change log and source state in one transaction.")(store)
