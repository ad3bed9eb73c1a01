"""Random histories with crashes against a plain dict: store, log, mirror and repository always equal the model."""

from __future__ import annotations

import random
import shutil
import tempfile
from pathlib import Path
from uuid import uuid4

import msgspec
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from autosync.errors import AutoSyncError
from autosync.records import canonical
from autosync.shards import repo_layout
from blocks import mirror as mirror_files
from blocks.store import batches, history, ledger
from blocks.store.files import AllFiles
from flows.space import now
from flows.stages.ingest import ingest
from flows.stages.mirror import mirror
from flows.stages.push import open_remote, push
from flows.stages.store import store
from tests.pipeline import Pipeline

IDS = [f"k{n}" for n in range(600)]
VALUES = st.one_of(st.integers(-3, 3), st.text("ab✓ ", max_size=3), st.none(), st.just({"x": [1, 2]}))


class Sync(RuleBasedStateMachine):
    """A source file is edited and synced; a run may die between any two of its writes."""

    @initialize(mode=st.sampled_from(["snapshot", "upsert"]))
    def begin(self, mode: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="autosync-machine-"))
        self.place = Pipeline(self.folder)
        (self.folder / "autosync.toml").write_text(
            f'[[source]]\nname = "things"\nlocation = "things.json"\nkey = "/id"\nmode = "{mode}"\n'
            '[source.guard]\nmax_delete = 1.0\nmax_refuse = 1.0\n[source.expect]\nranges = { "/n" = [-2, 3] }\n'
        )
        self.mode = mode
        self.rows: dict[str, dict[str, object]] = {"k0": {"id": "k0"}}
        self.model: dict[str, bytes] = {}
        self.past: dict[int, dict[str, bytes]] = {}
        self.mess = 0

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder)

    @rule(ids=st.lists(st.sampled_from(IDS[:12]), max_size=4), name=st.sampled_from("nmo"), value=VALUES)
    def edit(self, ids: list[str], name: str, value: object) -> None:
        """Insert or change a few records; fields come and go, types change."""
        for id in ids:
            self.rows[id] = {**self.rows.get(id, {"id": id}), name: value}

    @rule(ids=st.lists(st.sampled_from(IDS[:12]), max_size=4))
    def drop(self, ids: list[str]) -> None:
        """Delete a few records."""
        for id in ids:
            if len(self.rows) > 1:
                self.rows.pop(id, None)

    @rule(count=st.integers(200, 320), seed=st.integers(0, 3))
    def bulk(self, count: int, seed: int) -> None:
        """Cross the line between one file and many, in both directions."""
        chosen = random.Random(seed).sample(IDS, count)
        self.rows = {id: self.rows.get(id, {"id": id, "b": seed}) for id in chosen}

    @rule(mess=st.integers(0, 5))
    def reformat(self, mess: int) -> None:
        """The same content in another order, with other spaces, and repeated rows."""
        self.mess = mess

    def body(self) -> bytes:
        rows = list(self.rows.values())
        random.Random(self.mess).shuffle(rows)
        rows += rows[: self.mess % 3]
        text = msgspec.json.encode(rows)
        return msgspec.json.format(text, indent=self.mess) if self.mess else text

    def expected(self) -> dict[str, bytes]:
        """What the records are after a sync: refused rows leave theirs as they were."""

        def fine(row: dict[str, object]) -> bool:
            return not (isinstance(row.get("n"), int) and row["n"] < -2)  # type: ignore[operator]

        new = {} if self.mode == "snapshot" else dict(self.model)
        for id, row in self.rows.items():
            if fine(row):
                new[id] = canonical(row)
            elif id in self.model:
                new[id] = self.model[id]
        return new

    @rule(stop=st.sampled_from(["ingest", "store", "mirror", "half mirror", "push", "lost cursor", ""]))
    def sync(self, stop: str) -> None:
        """A run that dies after a stage (or inside one), and then one that doesn't."""
        self.place.write(self.body())
        if stop:
            self.dying(stop)
        self.place.run()
        self.model = self.expected()
        with self.place.space.database() as db:
            number = batches.collection_id(db, "things")
            assert number is not None
            self.past[ledger.newest_seq(db, number)] = dict(self.model)

    def dying(self, stop: str) -> None:
        space, run = self.place.space, str(uuid4())
        found = ingest(space, "things", run)
        if stop == "ingest":
            return
        if found.batch:
            with space.database() as db:
                token = ledger.grant(db, "source things", run, now=now())
            store(space, "things", found.batch, run, token)
        if stop == "half mirror":
            self.half_mirror()
        if stop in ("store", "half mirror"):
            return
        root = mirror(space, "things").root
        if stop == "mirror":
            return
        push(space, "things", run, root)
        if stop == "lost cursor":  # the commit was made, its cursor was not written
            with space.database() as db:
                db.execute("DELETE FROM consumer WHERE consumer = 'push'")

    def half_mirror(self) -> None:
        """Some files are new, the manifest is old: what a crash in the middle of the mirror leaves."""
        folder = self.place.space.home.mirror / "things"
        if (folder / "manifest.json").exists():
            mirror_files.write_file(folder / "pending", b"")
            for path in (folder / "current").iterdir():
                path.write_bytes(b'{"id":"half written')
                break

    @invariant()
    def all_agree(self) -> None:
        if not getattr(self, "past", None):
            return
        records = {id: doc.encode() for id, doc in self.place.records().items()}
        assert records == self.model
        found = self.place.verify()
        assert found["equal"] is True, found

    @rule()
    def look_back(self) -> None:
        """Any earlier state is what the model was then; the log replays to the present."""
        if not self.past:
            return
        with self.place.space.database(read_only=True) as db:
            number = batches.collection_id(db, "things")
            assert number is not None
            for seq, then in self.past.items():
                assert dict(history.as_of(db, number, seq)) == then
            replayed: dict[str, str] = {}
            for id, op, before, after in db.execute("SELECT id, op, before, after FROM change_log ORDER BY seq"):
                assert replayed.get(id) == before
                replayed.pop(id, None)
                if op != "delete":
                    replayed[id] = after
            assert {id: doc.encode() for id, doc in replayed.items()} == self.model

    @rule()
    def compare_repository_with_a_full_rewrite(self) -> None:
        """Files made by many small pushes are the files that one rewrite would make."""
        if not self.past:
            return
        with self.place.space.database(read_only=True) as db:
            number = batches.collection_id(db, "things")
            assert number is not None
            wanted = dict(AllFiles(db, number, len(self.model)).items())
        held = {
            path.removeprefix("things/"): data
            for path, data in open_remote(self.place.space).files("things")
            if path.endswith(".jsonl")
        }
        assert held == wanted, repo_layout(len(self.model))


def test_a_refused_run_leaves_the_machine_as_it_was(tmp_path: Path) -> None:
    """An emptied source after a history: nothing moves."""
    (tmp_path / "autosync.toml").write_text('[[source]]\nname = "things"\nlocation = "things.json"\nkey = "/id"\n')
    place = Pipeline(tmp_path)
    place.write([{"id": "a"}])
    place.run()
    place.write(b"[]")
    try:
        place.run()
    except AutoSyncError as error:
        assert error.outcome == "refused"
    assert place.records() == {"a": '{"id":"a"}'}


TestSync = Sync.TestCase
