"""Who holds or awaits which lease, and the proof that a process is gone."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from blocks.processes import current_process, is_dead
from blocks.store import leases
from blocks.store.schema import connect


def test_a_process_is_dead_only_when_that_is_proven() -> None:
    """Not this one, nor one of another boot; one whose number is free, or belongs to a later process, is."""
    me = current_process()
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert not is_dead(me)
    assert is_dead(replace(me, pid=ended.pid)) and is_dead(replace(me, start="1"))
    assert not is_dead(replace(me, pid=ended.pid, boot="another"))
    assert not is_dead(replace(me, pid=ended.pid, boot=""))


def test_a_zombie_is_dead() -> None:
    """A killed process that its parent has not waited for holds nothing."""
    code = "import sys; print(flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        before = current_process()
        held = replace(before, pid=process.pid, start=Path(f"/proc/{process.pid}/stat").read_text().split()[21])
        assert not is_dead(held)
        process.kill()
        process.stdout.read()
        while Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
            pass
        assert is_dead(held)


def test_one_process_adopts_a_lease(tmp_path: Path) -> None:
    """Of two that see the same abandoned lease one may release it; a server that can't be told leaves it to others."""
    db, me = connect(tmp_path / "store.db"), current_process()
    leases.add_waiter(db, "a", "source x", me, now=1.0)
    leases.note_lease(db, "a", "L", now=2.0)
    leases.mark_released(db, "a", now=3.0)
    (row,) = leases.holders(db)
    assert leases.adopt(db, row, me) and not leases.adopt(db, row, me)
    leases.mark_released(db, "a", now=4.0)
    assert leases.adopt(db, leases.holders(db)[0], me)
    leases.remove(db, "a")
    assert leases.holders(db) == []


def test_a_run_that_asks_again_forgets_no_lease(tmp_path: Path) -> None:
    """Its first lease, which the server was not told to release, stays to be freed beside the second."""
    db, me = connect(tmp_path / "store.db"), current_process()
    leases.add_waiter(db, "a", "source x", me, now=1.0)
    leases.note_lease(db, "a", "L1", now=2.0)
    leases.mark_released(db, "a", now=3.0)
    leases.add_waiter(db, "a", "source x", me, now=4.0)
    leases.note_lease(db, "a", "L2", now=5.0)
    assert sorted((row.lease, row.released is not None) for row in leases.holders(db)) == [("L1", True), ("L2", False)]
