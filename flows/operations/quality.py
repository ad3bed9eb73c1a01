"""Dataset checks of a batch by the warm validator, before anything of it is stored."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from autosync.change_detection import Refusal, Staged
from autosync.errors import Refused
from autosync.settings import Source
from blocks.store.staged_batch import Stage

VALIDATOR = "validator.json"


def check_dataset(source: Source, folder: Path, staged: Staged, state: Path, docs: Path, *, accepted: bool) -> Staged:
    """Check the changed rows; rows that a check names join the refused ones.

    Args:
        folder: The staged batch.
        state: The validator's state file.
        docs: Folder of the Data Docs.
        accepted: Somebody gave this batch's code: failures that name no rows don't refuse it.

    Raises:
        Refused: A check of the changed rows as a whole failed.
    """
    if not source.expect.dataset or len(staged.recs) == len(staged.skip):
        return staged
    from blocks.quality.validator import Request, ask

    request = Request(
        rows=str(folder),
        checks=source.expect.dataset,
        docs=str(docs),
        name=source.name,
        skip=sorted(staged.skip),
    )
    verdict = ask(state, request)
    if verdict.whole and not accepted:
        raise Refused(
            f"the changed rows of {source.name!r} fail {len(verdict.whole)} dataset checks: {'; '.join(verdict.whole)}",
            where=f"Data Docs: {verdict.docs}",
            kept="the collection, its mirror and its repository are as before",
            todo="correct the source or its [[source.expect.dataset]]",
        )
    return _refuse(staged, folder, verdict.refused) if verdict.refused else staged


def _refuse(staged: Staged, folder: Path, reasons: dict[str, str]) -> Staged:
    rows = Stage.peek(folder, len(staged.recs))
    named = {n: row for n, row in rows.items() if row[0] in reasons and n not in staged.skip}
    refused = [Refusal(f"record {id}", id, reasons[id], doc) for id, doc in named.values()]
    return replace(staged, skip=staged.skip | named.keys(), refused=[*staged.refused, *refused])
