"""mirror: write what changed into the versioned JSON mirror and compare its root with the store."""

from __future__ import annotations

from flows.operations.mirror import mirror
from flows.tasks import stage

mirror_stage = stage("mirror", "Write what changed into the versioned JSON mirror; check its root.")(mirror)
