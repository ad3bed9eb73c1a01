"""Bad input: what the user sees, and that store, mirror and repository are as before."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from autosync.errors import AutoSyncError, Refused, RemoteError, SourceError, SourceUnavailable, StoreError
from autosync.settings import Home
from blocks.sources.reader import Context, NothingKnown, Previous, Reading
from blocks.sources.registry import reader_of
from blocks.store import ledger
from flows.operations.mirror import mirror
from flows.prefect_server import prepare
from tests.pipeline import Pipeline

GOOD = b'[{"id": "a", "n": 1}, {"id": "b", "n": 2}, {"id": "c", "n": 3}]'


@pytest.fixture
def place(tmp_path: Path) -> Pipeline:
    """A home that holds three records."""
    (tmp_path / "autosync.toml").write_text('[[source]]\nname = "things"\nlocation = "things.json"\nkey = "/id"\n')
    pipeline = Pipeline(tmp_path)
    pipeline.write(GOOD)
    pipeline.run()
    return pipeline


def everything(place: Pipeline) -> dict[str, Any]:
    """Records, log, mirror files and the repository's head."""
    head = place.workspace.home.repository / "refs" / "heads" / "main"
    files = sorted(path for path in place.workspace.home.mirror.rglob("*") if path.is_file())
    with place.workspace.database(read_only=True) as db:
        log = db.execute("SELECT * FROM change_log ORDER BY seq").fetchall()
    return {
        "records": place.records(),
        "log": log,
        "mirror": {f: f.read_bytes() for f in files},
        "head": head.read_text(),
    }


def refused(place: Pipeline, data: bytes, *, match: str, error: type[AutoSyncError] = SourceError) -> str:
    """Run with this input; it is refused with these words and nothing changes."""
    before = everything(place)
    place.write(data)
    with pytest.raises(error, match=match) as caught:
        place.run()
    assert everything(place) == before
    assert caught.value.todo, "an error says what to do"
    return str(caught.value)


def quarantined(place: Pipeline, data: bytes, *, match: str, kept: int = 3) -> dict[str, Any]:
    """Run with this input; one row goes to quarantine, the records stay."""
    records = place.records()
    place.write(data)
    result = place.run()
    with place.workspace.database() as db:
        items = ledger.open_items(db)
    assert result.found.counts.quarantined >= 1
    assert any(match in item["reason"] for item in items), items
    assert {id: place.records()[id] for id in list(records)[:kept]} == dict(list(records.items())[:kept])
    assert place.verify()["equal"] is True
    return items[0]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"<html>hello</html>", r"not JSON.*things\.json, line 1, column 1"),
        (b'[{"id": "a"}, {"id": "b"', r"truncated.*things\.json"),
        (b'[{"id": "a"},\n {"id": "b", "n": NaN}]', r"NaN is not JSON.*line 2, column 19"),
        (b'[{"id": "a"},\n {"id": "b", "n": -Infinity}]', r"-?Infinity is not JSON.*line 2"),
        (b'[{"id": "a"},\n {"id": "b", "n": 01}]', r"line 2"),
        (b"", "empty file"),
        (b'{"things": [{"id": "a"}], "things": [{"id": "b"}]', "truncated"),
        (b'[{"id": "a", "name": "caf\xe9"}]', "not encoded in UTF-8.*0xe9"),
        ('[{"id": "a"}]'.encode("utf-16"), "UTF-16"),
        (b"\xff\xfe[\x00", "UTF-16"),
        (b"[" * 100_000 + b"]" * 100_000, "nested"),
        (b"[1, 2, 3]", "3 of 3 rows"),
        (b'[{"id": "a", "t": "\\ud83d\\ude00"},\n {"id": "b", "t": "\\ud800"}]', "half of a surrogate pair.*line 2"),
    ],
)
def test_an_input_that_can_not_be_read_is_refused_as_a_whole(place: Pipeline, data: bytes, words: str) -> None:
    """Not JSON, truncated, NaN, wrong encoding, empty, too deep: named with file and place; nothing changes."""
    refused(place, data, match=f"(?s){words}", error=AutoSyncError)


def test_an_empty_array_is_refused_until_somebody_takes_it(place: Pipeline) -> None:
    """An emptied source deletes nothing unless its code is given."""
    said = refused(place, b"[]", match="came back empty", error=Refused)
    code = said.split("--accept ")[1].split()[0].rstrip(".")
    assert place.run(accept=code).found.counts.deleted == 3


def test_a_repeated_name_around_the_records_is_refused(tmp_path: Path) -> None:
    """A name that stands twice in the outer document could hide records: refused."""
    (tmp_path / "autosync.toml").write_text(
        '[[source]]\nname = "things"\nlocation = "things.json"\nkey = "/id"\nrecords = "/things"\n'
    )
    place = Pipeline(tmp_path)
    place.write(b'{"things": [{"id": "a"}]}')
    place.run()
    refused(place, b'{"things": [{"id": "b"}], "things": [{"id": "a"}]}', match="'things' stands twice")
    refused(place, b'{"other": []}', match="no array of records at /things.*other")


def test_a_utf8_byte_order_mark_is_fine(place: Pipeline) -> None:
    """A UTF-8 BOM, as Windows programs write it, changes nothing."""
    place.write(b"\xef\xbb\xbf" + GOOD)
    assert place.run().found.counts.changed == 0


@pytest.mark.parametrize(
    "number",
    [
        "9007199254740993",
        "9223372036854775809",
        "1" + "0" * 400,
        "0.1000",
        "-0.0",
        "-0",
        "1E400",
        "1.5e-7",
        "3.14159265358979323846264338327950288",
    ],
)
def test_numbers_keep_their_digits_everywhere(place: Pipeline, number: str) -> None:
    """Beyond 2^53, long decimals, trailing zeros, minus zero: as written in store, mirror and repository."""
    place.write(GOOD.replace(b'"n": 1', f'"n": {number}'.encode()))
    assert place.run().found.counts.updated == 1
    line = f'{{"id":"a","n":{number}}}'
    assert place.records()["a"] == line
    assert line in (place.workspace.home.mirror / "things" / "current" / "records.jsonl").read_text()
    git = ["git", "--git-dir", str(place.workspace.home.repository), "show", "main:things/records.jsonl"]
    assert line in subprocess.run(git, capture_output=True, text=True, check=True).stdout
    assert place.verify()["equal"] is True


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (b'{"id": "d", "n": 1, "n": 2}', 'the name "n" stands twice'),
        (b'{"id": "d", "x": {"y": 1, "y": 2}}', 'the name "y" stands twice'),
        (b'{"n": 4}', "no key: nothing at /id"),
        (b'{"id": null}', "the key at /id must be a string or an integer"),
        (b'{"id": 1.5}', "the key at /id must be a string or an integer"),
        (b'{"id": "d\\u0000"}', "printable"),
        (b'{"id": "d", "deep": ' + b"[" * 500 + b"]" * 500 + b"}", "nested deeper than 200"),
        (b'["d"]', "must be an object, this is an array"),
        (b'{"id": "d", "text": "' + b"x" * 50_000_000 + b'"}', "bytes long"),
    ],
)
def test_a_bad_row_goes_to_quarantine_alone(place: Pipeline, row: bytes, words: str) -> None:
    """One bad row keeps nobody from the others; its raw text is kept whole."""
    item = quarantined(place, GOOD[:-1] + b", " + row + b"]", match=words)
    assert "things.json, /3" in item["place"]
    with place.workspace.database() as db:
        assert bytes((ledger.item(db, item["item"]) or {})["raw"]) == row


def test_rows_of_json_lines_fail_alone(tmp_path: Path) -> None:
    """A line that is no JSON goes to quarantine with its line number; a last line that was cut refuses the file."""
    (tmp_path / "autosync.toml").write_text('[[source]]\nname = "things"\nlocation = "things.jsonl"\nkey = "/id"\n')
    place = Pipeline(tmp_path)
    place.write(
        b'{"id": "a"}\n{"id": "b"\n{"id": "c", "deep": ' + b"[" * 100_000 + b"]" * 100_000 + b'}\n{"id": "d"}\n',
        "things.jsonl",
    )
    assert place.run().found.counts.quarantined == 2
    assert set(place.records()) == {"a", "d"}
    with place.workspace.database() as db:
        assert [item["place"] for item in ledger.open_items(db)] == ["things.jsonl, line 3", "things.jsonl, line 2"]
    place.write(b'{"id": "a"}\n{"id": "d", "n"', "things.jsonl")
    with pytest.raises(SourceError, match=r"cut off.*line 2"):
        place.run()


def test_a_nul_inside_text_is_kept(place: Pipeline) -> None:
    """An escaped NUL is a character like any other."""
    place.write(GOOD.replace(b'"n": 1', b'"n": "x\\u0000y"'))
    place.run()
    assert place.records()["a"] == '{"id":"a","n":"x\\u0000y"}'


def test_rows_with_one_key_and_different_content_are_all_refused(place: Pipeline) -> None:
    """Nobody knows which of them is right: the record stays as it was; equal rows count once."""
    quarantined(place, b'[{"id":"a","n":9},{"id":"a","n":8},{"id":"b","n":2},{"id":"c","n":3}]', match="more than once")
    place.write(b'[{"id":"a","n":9},{"id":"a","n":9},{"id":"b","n":2},{"id":"c","n":3}]')
    assert place.run().found.counts.updated == 1


def test_a_row_repeated_beside_an_unchanged_one_is_refused(place: Pipeline) -> None:
    """A second row with the key of an unchanged row doesn't silently win."""
    quarantined(place, GOOD[:-1] + b', {"id": "a", "n": 99}]', match="more than once")
    assert place.records()["a"] == '{"id":"a","n":1}'


def test_a_key_of_changing_type_is_one_record(place: Pipeline) -> None:
    """1 and "1" are one id: an update, not a second record."""
    place.write(b'[{"id": 1}, {"id": "b", "n": 2}, {"id": "c", "n": 3}]')
    place.run(accept=digest_code(place))
    place.write(b'[{"id": "1"}, {"id": "b", "n": 2}, {"id": "c", "n": 3}]')
    counts = place.run().found.counts
    assert (counts.inserted, counts.updated, counts.deleted) == (0, 1, 0)


def digest_code(place: Pipeline) -> str:
    """The code of the input that is refused now."""
    with pytest.raises(Refused) as caught:
        place.run()
    return caught.value.todo.split("--accept ")[1].split()[0].rstrip(".")


def test_nothing_is_deleted_while_a_row_has_no_key(place: Pipeline) -> None:
    """The row without a key may be the record that seems to be gone: deletes wait."""
    place.write(b'[{"id": "a", "n": 1}, {"id": "b", "n": 2}, {"idd": "c", "n": 3}]')
    result = place.run()
    assert result.found.deletes_withheld and result.found.counts.deleted == 0
    assert set(place.records()) == {"a", "b", "c"}


def test_deleting_more_than_the_guard_allows_is_refused(place: Pipeline) -> None:
    """A third of the records gone: refused with numbers and code, whole."""
    refused(place, b'[{"id": "a", "n": 1}, {"id": "b", "n": 2}]', match="delete 1 of 3 records", error=Refused)


def test_a_file_that_changes_while_it_is_read_is_read_again(place: Pipeline) -> None:
    """The mixture of two versions is never taken; the error says that a retry helps."""
    path = place.write(GOOD)
    opened = reader_of(place.workspace.source("things"), Context(place.folder, place.folder)).look(Previous())
    assert isinstance(opened, Reading)
    blocks = opened.blocks(NothingKnown())
    next(blocks)
    os.utime(path, (1, 1))
    with pytest.raises(SourceUnavailable, match="changed while it was read") as caught:
        list(blocks)
    assert caught.value.retryable


def test_a_file_that_changes_between_look_and_read_is_read_again(place: Pipeline) -> None:
    """Content must not be kept under the digest of other content: going back to the first would then seem no change."""
    place.write(GOOD.replace(b'"n": 1', b'"n": 8'))
    source = place.workspace.source("things")
    opened = reader_of(source, Context(place.folder, place.folder)).look(Previous())
    assert isinstance(opened, Reading)
    place.write(GOOD.replace(b'"n": 1', b'"n": 99'))
    with pytest.raises(SourceUnavailable, match="changed while it was read"):
        list(opened.blocks(NothingKnown()))


def test_a_file_that_is_half_written_when_it_is_read_is_read_again(place: Pipeline) -> None:
    """What its writer hasn't finished yet is no broken document."""
    path = place.write(GOOD)
    opened = reader_of(place.workspace.source("things"), Context(place.folder, place.folder)).look(Previous())
    assert isinstance(opened, Reading)
    path.write_bytes(GOOD[:30])
    with pytest.raises(SourceUnavailable, match="changed while it was read"):
        list(opened.blocks(NothingKnown()))


def test_a_file_that_vanishes_while_it_is_read_is_told(place: Pipeline) -> None:
    """Between look and read, or after it: the source's fault, not a crash."""
    source = place.workspace.source("things")
    for early in (True, False):
        path = place.write(GOOD)
        opened = reader_of(source, Context(place.folder, place.folder)).look(Previous())
        assert isinstance(opened, Reading)
        blocks = opened.blocks(NothingKnown())
        if not early:
            next(blocks)
        path.unlink()
        with pytest.raises(SourceError, match="can't be read") as caught:
            list(blocks)
        assert "things.json" in caught.value.where


def test_one_bad_file_of_a_folder_refuses_the_folder(place: Pipeline) -> None:
    """A snapshot of several files is whole or not at all; the message names the bad one."""
    folder = place.folder / "parts"
    folder.mkdir()
    for name in "abc":
        (folder / f"{name}.json").write_text(f'[{{"id": "{name}", "n": {"abc".index(name) + 1}}}]')
    place.configure(location="parts")
    place.run()
    before = everything(place)
    (folder / "b.json").write_text('[{"id": "b"')
    with pytest.raises(SourceError, match=r"truncated.*parts/b\.json"):
        place.run()
    assert everything(place) == before
    (folder / "b.json").unlink()
    with pytest.raises(Refused, match="delete 1 of 3"):
        place.run()
    assert everything(place) == before


@pytest.mark.parametrize(
    ("location", "words"), [("nothing", "doesn't exist"), ("empty", "no JSON files"), ("*.nope", "no JSON files")]
)
def test_a_source_without_files_is_told(place: Pipeline, location: str, words: str) -> None:
    """Missing file, folder without JSON files, glob without matches: named, nothing changes."""
    (place.folder / "empty").mkdir()
    config = place.folder / "autosync.toml"
    config.write_text(config.read_text().replace("things.json", location))
    before = everything(place)
    with pytest.raises(SourceError, match=words):
        place.run()
    assert everything(place) == before


class Answers(BaseHTTPRequestHandler):
    """Answers by path."""

    asked: list[dict[str, str]]
    body = GOOD

    def do_GET(self) -> None:
        self.server.asked.append(dict(self.headers))  # type: ignore[attr-defined]
        path = self.path.split("?")[0]
        if path == "/loop":
            self.reply(302, {"Location": "/loop"})
        elif path == "/html":
            self.reply(200, {"Content-Type": "text/html"}, b"<html>log in</html>")
        elif path == "/slow":
            time.sleep(3)
        elif path == "/cut":
            self.reply(200, {"Content-Type": "application/json", "Content-Length": "1000"}, b'[{"id"')
        elif path == "/good" and self.headers.get("If-None-Match") == '"v1"':
            self.reply(304, {})
        elif path == "/good":
            self.reply(200, {"Content-Type": "application/json", "ETag": '"v1"'}, self.body)
        else:
            self.reply(int(path[1:]), {})

    def reply(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = True

    def log_message(self, *_: Any) -> None:
        return


@contextmanager
def served(place: Pipeline, path: str) -> Iterator[ThreadingHTTPServer]:
    """Point the source at a path of a local server."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    server.asked = []  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    config = place.folder / "autosync.toml"
    url = f"http://127.0.0.1:{server.server_address[1]}{path}"
    config.write_text(config.read_text().replace('"things.json"', f'"{url}"\ntimeout = 1'))
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("path", "words", "retryable"),
    [
        ("/404", "answered 404", False),
        ("/401", "answered 401", False),
        ("/500", "answered 500", True),
        ("/503", "answered 503", True),
        ("/429", "answered 429", True),
        ("/slow", "did not answer within 1 s", True),
        ("/loop", "redirects more than 5 times", False),
        ("/html", "sent text/html, not JSON", False),
        ("/cut", "connection failed", True),
    ],
)
def test_an_address_that_fails_changes_nothing(place: Pipeline, path: str, words: str, retryable: bool) -> None:
    """Told with the address but without its query, retried only where that helps; nothing changes."""
    before = everything(place)
    with served(place, path + "?token=s3cret"), pytest.raises(SourceError, match=words) as caught:
        place.run()
    assert everything(place) == before
    assert caught.value.retryable is retryable
    assert path in caught.value.where and "s3cret" not in str(caught.value)


def test_an_address_is_asked_conditionally(place: Pipeline) -> None:
    """The second request carries the ETag, and a 304 makes the run unchanged."""
    with served(place, "/good") as server:
        place.run()
        assert place.run().found.batch == ""
        assert server.asked[-1]["If-None-Match"] == '"v1"'  # type: ignore[attr-defined]


def test_a_home_that_can_not_be_written_is_told(tmp_path: Path) -> None:
    """A home below a file, where even root can't write: told with the folder and what to do, before anything starts."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"can't be written.*--home"):
        prepare(Home(tmp_path / "file" / "home"), {"HOME": str(tmp_path)})
    place = Pipeline(tmp_path)
    place.configure()
    place.write(GOOD)
    place.workspace.home.path.write_text("in the way")
    with pytest.raises(StoreError, match=r"can't be made.*--home"):
        place.run()
    assert place.workspace.home.path.read_text() == "in the way"


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A tmpfs of a size; skipped where it can't be mounted, never in CI."""
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if done.returncode:
        assert not os.environ.get("CI"), done.stderr
        pytest.skip(f"a small disk needs the right to mount: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_loses_nothing(tmp_path: Path) -> None:
    """With no room the run fails with what to do; the records before stay, and with room again it goes through."""
    with small_disk(tmp_path / "disk", "3m") as disk:
        (disk / "autosync.toml").write_text('[[source]]\nname = "things"\nlocation = "../things.json"\nkey = "/id"\n')
        place = Pipeline(disk)
        source = tmp_path / "things.json"
        source.write_bytes(GOOD)
        place.run()
        before = everything(place)
        rows = json.loads(GOOD) + [{"id": f"x{n}", "text": "y" * 1000} for n in range(6000)]
        source.write_text(json.dumps(rows))
        with pytest.raises(StoreError, match=r"(?i)staged.*no space.*make room on the disk"):
            place.run()
        after = everything(place)
        assert after["records"] == before["records"] and after["head"] == before["head"]
        source.write_text(json.dumps(json.loads(GOOD) + [{"id": "d"}]))
        shutil.rmtree(place.workspace.home.staging, ignore_errors=True)
        place.run()
        assert set(place.records()) == {"a", "b", "c", "d"}
        assert place.verify()["equal"] is True


def test_a_full_disk_at_the_store_undoes_the_batch(tmp_path: Path) -> None:
    """The batch could be staged, the database has no room: the transaction is undone, and goes through with room."""
    place = Pipeline(tmp_path)
    place.configure()
    rows = [{"id": f"x{n}", "text": "y" * 1000} for n in range(3000)]
    with small_disk(tmp_path / "disk", "2m") as disk:
        (disk / "home").mkdir()
        place.workspace.home.path.symlink_to(disk / "home")
        (tmp_path / "staging").mkdir()
        place.workspace.home.staging.symlink_to(tmp_path / "staging")
        place.write(GOOD)
        place.run()
        before = everything(place)
        place.write(json.dumps(json.loads(GOOD) + rows))
        with pytest.raises(StoreError, match=r"database can't be written: .*full.*make room on the disk"):
            place.run()
        assert everything(place) == before and place.verify()["equal"] is True
        subprocess.run(["mount", "-o", "remount,size=60m", str(disk)], check=True)
        place.run()
        assert len(place.records()) == 3003 and place.verify()["equal"] is True
        place.workspace.home.path.unlink()


def test_a_full_disk_at_the_push_is_caught_up_later(tmp_path: Path) -> None:
    """Store and mirror have the change, the repository has no room: nothing is lost, one commit follows with room."""
    place = Pipeline(tmp_path)
    place.configure()
    text = [random.Random(n).randbytes(500).hex() for n in range(800)]
    with small_disk(tmp_path / "disk", "500k") as disk:
        place.workspace.home.path.mkdir()
        (disk / "repository.git").mkdir()
        place.workspace.home.repository.symlink_to(disk / "repository.git")
        place.write(GOOD)
        place.run()
        head = place.git("rev-parse", "main")
        place.write(json.dumps(json.loads(GOOD) + [{"id": f"x{n}", "text": text[n]} for n in range(800)]))
        with pytest.raises(RemoteError, match=r"disk is full.*free some space"):
            place.run()
        assert place.git("rev-parse", "main") == head and len(place.records()) == 803
        subprocess.run(["mount", "-o", "remount,size=60m", str(disk)], check=True)
        place.run()
        assert place.git("rev-list", "--count", "main").strip() == "2" and place.verify()["equal"] is True
        place.workspace.home.repository.unlink()


def test_a_full_disk_at_the_mirror_is_caught_up_later(tmp_path: Path) -> None:
    """The store has the change, the mirror could not be written: the next run brings it up."""
    (tmp_path / "autosync.toml").write_text('[[source]]\nname = "things"\nlocation = "things.json"\nkey = "/id"\n')
    place = Pipeline(tmp_path)
    with small_disk(tmp_path / "disk", "300k") as disk:
        place.workspace.home.path.mkdir(parents=True)
        place.workspace.home.mirror.symlink_to(disk)
        place.write([{"id": f"x{n}", "text": "y" * 1000} for n in range(500)])
        with pytest.raises(StoreError, match=r"mirror can't be written.*room on the disk"):
            place.run()
        assert len(place.records()) == 500
    place.workspace.home.mirror.unlink()
    assert mirror(place.workspace, "things").records == 500
    place.run()
    assert place.verify()["equal"] is True
