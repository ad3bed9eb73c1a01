"""How long a restore takes: `python -m tests.performance.bench_restore --records 100000 --versions 1000`.

A collection is loaded, then changed `versions` times (each version changes, deletes and adds some records), each time
through ingest, store, mirror and push. Then it is restored to a file at random seqs from the store, the mirror and the
repository, one after the other, and every file is compared with what the records were.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

from autosync.records import parse
from flows.operations.restore import write_collection
from tests.performance.inputs import record
from tests.pipeline import Pipeline

PLACES = ("store", "mirror", "repo")


class Model:
    """The collection as it should be: id -> canonical line, and the SHA-256 of its file at each seq."""

    def __init__(self, records: int, per_version: int) -> None:
        self.rng, self.per_version, self.next = random.Random(7), per_version, records
        self.lines = dict(self._made(n, 0) for n in range(records))
        self.digests: dict[int, str] = {}

    def _made(self, n: int, version: int) -> tuple[str, bytes]:
        return f"R{n:09d}", parse(record(n, version).encode())[1]

    def change(self, version: int) -> None:
        """Make the next version: mostly updates, a tenth deletes, a tenth inserts."""
        ids = self.rng.sample(sorted(self.lines), self.per_version)
        few = max(self.per_version // 10, 1)
        for id in ids[:few]:
            del self.lines[id]
        self.lines.update(self._made(int(id[1:]), version) for id in ids[few:])
        self.lines.update(self._made(self.next + n, version) for n in range(few))
        self.next += few

    def file(self) -> Iterator[bytes]:
        """The lines of the collection's canonical file."""
        return (self.lines[id] + b"\n" for id in sorted(self.lines))

    def note(self, seq: int) -> None:
        """Remember what the file is at a seq."""
        self.digests[seq] = _digest(self.file())


def _digest(pieces: Iterator[bytes]) -> str:
    total = sha256()
    for piece in pieces:
        total.update(piece)
    return total.hexdigest()


def build(place: Pipeline, records: int, versions: int, per_version: int) -> Model:
    """Load and change the collection through the stages; a sixteenth of the versions is remembered."""
    place.configure(location="things.jsonl")
    model = Model(records, per_version)
    for version in range(versions + 1):
        if version:
            model.change(version)
        place.write(b"".join(model.file()), "things.jsonl")
        seq = place.run().pushed.seq
        if version % 16 == 0:
            model.note(seq)
        if version % 100 == 0:
            print(f"  version {version} of {versions}", flush=True)
    return model


def measure(place: Pipeline, digests: dict[int, str], rounds: int) -> dict[str, list[float]]:
    """Seconds of each restore by place, at random remembered seqs; every file must be what it was."""
    rng, seconds, out = random.Random(3), dict[str, list[float]](), place.folder / "out.jsonl"
    for _ in range(rounds):
        seq = rng.choice(list(digests))
        for source in PLACES:
            clock = time.perf_counter()
            write_collection(place.workspace, "things", str(seq), str(out), source)
            seconds.setdefault(source, []).append(time.perf_counter() - clock)
            if _digest(iter([out.read_bytes()])) != digests[seq]:
                raise SystemExit(f"seq {seq} from the {source} is not what it was")
    return seconds


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--versions", type=int, default=1000)
    parser.add_argument("--changes", type=int, default=100, help="records that a version changes")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--folder", type=Path, help="build the collection here, and measure it again the next time")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="autosync-restore-") as folder:
        place = Pipeline(args.folder or Path(folder))
        place.folder.mkdir(parents=True, exist_ok=True)
        digests = place.folder / "digests.json"
        if not digests.exists():
            digests.write_text(json.dumps(build(place, args.records, args.versions, args.changes).digests))
        known = {int(seq): digest for seq, digest in json.loads(digests.read_text()).items()}
        seconds = measure(place, known, args.rounds)
    print(
        f"{args.records:,} records, {args.versions:,} versions of {args.changes} changes, {args.rounds} restores each"
    )
    print(f"{'from':8} {'p50 s':>7} {'p95 s':>7} {'most s':>7}")
    for source, each in seconds.items():
        p95 = statistics.quantiles(each, n=20)[-1]
        print(f"{source:8} {statistics.median(each):7.2f} {p95:7.2f} {max(each):7.2f}")
    if args.json:
        args.json.write_text(
            json.dumps({"records": args.records, "versions": args.versions, "seconds": seconds}, indent=2)
        )


if __name__ == "__main__":
    main()
