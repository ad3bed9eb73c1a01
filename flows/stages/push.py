"""push: one atomic commit of the files that changed, on top of whatever the branch holds by then."""

from __future__ import annotations

from flows.operations.push import push
from flows.tasks import stage

push_stage = stage("push", "Make one atomic commit of the changed files.")(push)
