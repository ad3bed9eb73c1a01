"""Random histories with crashes against a plain dict: store, log, mirror and repository always equal the model."""

from __future__ import annotations

import random
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from autosync.errors import Refused
from autosync.ports import Commit
from autosync.records import canonical
from autosync.settings import Retention
from autosync.shards import MIRROR_BITS, level
from blocks.mirror import versions as mirror_versions
from blocks.mirror.files import read_manifest
from blocks.store import batches, compaction, history, ledger
from blocks.store.schema import Db, transaction
from blocks.store.shard_files import all_files
from flows.operations.push import open_remote
from flows.operations.verify import repair_mirrors
from flows.workspace import now
from tests.pipeline import Pipeline, dying, mirrored_states

Model = dict[str, bytes]
VALUES = st.one_of(st.integers(-3, 3), st.text("ab✓ ", max_size=3), st.none(), st.just({"x": [1, 2]}))
PLAIN = [f"k{n:03d}" for n in range(600)]


@cache
def names() -> list[str]:
    """A few ids that are edited often (half of them begin a file of the mirror, some one of the repository) and many
    more that come and go in bulk.
    """
    begin = [id for n in range(120_000) if level(id := f"s{n}") >= MIRROR_BITS][:5]
    assert begin
    return begin + PLAIN[:7] + [id for id in PLAIN if level(id) >= 4][:4] + PLAIN


MERGE_ALL = Retention(days=0, daily=0)
FEW = st.lists(st.sampled_from(range(16)), max_size=4)


class Sync(RuleBasedStateMachine):
    """A source file is edited and synced; a run may die before any of its writes, and others push in between."""

    @initialize(mode=st.sampled_from(["snapshot", "upsert"]))
    def begin(self, mode: str) -> None:
        self.folder, self.mode = Path(tempfile.mkdtemp(prefix="autosync-machine-")), mode
        self.place = Pipeline(self.folder)
        self.place.configure(
            mode=mode, guard={"max_delete": 1.0, "max_refuse": 1.0}, expect={"ranges": {"/n": [-2, 3]}}
        )
        self.rows: dict[str, dict[str, Any]] = {"k000": {"id": "k000"}}
        self.model: Model = {}
        self.past: dict[int, Model] = {}
        self.ever: dict[int, Model] = {}
        self.cursors: list[tuple[int, str]] = []
        self.mess, self.nameless, self.clash, self.foreign, self.settled = 0, False, "", 0, False
        self.sync()

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder)

    @rule(places=FEW, name=st.sampled_from("nmo"), value=VALUES)
    def edit(self, places: list[int], name: str, value: object) -> None:
        """Insert or change a few records; fields come and go, types change, an n of -3 is refused."""
        for id in (names()[place] for place in places):
            self.rows[id] = {**self.rows.get(id, {"id": id}), name: value}

    @rule(places=FEW)
    def drop(self, places: list[int]) -> None:
        """Delete a few records."""
        for id in (names()[place] for place in places):
            if len(self.rows) > 1:
                self.rows.pop(id, None)

    @rule(count=st.integers(200, 320), seed=st.integers(0, 3))
    def bulk(self, count: int, seed: int) -> None:
        """Cross the line between one file and many, in both directions."""
        chosen = random.Random(seed).sample(PLAIN, count)
        rare = {id: row for id, row in self.rows.items() if id not in PLAIN}
        self.rows = rare | {id: self.rows.get(id, {"id": id, "b": seed}) for id in chosen}

    @rule(mess=st.integers(0, 7))
    def reformat(self, mess: int) -> None:
        """The same content in another order, rows spelt differently, and repeated in another spelling."""
        self.mess = mess

    @rule(nameless=st.booleans(), clash=st.one_of(st.none(), st.sampled_from(range(16))))
    def soil(self, nameless: bool, clash: int | None) -> None:
        """A row without a key, and a row that contradicts another one of its key."""
        self.nameless, self.clash = nameless, "" if clash is None else names()[clash]

    def body(self) -> bytes:
        """The source file."""
        mess = random.Random(self.mess)
        rows = list(self.rows.values())
        mess.shuffle(rows)
        rows += rows[: self.mess % 3]
        rows += [{"n": 1}] * self.nameless
        rows += [{**self.rows[self.clash], "clash": 1}] if self.clash in self.rows else []
        encode, spell = msgspec.json.encode, msgspec.json.format
        texts = [spell(encode(row), indent=mess.randrange(-1, 2)) if self.mess else encode(row) for row in rows]
        return b"[" + b",\n".join(texts) + b"]"

    def expected(self) -> Model:
        """What the records are after a sync: refused rows leave theirs as they were."""

        def fine(id: str, row: dict[str, Any]) -> bool:
            return id != self.clash and not (isinstance(row.get("n"), int) and row["n"] < -2)

        new = dict(self.model) if self.mode == "upsert" or self.nameless else {}
        for id, row in self.rows.items():
            if fine(id, row):
                new[id] = canonical(row)
            elif id in self.model:
                new[id] = self.model[id]
        return new

    @rule()
    def sync(self) -> None:
        """A run that gets to its end."""
        self.place.write(self.body())
        self.place.run()
        self.note(self.expected())
        self.settled = True

    @rule(writes=st.integers(0, 60))
    def die(self, writes: int) -> None:
        """A run that dies before one of its writes: its batch is in the store as a whole or not at all."""
        self.place.write(self.body())
        with dying(writes) as died:
            self.place.run()
        after = self.expected()
        held = {id: doc.encode() for id, doc in self.place.records().items()}
        assert held == self.model or held == after
        self.settled = not died
        self.note(held)

    def note(self, records: Model) -> None:
        """Remember what the records are at the newest seq."""
        self.model = records
        with self.place.workspace.database() as db:
            newest = ledger.newest_seq(db, self.number(db))
            self.past[newest] = self.ever[newest] = dict(records)
            row = db.execute("SELECT seq, info FROM consumer WHERE consumer = 'push'").fetchone()
            self.cursors += [row] if row and row not in self.cursors else []

    def number(self, db: Db) -> int:
        number = batches.collection_id(db, "things")
        assert number is not None
        return number

    @rule(every=st.integers(1, 4), writes=st.integers(0, 30))
    def compact(self, every: int, writes: int) -> None:
        """History is merged down to every so manyth point, and those that a consumer needs; it may die meanwhile."""
        workspace = self.place.workspace
        with workspace.database() as db:
            number, token = self.number(db), ledger.grant(db, "source things", "compact", now=now())
            keep = compaction.points_to_keep(db, number, MERGE_ALL, now()) | set(sorted(self.past)[::every])
        with dying(writes), workspace.database() as db:
            compaction.compact(db, number, keep, place="source things", token=token)
            mirror_versions.compact(workspace.home.mirror / "things", MERGE_ALL, now(), keep)
        with workspace.database(read_only=True) as db:
            left = {point.seq for point in compaction.points(db, number)}
            assert keep & self.past.keys() <= left
        self.past = {seq: then for seq, then in self.past.items() if seq in left}

    @rule(back=st.integers(0, 3))
    def lose_the_cursor(self, back: int) -> None:
        """The commits were made, but how far they went was not kept, or is known of an earlier time only."""
        with self.place.workspace.database() as db, transaction(db):
            if back and self.cursors:
                row = self.cursors[-min(back, len(self.cursors))]
                db.execute("UPDATE consumer SET seq = ?, info = ? WHERE consumer = 'push'", row)
            else:
                db.execute("DELETE FROM consumer WHERE consumer = 'push'")

    @rule(inside=st.booleans())
    def someone_pushes(self, inside: bool) -> None:
        """Somebody else's commit lies on top of ours, beside the records or in their folder."""
        remote, self.foreign = open_remote(self.place.workspace), self.foreign + 1
        head = remote.head()
        files: dict[str, bytes | None] = {"things/README" if inside else "README": b"%d" % self.foreign}
        remote.commit(Commit("theirs", (), files.items(), now()), parent=head.sha if head else None)

    @invariant()
    def store_is_the_model(self) -> None:
        """Nothing lost, nothing twice, in the records and in their number."""
        if not hasattr(self, "place"):
            return
        with self.place.workspace.database(read_only=True) as db:
            held = dict(batches.read_rows(db, self.number(db)))
            assert batches.record_count(db, "things") == len(held)
        assert held == self.model

    @precondition(lambda self: self.settled)
    @rule()
    def all_three_agree(self) -> None:
        """Mirror and repository hold the store's records, in the very files that one rewrite would make."""
        found = self.place.verify()
        assert found["equal"] is True, found
        with self.place.workspace.database(read_only=True) as db:
            wanted = dict(all_files(db, self.number(db), len(self.model)))
        files = open_remote(self.place.workspace).files("things")
        assert {path.removeprefix("things/"): data for path, data in files if path.endswith(".jsonl")} == wanted
        current = self.place.workspace.home.mirror / "things" / "current"
        lines = [line for path in current.iterdir() for line in path.read_bytes().splitlines()]
        assert sorted(lines) == sorted(self.model.values())

    @precondition(lambda self: self.settled)
    @rule(which=st.integers(0, 40), at=st.integers(0, 10_000), how=st.sampled_from(["flip", "cut", "delete"]))
    def hurt(self, which: int, at: int, how: str) -> None:
        """A file of the mirror is damaged; it is found and made again, whatever its stat says."""
        folder = self.place.workspace.home.mirror / "things"
        manifest = read_manifest(folder)
        assert manifest is not None
        versions = [one.path for one in mirror_versions.chain(folder, manifest.seq)]
        paths = sorted([*(folder / "current").iterdir(), *versions, folder / "manifest.json"])
        path = paths[which % len(paths)]
        data = bytearray(path.read_bytes())
        if how == "flip" and data:
            data[at % len(data)] ^= 1
        if how == "delete":
            path.unlink()
        else:
            path.write_bytes(data[: at % (len(data) + 1)] if how == "cut" else data)
        repair_mirrors(self.place.workspace)
        self.place.run()
        self.all_three_agree()

    @precondition(lambda self: not self.settled)
    @rule()
    def recover(self) -> None:
        """The run after a crash finishes what the dead one left, with nothing new in the source or not."""
        self.sync()
        self.all_three_agree()

    @rule()
    def look_back(self) -> None:
        """Any earlier state is what the model was then, in the mirror too; the log replays to the present."""
        for seq, then in mirrored_states(self.place.workspace.home.mirror / "things"):
            assert self.ever[seq] == then
        with self.place.workspace.database(read_only=True) as db:
            for seq, then in self.past.items():
                assert dict(history.as_of(db, self.number(db), seq)) == then
            replayed: dict[str, str] = {}
            for id, op, before, after in db.execute("SELECT id, op, before, after FROM change_log ORDER BY seq"):
                assert replayed.get(id) == before != after
                assert (op == "insert") == (before is None) and (op == "delete") == (after is None)
                replayed.pop(id, None)
                if op != "delete":
                    replayed[id] = after
        assert {id: doc.encode() for id, doc in replayed.items()} == self.model


def test_a_run_that_dies_before_any_of_its_writes_is_caught_up(tmp_path: Path) -> None:
    """Each write of a first and of a second run in turn is the one that never happens; the next run makes it whole."""
    plain = Pipeline(tmp_path / "0")
    plain.folder.mkdir()
    plain.configure(guard={"max_delete": 1.0})
    plain.write([{"id": "a"}, {"id": "b"}])
    plain.run()
    first: list[dict[str, Any]] = [{"id": "a"}, {"id": "b"}]
    second: list[dict[str, Any]] = [{"id": "b", "n": 1}, {"id": "c"}]
    writes = 0
    while writes < 500:
        place = Pipeline(tmp_path / f"{writes + 1}")
        place.folder.mkdir()
        place.configure(guard={"max_delete": 1.0})
        ended = []
        for rows in (first, second):
            place.write(rows)
            with dying(writes) as died:
                place.run()
            ended.append(not died)
            place.run()
            assert place.records() == {row["id"]: canonical(row).decode() for row in rows}
            assert place.verify()["equal"] is True
        assert place.git("rev-list", "--count", "main").strip() == "2", "a crash makes no second commit"
        shutil.rmtree(place.folder)
        if all(ended):
            break
        writes += 1
    assert 20 < writes < 500


def test_a_refused_run_leaves_the_machine_as_it_was(tmp_path: Path) -> None:
    """An emptied source after a history: nothing moves."""
    place = Pipeline(tmp_path)
    place.configure()
    place.write([{"id": "a"}])
    place.run()
    place.write(b"[]")
    refused = None
    try:
        place.run()
    except Refused as error:
        refused = error
    assert refused is not None and refused.outcome == "refused"
    assert place.records() == {"a": '{"id":"a"}'}


TestSync = Sync.TestCase
