"""notify: deliver what the outbox holds, each notice once: Slack, else email, else the console."""

from __future__ import annotations

from flows.operations.notify import LONGEST_NOTICE_WAIT, notify
from flows.tasks import stage

notify_stage = stage(
    "notify", "Deliver the notices that wait in the outbox, each once.", longest_wait=LONGEST_NOTICE_WAIT
)(notify)
