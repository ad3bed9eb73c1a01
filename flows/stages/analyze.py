"""analyze: KPIs, feedback score and anomalies from runs, changes and commits, as the values of a report."""

from __future__ import annotations

from flows.operations.analyze import analyze
from flows.tasks import stage

analyze_stage = stage("analyze", "Compute KPIs, the feedback score and anomalies from runs and changes.")(analyze)
