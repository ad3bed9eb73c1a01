"""What a source names and can't be seen is no delete: the look ends with an error that names it; nothing changes."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autosync.errors import SourceError, SourceUnavailable
from autosync.settings import Source
from blocks.sources.listing import Listing, list_folder
from flows.commands.sync import plan_of, print_plan
from flows.operations.plan import describe
from flows.operations.status import describe_status
from flows.run_result import Outcome
from tests.integration.test_bad_input import everything
from tests.pipeline import Pipeline

NOBODY = 65534
FLAT = ("things", "things/*.json", "things/**/*.json", "things/r?.json", "thing[st]/r[0-9].json", "*/r3.json")
DEEP = ("things", "things/**/*.json", "**/things/**/*.json", "thing?/**/*.json")


def fill(folder: Path, name: str, count: int) -> None:
    """Files with one record each: NAME0.json, NAME1.json ..."""
    folder.mkdir(parents=True, exist_ok=True)
    for n in range(count):
        (folder / f"{name}{n}.json").write_text(json.dumps([{"id": f"{name}{n}"}]))


def synced(folder: Path, location: str, **settings: Any) -> Pipeline:
    """Ten records in a folder and two in its subfolder, those of them that the location names synced."""
    fill(folder / "things", "r", 10)
    fill(folder / "things" / "sub", "s", 2)
    place = Pipeline(folder)
    place.configure(location=location, guard={"max_delete": 1.0}, **settings)
    place.run()
    return place


def refused(place: Pipeline, where: Path, words: str, error: type[SourceError] = SourceError) -> str:
    """A run and a plan say the same, naming the path; nothing changes. The todo is not to wait."""
    before = everything(place)
    with pytest.raises(error, match=words) as caught:
        place.run()
    assert caught.value.where == str(where) and caught.value.kept and caught.value.todo
    assert caught.value.retryable is issubclass(error, SourceUnavailable)
    plan = plan_of(place.workspace, "things")
    assert (plan["outcome"], plan["error"]) == ("failed", str(caught.value))
    assert everything(place) == before
    return str(caught.value)


def look(base: Path, location: str) -> Listing:
    """The files of a source."""
    return list_folder(Source(name="things", location=location, key="/id"), base)


@pytest.mark.parametrize("location", FLAT)
def test_a_file_that_became_a_link_to_nothing_is_no_delete(tmp_path: Path, location: str) -> None:
    """Content that was offloaded or dropped: the link is named with where it leads; with the file again all is well."""
    place, file = synced(tmp_path, location), tmp_path / "things" / "r3.json"
    text = file.read_text()
    file.unlink()
    file.symlink_to("../annex/r3")
    assert "../annex/r3" in refused(place, file, "link leads to nothing")
    file.unlink()
    file.write_text(text)
    assert place.run().found.counts.changed == 0


def test_an_upsert_source_says_what_it_can_not_see(tmp_path: Path) -> None:
    """Nothing would be deleted, and yet the record behind the link is not up to date."""
    place, file = synced(tmp_path, "things", mode="upsert"), tmp_path / "things" / "r3.json"
    file.unlink()
    file.symlink_to("nowhere")
    refused(place, file, "link leads to nothing")


@pytest.mark.parametrize("target", ["r3.json", "r4.json/x", "/dev/null"])
def test_a_link_that_leads_to_no_file_is_no_delete(tmp_path: Path, target: str) -> None:
    """To itself, below a file, to a device."""
    place, file = synced(tmp_path, "things"), tmp_path / "things" / "r3.json"
    file.unlink()
    file.symlink_to(target)
    refused(place, file, "a device, not a file" if target == "/dev/null" else "link leads to nothing")


@pytest.mark.timeout(30)
@pytest.mark.parametrize("location", FLAT)
@pytest.mark.parametrize("kind", ["a named pipe", "a socket"])
def test_a_file_that_became_something_else_is_no_delete(tmp_path: Path, location: str, kind: str) -> None:
    """It is named and never opened, which would wait for a writer."""
    place, file = synced(tmp_path, location), tmp_path / "things" / "r3.json"
    file.unlink()
    if kind == "a socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(os.path.relpath(file))  # a long path is none for a socket
    else:
        os.mkfifo(file)
    refused(place, file, f"{kind}, not a file")


@pytest.mark.timeout(30)
def test_a_source_of_one_file_must_be_a_file(tmp_path: Path) -> None:
    """A named pipe, a link to nothing, a link to a device: named, never waited for."""
    place, file = synced(tmp_path, "things/r3.json"), tmp_path / "things" / "r3.json"
    file.unlink()
    os.mkfifo(file)
    refused(place, file, "a named pipe, not a file")
    file.unlink()
    file.symlink_to("nowhere")
    refused(place, file, "link leads to nothing")
    file.unlink()
    file.symlink_to("/dev/zero")
    refused(place, file, "a device, not a file")


def test_a_folder_with_the_name_of_a_file_is_a_folder(tmp_path: Path) -> None:
    """It is looked through like any other, and is no file that a glob means."""
    fill(tmp_path / "things", "r", 1)
    fill(tmp_path / "things" / "deep.json", "d", 1)
    assert sorted(look(tmp_path, "things").files()) == ["things/deep.json/d0.json", "things/r0.json"]
    assert sorted(look(tmp_path, "things/**/*.json").files()) == ["things/deep.json/d0.json", "things/r0.json"]
    assert sorted(look(tmp_path, "things/*.json").files()) == ["things/r0.json"]


def test_what_is_not_named_may_be_anything(tmp_path: Path) -> None:
    """Pipes and links to files beside the records, of other names, and what a glob doesn't match, stop nothing."""
    fill(tmp_path / "things", "r", 2)
    os.mkfifo(tmp_path / "things" / "control")
    (tmp_path / "things" / "notes.txt").symlink_to("r0.json")
    assert len(look(tmp_path, "things").files()) == 2
    (tmp_path / "things" / "gone").symlink_to("nowhere")
    (tmp_path / "things" / "old.json").symlink_to("nowhere")
    assert len(look(tmp_path, "things/r*.json").files()) == 2
    assert len(look(tmp_path, "*/r[01].json").files()) == 2


def test_the_lock_of_an_editor_is_no_content(tmp_path: Path) -> None:
    """Emacs keeps a link to nothing beside a file that is being edited."""
    fill(tmp_path / "things", "r", 1)
    (tmp_path / "things" / ".#r0.json").symlink_to("me@machine.4711:1700000000")
    for location in ("things", "things/*.json", "**/*.json"):
        assert list(look(tmp_path, location).files()) == ["things/r0.json"]


@pytest.mark.parametrize("location", [*DEEP, "things/*/*.json", "things/s?b/*", "things/sub/*.json"])
def test_a_folder_that_became_a_link_is_followed(tmp_path: Path, location: str) -> None:
    """Moved to a bigger disk and linked back: the same records, and one that is added there comes in."""
    place, folder = synced(tmp_path, location), tmp_path / "things" / "sub"
    before = place.records()
    shutil.move(folder, tmp_path / "disk")
    folder.symlink_to(tmp_path / "disk")
    assert place.run().found.counts.changed == 0 and place.records() == before
    (folder / "new.json").write_text('[{"id": "new"}]')
    counts = place.run().found.counts
    assert (counts.inserted, counts.deleted) == (1, 0)


@pytest.mark.parametrize("location", [*DEEP, "things/*/*.json", "things/s?b/*", "things/sub/*.json"])
def test_a_folder_that_became_a_link_to_nothing_is_no_delete(tmp_path: Path, location: str) -> None:
    """Whether it was a folder nobody can tell, so that its records stay."""
    place, folder = synced(tmp_path, location), tmp_path / "things" / "sub"
    shutil.rmtree(folder)
    folder.symlink_to("/mnt/not/there")
    refused(place, folder, "link leads to nothing.*/mnt/not/there")


@pytest.mark.parametrize("location", DEEP)
def test_links_back_are_told_and_not_followed(tmp_path: Path, location: str) -> None:
    """To the folder itself, to one above the source, two that lead to each other: each file is there once."""
    fill(tmp_path / "things" / "a", "a", 1)
    fill(tmp_path / "things" / "b", "b", 1)
    (tmp_path / "things" / "a" / "self").symlink_to(".")
    (tmp_path / "things" / "a" / "root").symlink_to("/")
    (tmp_path / "things" / "a" / "b").symlink_to("../b")
    (tmp_path / "things" / "b" / "a").symlink_to("../a")
    found = look(tmp_path, location)
    assert sorted(found.files()) == ["things/a/a0.json", "things/b/b0.json"]
    assert sorted(found.left_out) == [
        "things/a/b (behind a link, and read already)",
        "things/a/root (a link to a folder that it lies in)",
        "things/a/self (a link to a folder that it lies in)",
        "things/b/a (behind a link, and read already)",
    ]


@pytest.mark.parametrize("location", DEEP)
def test_a_folder_behind_two_links_is_read_once(tmp_path: Path, location: str) -> None:
    """By the name that comes first, also where the second link leads to a folder above."""
    base = tmp_path / "base"
    fill(tmp_path / "outer" / "inner", "i", 1)
    fill(tmp_path / "outer", "o", 1)
    fill(base / "things", "r", 1)
    (base / "things" / "x").symlink_to(tmp_path / "outer" / "inner")
    (base / "things" / "y").symlink_to(tmp_path / "outer")
    (base / "things" / "z").symlink_to(tmp_path / "outer")
    found = look(base, location)
    assert sorted(found.files()) == ["things/r0.json", "things/x/i0.json", "things/y/o0.json"]
    assert sorted(found.left_out) == [
        "things/y/inner (behind a link, and read already)",
        "things/z (behind a link, and read already)",
    ]


def test_a_link_whose_name_is_no_text_is_told(tmp_path: Path) -> None:
    """Left out or refused, in letters that can be shown."""
    place = synced(tmp_path, "things")
    link = Path(os.fsdecode(bytes(tmp_path / "things") + b"/l\xff"))
    link.symlink_to("sub")
    assert place.run().found.left_out == ["things/l\\xff (behind a link, and read already)"]
    link.unlink()
    link.symlink_to(os.fsdecode(b"nowhere\xff"))
    with pytest.raises(SourceError, match=r"leads to nothing \(nowhere\\xff\)") as caught:
        place.run()
    assert caught.value.where == f"{tmp_path}/things/l\\xff"


def test_a_glob_reads_no_file_twice(tmp_path: Path) -> None:
    """Names that it spells out behind a link are those of the folder."""
    fill(tmp_path / "things" / "2024", "r", 2)
    (tmp_path / "things" / "latest").symlink_to("2024")
    for location in ("things/*/r1.json", "things/*/r[1].json", "*/*/r1.json", "**/r1.json"):
        found = look(tmp_path, location)
        assert list(found.files()) == ["things/2024/r1.json"]
        assert found.left_out == ["things/latest (behind a link, and read already)"]


def test_a_glob_of_fixed_depth_follows_links_back(tmp_path: Path) -> None:
    """What only such a link makes it name is read."""
    fill(tmp_path / "things", "r", 1)
    (tmp_path / "things" / "current").symlink_to(".")
    assert sorted(look(tmp_path, "things/*/*.json").files()) == ["things/current/r0.json"]


def test_what_is_left_out_is_said_once_by_a_run_and_always_by_plan_and_status(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run says it when it is new; a look that finds nothing changed still knows it."""
    place = synced(tmp_path, "things")
    assert place.run().found.left_out == [] and describe(place.workspace, "things")["left_out"] == []
    (tmp_path / "things" / "latest").symlink_to("sub")
    said = ["things/latest (behind a link, and read already)"]
    assert describe(place.workspace, "things")["left_out"] == said
    found = place.run().found
    assert (found.batch, found.left_out) == ("", said)
    assert f"left out: {said[0]}" in str(Outcome("things", left_out=found.left_out))
    assert "and 2 more, see autosync status" in str(Outcome("things", left_out=said * 5))
    assert place.run().found.left_out == []
    (tmp_path / "things" / "r0.json").write_text('[{"id": "r0", "v": 2}]')
    found = place.run().found
    assert (found.counts.updated, found.left_out) == (1, [])
    assert describe(place.workspace, "things") == {"source": "things", "outcome": "unchanged", "left_out": said}
    print_plan(describe(place.workspace, "things"))
    assert f"left out: {said[0]}" in capsys.readouterr().out
    assert describe_status(place.workspace)["sources"][0]["left_out"] == said


@contextmanager
def without_rights(folder: Path) -> Iterator[None]:
    """As somebody whom rights bind: root gives the folder away and acts as nobody meanwhile."""
    if os.geteuid():
        yield
        return
    for path in (folder, *folder.rglob("*")):
        os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that everybody may reach, which pytest's own is not."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        folder.chmod(0o755)
        yield folder
        for path in (folder, *folder.rglob("*")):
            if path.is_dir() and not path.is_symlink():
                path.chmod(0o700)


@pytest.mark.parametrize("location", [*DEEP, "things/*/*.json", "things/s?b/*.json", "things/sub/*.json"])
@pytest.mark.parametrize("rights", [0o000, 0o300, 0o400])
def test_a_folder_without_rights_is_no_delete(open_folder: Path, location: str, rights: int) -> None:
    """Rights lost to list it, or to look at its files: the folder or the file is named, nothing is stored."""
    place, folder = synced(open_folder, location), open_folder / "things" / "sub"
    before = place.records()
    with without_rights(open_folder):
        folder.chmod(rights)
        with pytest.raises(SourceError, match="can't be read: Permission denied") as caught:
            place.load()
        plan = plan_of(place.workspace, "things")
        folder.chmod(0o700)
        assert place.load().counts.changed == 0
    assert caught.value.where.startswith(str(folder)) and not caught.value.retryable
    assert (plan["outcome"], plan["error"]) == ("failed", str(caught.value))
    assert place.records() == before


@pytest.mark.parametrize("location", ["things", "things/*.json", "things/r3.json"])
def test_a_link_into_a_folder_without_rights_is_no_delete(open_folder: Path, location: str) -> None:
    """The link is named: what it leads to may be there."""
    place, file = synced(open_folder, location), open_folder / "things" / "r3.json"
    (open_folder / "hidden").mkdir()
    shutil.move(file, open_folder / "hidden" / "r3.json")
    file.symlink_to("../hidden/r3.json")
    with without_rights(open_folder):
        (open_folder / "hidden").chmod(0)
        with pytest.raises(SourceError, match="can't be read: Permission denied") as caught:
            place.load()
    assert caught.value.where == str(file)


def test_a_folder_that_may_not_be_listed_is_passed_through(open_folder: Path) -> None:
    """Names that a glob spells out are looked up, as every other program does below such a folder."""
    fill(open_folder / "homes" / "ann" / "public", "a", 1)
    with without_rights(open_folder):
        (open_folder / "homes" / "ann").chmod(0o300)
        found = look(open_folder, "homes/*/public/*.json")
    assert list(found.files()) == ["homes/ann/public/a0.json"]


@contextmanager
def before_call(function: Callable[..., Any], argument: str, act: Callable[[], Any]) -> Iterator[None]:
    """Act once, right before this thread calls a function of the system where variables hold some text."""

    def watch(frame: FrameType, event: str, called: Any) -> None:
        if event == "c_call" and called is function and argument in str(frame.f_locals):
            sys.setprofile(None)
            act()

    sys.setprofile(watch)
    try:
        yield
    finally:
        sys.setprofile(None)


@pytest.mark.parametrize("location", ["things", "things/*.json", "**/*.json"])
def test_a_file_that_vanishes_while_the_folder_is_looked_at_is_looked_for_again(tmp_path: Path, location: str) -> None:
    """Between the listing and the look at the file: no delete, and a retry helps."""
    fill(tmp_path / "things", "r", 5)
    with (
        before_call(os.stat, "r3.json", (tmp_path / "things" / "r3.json").unlink),
        pytest.raises(SourceUnavailable, match="can't be read: No such file") as caught,
    ):
        look(tmp_path, location)
    assert caught.value.where == str(tmp_path / "things" / "r3.json") and "again" in caught.value.todo


@pytest.mark.parametrize("location", ["things", "things/*/*.json", "**/*.json"])
@pytest.mark.parametrize("instead", [False, True])
def test_a_folder_that_vanishes_while_it_is_looked_for_is_looked_for_again(
    tmp_path: Path, location: str, instead: bool
) -> None:
    """Also when a file has its name meanwhile."""
    fill(tmp_path / "things" / "sub", "s", 2)
    folder = tmp_path / "things" / "sub"

    def vanish() -> None:
        shutil.rmtree(folder)
        if instead:
            folder.write_text("")

    with before_call(os.open, str(folder), vanish), pytest.raises(SourceUnavailable, match="can't be read") as caught:
        look(tmp_path, location)
    assert caught.value.where == str(folder)


@pytest.mark.parametrize("location", ["things", "things/*/*.json", "**/*.json", "things/sub/*.json"])
def test_a_mount_whose_server_is_gone_is_no_delete(tmp_path: Path, location: str) -> None:
    """The system answers for it with an error of its own, which is handed on."""
    place, folder = synced(tmp_path, location), tmp_path / "things" / "sub"
    before = everything(place)
    with dead_mount(folder), pytest.raises(SourceError, match="can't be read: Transport endpoint") as caught:
        place.run()
    assert caught.value.where == str(folder) and everything(place) == before


@contextmanager
def dead_mount(folder: Path) -> Iterator[None]:
    """A FUSE file system whose program has ended; skipped where none can be mounted."""
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        handle = os.open("/dev/fuse", os.O_RDWR)
    except OSError as error:
        pytest.skip(f"no file system can be mounted: {error}")
    options = f"fd={handle},rootmode=40000,user_id=0,group_id=0".encode()
    mounted = libc.mount(b"nothing", bytes(folder), b"fuse", 0, options)
    os.close(handle)
    if mounted:
        pytest.skip(f"no file system can be mounted: {os.strerror(ctypes.get_errno())}")
    try:
        yield
    finally:
        libc.umount2(bytes(folder), 2)


NAMES = st.sampled_from(["a", "ab", "b.json", ".hidden", "[x]", "z.json"])
TREES = st.sets(st.lists(NAMES, min_size=1, max_size=4).map(tuple), min_size=1, max_size=8)
SEGMENTS = st.sampled_from(["*", "**", "a", "a*", "?b", "[!a]*", "*.json", ".*", "b.json", "[[]x]", "nothing", "."])


@given(TREES, st.lists(SEGMENTS, min_size=1, max_size=4).filter(lambda segments: segments[-1] not in ("**", ".")))
def test_a_glob_names_what_it_does_elsewhere(tree: set[tuple[str, ...]], segments: list[str]) -> None:
    """The files that pathlib finds: names with a dot in front, folders at any depth, sets of letters."""
    with tempfile.TemporaryDirectory() as name:
        base, pattern = Path(name).resolve(), "/".join(segments)
        for parts in sorted(tree, key=len, reverse=True):
            path = base.joinpath(*parts)
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                path.write_text("[]")
        wanted = sorted(str(path.relative_to(base)) for path in base.glob(pattern) if path.is_file())
        if not any(sign in pattern for sign in "*?["):
            return
        for location in (pattern, f"{base}/{pattern}"):
            if wanted:
                assert list(look(base, location).files()) == wanted
            else:
                with pytest.raises(SourceError, match="no JSON files"):
                    look(base, location)


def test_a_glob_may_begin_above_the_configuration(tmp_path: Path) -> None:
    """Its files are known by the way that the location takes."""
    fill(tmp_path / "things", "r", 1)
    (tmp_path / "base").mkdir()
    assert list(look(tmp_path / "base", "../things/*.json").files()) == ["../things/r0.json"]
    assert list(look(tmp_path / "base", f"{tmp_path}/things/*.json").files()) == [f"{tmp_path}/things/r0.json"]
    assert list(look(tmp_path / "things", "*.json").files()) == ["r0.json"]
