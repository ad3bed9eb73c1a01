"""The contract of a BackupTarget, for every implementation, and what only one of them can do wrong."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from prefect.types import SecretDict
from pydantic import SecretStr

from autosync.errors import ConfigError, RemoteError, RemoteUnavailable
from autosync.ports import BackupTarget
from blocks.backup.drive import DriveTarget, GoogleDrive
from blocks.backup.folder import FolderTarget
from tests.doubles.drive_server import FOLDER, TOKEN, DriveServer
from tests.doubles.faults import Fault, Reply

PIECE = 1 << 18
HOME, OTHER = "0123456789abcdef", "f" * 16


@pytest.fixture
def drive() -> Iterator[DriveServer]:
    """A Drive double."""
    with DriveServer() as running:
        yield running


def google(drive: DriveServer, *, token: str = TOKEN, folder: str = FOLDER, retries: int = 2) -> DriveTarget:
    """The Drive block, pointed at the double, in small pieces and without pauses."""
    return GoogleDrive(
        folder_id=folder,
        token=SecretStr(token),
        endpoint=drive.url,
        chunk_size=PIECE,
        pause=0,
        retries=retries,
        timeout=5,
    ).target()


@pytest.fixture(params=["folder", "drive"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> BackupTarget:
    """Each implementation."""
    if request.param == "folder":
        return FolderTarget(tmp_path / "kept" / "here")
    return google(request.getfixturevalue("drive"))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file of several pieces."""
    path = tmp_path / "backup.tar"
    path.write_bytes(os.urandom(PIECE * 3 + 17))
    return path


@pytest.fixture
def lay(request: pytest.FixtureRequest, target: BackupTarget, tmp_path: Path) -> Callable[[str, bytes], None]:
    """Puts a file beside the backups, as a person does."""

    def by_hand(name: str, data: bytes) -> None:
        if isinstance(target, FolderTarget):
            Path(target.address).mkdir(parents=True, exist_ok=True)
            (Path(target.address) / name).write_bytes(data)
        else:
            request.getfixturevalue("drive").keep({"name": name, "parents": [FOLDER]}, data)

    return by_hand


def fetched(target: BackupTarget, name: str, path: Path, home: str = "") -> bytes:
    """What the target gives back."""
    target.get(name, path, home)
    return path.read_bytes()


@pytest.mark.parametrize("size", [0, 1, PIECE - 1, PIECE, PIECE + 1, PIECE * 4])
def test_a_file_comes_back_equal(target: BackupTarget, tmp_path: Path, size: int) -> None:
    """A file of any size comes back byte for byte, with its size and SHA-256 in the answer and the list."""
    data = os.urandom(size)
    (tmp_path / "in").write_bytes(data)
    stored = target.put(tmp_path / "in", "a.tar", HOME)
    assert (stored.name, stored.size, stored.sha256) == ("a.tar", size, hashlib.sha256(data).hexdigest())
    assert stored.home == HOME and target.verify("a.tar", HOME)
    assert list(target.list()) == [stored]
    assert fetched(target, "a.tar", tmp_path / "out") == data


@pytest.mark.parametrize("name", ["پشتیبان ۱.tar", 'it\'s "quoted" & 100%.json', "日本.zst"])
def test_any_printable_name_works(target: BackupTarget, file: Path, tmp_path: Path, name: str) -> None:
    """A name in any script, with quotes and signs, is kept, found and deleted."""
    target.put(file, name, HOME)
    assert [stored.name for stored in target.list()] == [name]
    assert fetched(target, name, tmp_path / "out") == file.read_bytes()
    target.delete(name, HOME)
    assert list(target.list()) == []


def test_a_newer_file_replaces_whole(target: BackupTarget, file: Path, tmp_path: Path) -> None:
    """A second put of the same name leaves one file, the new one."""
    target.put(file, "a.tar", HOME)
    file.write_bytes(b"new")
    target.put(file, "a.tar", HOME)
    assert [stored.size for stored in target.list()] == [3]
    assert fetched(target, "a.tar", tmp_path / "out") == b"new"


def test_the_list_is_newest_first(target: BackupTarget, file: Path) -> None:
    """What was put last comes first, over more than one page."""
    for name in ("one", "two", "three", "four", "five"):
        file.write_bytes(name.encode())
        target.put(file, name, HOME)
    assert [stored.name for stored in target.list()] == ["five", "four", "three", "two", "one"]


def test_what_is_missing_is_told(target: BackupTarget, file: Path, tmp_path: Path) -> None:
    """Getting an unknown name is a RemoteError and makes no file; deleting one is fine; so is an empty list."""
    assert list(target.list()) == []
    with pytest.raises(RemoteError, match="no backup"):
        target.get("nothing", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    target.delete("nothing", HOME)
    with pytest.raises(RemoteError):
        target.put(tmp_path / "not there", "a.tar", HOME)
    assert list(target.list()) == []


def test_a_failed_get_leaves_the_old_file(target: BackupTarget, tmp_path: Path) -> None:
    """A file that is already at the destination stays when the backup can't be had."""
    (tmp_path / "out").write_bytes(b"precious")
    with pytest.raises(RemoteError):
        target.get("nothing", tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == b"precious"
    assert [path.name for path in tmp_path.glob(".*")] == []


def test_only_what_a_home_put_is_deleted(
    target: BackupTarget, lay: Callable[[str, bytes], None], file: Path, tmp_path: Path
) -> None:
    """A person's file, and one of another home, is refused with the next step, and stays."""
    lay("mine.tar", b"precious")
    target.put(file, "other.tar", OTHER)
    for name, home in (("mine.tar", HOME), ("other.tar", HOME), ("mine.tar", ""), ("other.tar", "")):
        with pytest.raises(RemoteError, match="nothing proves"):
            target.delete(name, home)
    assert {stored.name: stored.home for stored in target.list()} == {"mine.tar": "", "other.tar": OTHER}
    assert fetched(target, "other.tar", tmp_path / "out") == file.read_bytes()


def test_a_put_replaces_no_file_of_others(
    target: BackupTarget, lay: Callable[[str, bytes], None], file: Path, tmp_path: Path
) -> None:
    """A file of that name that another home or a person put there keeps its bytes, whether the put fails or not."""
    target.put(file, "a.tar", OTHER)
    lay("b.tar", b"precious")
    (tmp_path / "new").write_bytes(b"new")
    for name in ("a.tar", "b.tar"):
        with suppress(RemoteError):
            target.put(tmp_path / "new", name, HOME)
    assert fetched(target, "a.tar", tmp_path / "out", OTHER) == file.read_bytes()
    assert 8 in [stored.size for stored in target.list() if stored.name == "b.tar"]


def test_a_home_gets_its_own(target: BackupTarget, file: Path, tmp_path: Path) -> None:
    """What another home put under a name is not given out as this home's."""
    target.put(file, "a.tar", OTHER)
    with pytest.raises(RemoteError, match="no backup"):
        target.get("a.tar", tmp_path / "out", HOME)
    assert fetched(target, "a.tar", tmp_path / "out") == file.read_bytes()


def test_only_bytes_that_lie_there_are_good(
    request: pytest.FixtureRequest, target: BackupTarget, file: Path, tmp_path: Path
) -> None:
    """A backup is good while it has the checksum it was put with, read now; a missing one and another home's isn't."""
    target.put(file, "a.tar", HOME)
    assert target.verify("a.tar", HOME)
    assert not target.verify("a.tar", OTHER) and not target.verify("a.tar", "") and not target.verify("b.tar", HOME)
    if isinstance(target, FolderTarget):
        (Path(target.address) / "a.tar").write_bytes(b"rotten")
    else:
        for kept in request.getfixturevalue("drive").kept.values():
            kept.data = b"rotten"
    assert not target.verify("a.tar", HOME)


def test_what_others_keep_there_is_no_hindrance(file: Path, tmp_path: Path) -> None:
    """Folders, dangling links, sums and manifests that are none: the list names the plain files, of nobody."""
    folder = tmp_path / "kept"
    (folder / "a folder.tar").mkdir(parents=True)
    (folder / "link.tar").symlink_to(folder / "nowhere")
    for name in ("x.tar", "y.tar"):
        (folder / name).write_bytes(b"x")
    (folder / "x.tar.sha256").write_bytes(b"\xff\xfe is no sum")
    (folder / "x.tar.manifest").write_bytes(b"\xff{")
    (folder / "y.tar.manifest").write_text(f'{{"name": "x.tar", "home": "{HOME}"}}')  # it is of another file
    FolderTarget(folder).put(file, "a.tar", HOME)
    listed = {stored.name: (stored.sha256[:1], stored.home) for stored in FolderTarget(folder).list()}
    assert listed.keys() == {"x.tar", "y.tar", "a.tar"}
    assert listed["x.tar"] == listed["y.tar"] == ("", "") and listed["a.tar"][1] == HOME


def test_documents_of_google_are_no_hindrance(drive: DriveServer, file: Path) -> None:
    """A document or shortcut, which has no bytes, is no backup."""
    drive.keep({"name": "a.tar", "parents": [FOLDER], "mimeType": "application/vnd.google-apps.document"}, b"")
    google(drive).put(file, "a.tar", HOME)
    assert [stored.home for stored in google(drive).list()] == [HOME]
    assert drive.names() == ["a.tar", "a.tar"]


def test_leftovers_of_others_stay(drive: DriveServer, file: Path) -> None:
    """An upload clears up what an interrupted one of this home left, and nobody else's."""
    for home in (HOME, OTHER, ""):
        drive.keep({"name": "a.tar.part", "parents": [FOLDER], "appProperties": {"home": home}}, b"half")
    google(drive).put(file, "a.tar", HOME)
    assert drive.names() == ["a.tar", "a.tar.part", "a.tar.part"]


def test_the_manifest_goes_with_its_backup(file: Path, tmp_path: Path) -> None:
    """Sum and manifest are deleted with the file that they are of, and no others."""
    target = FolderTarget(tmp_path / "kept")
    target.put(file, "a.tar", HOME)
    (tmp_path / "kept" / "a.tar.txt").write_bytes(b"mine")
    target.delete("a.tar", HOME)
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["a.tar.txt"]


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden", "a.sha256", "a.manifest", "a\nb", ".."])
def test_a_folder_takes_plain_names_only(file: Path, tmp_path: Path, name: str) -> None:
    """A name that leaves the folder, or means one of its own files, is refused."""
    with pytest.raises(RemoteError, match="can't be the name"):
        FolderTarget(tmp_path / "kept").put(file, name, HOME)


def test_a_damaged_file_is_noticed(file: Path, tmp_path: Path) -> None:
    """A kept file that changed on the disk is not given out."""
    target = FolderTarget(tmp_path / "kept")
    target.put(file, "a.tar", HOME)
    (tmp_path / "kept" / "a.tar").write_bytes(b"rotten")
    with pytest.raises(RemoteError, match="damaged"):
        target.get("a.tar", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_sum_is_checked_by_the_usual_tool(file: Path, tmp_path: Path) -> None:
    """The file beside a backup has sha256sum's form, and nothing else is left in the folder."""
    target = FolderTarget(tmp_path / "kept")
    stored = target.put(file, "a.tar", HOME)
    assert (tmp_path / "kept" / "a.tar.sha256").read_text() == f"{stored.sha256}  a.tar\n"
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == ["a.tar", "a.tar.manifest", "a.tar.sha256"]


def test_a_crash_between_file_and_sum_does_no_harm(file: Path, tmp_path: Path) -> None:
    """With both sums noted, as in the middle of a replacement, old and new file are both valid."""
    target = FolderTarget(tmp_path / "kept")
    stored = target.put(file, "a.tar", HOME)
    (tmp_path / "kept" / "a.tar.sha256").write_text(f"{'0' * 64}  a.tar\n{stored.sha256}  a.tar\n")
    assert fetched(target, "a.tar", tmp_path / "out") == file.read_bytes()
    assert [kept.sha256 for kept in target.list()] == [stored.sha256]


def test_a_folder_that_is_a_file_is_told(file: Path) -> None:
    """A destination that can't be written is a RemoteError with the next step."""
    with pytest.raises(RemoteError, match="What to do"):
        FolderTarget(file).put(file, "a.tar", HOME)


CUTS: list[Callable[[], Fault]] = [
    lambda: Fault("/upload/session/", lost=True, skip=1),
    lambda: Fault("/upload/session/", dropped=True, skip=1, times=2),
    lambda: Fault("/upload/session/", reply=Reply(503, {"error": {"code": 503, "message": "later"}}), skip=2),
    lambda: Fault("/upload/session/", lost=True, skip=3),
    lambda: Fault("/drive/v3/files$", dropped=True),
]


@pytest.mark.parametrize("cut", CUTS)
def test_a_cut_upload_goes_on(drive: DriveServer, file: Path, tmp_path: Path, cut: Callable[[], Fault]) -> None:
    """After a cut only the missing pieces are sent, and one whole file is there."""
    drive.faults.append(cut())
    google(drive).put(file, "a.tar", HOME)
    sent = sum(len(call.body) for call in drive.calls if call.method == "PUT")
    assert sent <= file.stat().st_size + 2 * PIECE
    assert drive.names() == ["a.tar"]
    assert fetched(google(drive), "a.tar", tmp_path / "out") == file.read_bytes()


def test_a_broken_upload_keeps_the_old_file(drive: DriveServer, file: Path, tmp_path: Path) -> None:
    """When an upload fails for good the older backup of that name is untouched; the next put clears up."""
    target, old = google(drive, retries=0), file.read_bytes()
    target.put(file, "a.tar", HOME)
    file.write_bytes(os.urandom(PIECE * 2))
    drive.faults.append(Fault("/upload/session/", reply=Reply(500, b"{}"), times=9))
    with pytest.raises(RemoteUnavailable):
        target.put(file, "a.tar", HOME)
    drive.faults.clear()
    assert fetched(target, "a.tar", tmp_path / "out") == old
    target.put(file, "a.tar", HOME)
    assert drive.names() == ["a.tar"]


def test_a_damaged_upload_is_noticed(drive: DriveServer, file: Path) -> None:
    """A file that arrives with another checksum is removed again and never takes the name."""
    drive.damage = True
    with pytest.raises(RemoteUnavailable, match="damaged"):
        google(drive).put(file, "a.tar", HOME)
    assert drive.names() == []


def test_a_damaged_download_is_noticed(drive: DriveServer, file: Path, tmp_path: Path) -> None:
    """A download with another checksum makes no file."""
    target = google(drive)
    target.put(file, "a.tar", HOME)
    wrong = Reply(206, bytes(PIECE), {"Content-Range": f"bytes 0-{PIECE - 1}/{file.stat().st_size}"})
    drive.faults.append(Fault(r"/drive/v3/files/file", reply=wrong))
    with pytest.raises(RemoteUnavailable, match="damaged"):
        target.get("a.tar", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_half_uploaded_files_are_not_listed(drive: DriveServer, file: Path) -> None:
    """What an interrupted upload left behind is no backup."""
    drive.keep({"name": "a.tar.part", "parents": [FOLDER]}, b"half")
    assert list(google(drive).list()) == []


REFUSALS: list[tuple[int, str, bool, str]] = [
    (403, "The user's Drive storage quota has been exceeded.", False, "space"),
    (403, "User Rate Limit Exceeded", True, ""),
    (429, "Too many", True, ""),
    (404, "File not found: x.", False, "folder_id"),
]


@pytest.mark.parametrize(("status", "reason", "later", "todo"), REFUSALS)
def test_a_refusal_says_what_to_do(
    drive: DriveServer, file: Path, status: int, reason: str, later: bool, todo: str
) -> None:
    """Full, busy or missing: each answer of Drive's becomes the error that helps."""
    drive.faults.append(Fault("/upload/", reply=Reply(status, {"error": {"code": status, "message": reason}}), times=9))
    with pytest.raises(RemoteError) as caught:
        google(drive, retries=0).put(file, "a.tar", HOME)
    assert caught.value.retryable is later
    assert todo in str(caught.value)


@pytest.mark.parametrize("status", [403, 429, 503])
def test_a_wait_that_drive_asks_for_is_passed_on(drive: DriveServer, file: Path, status: int) -> None:
    """With Retry-After the call is not repeated at once: the error carries the seconds."""
    reply = Reply(status, {"error": {"code": status, "message": "Rate Limit Exceeded"}}, {"Retry-After": "40"})
    drive.faults.append(Fault("/upload/", reply=reply, times=9))
    with pytest.raises(RemoteUnavailable, match="asked to wait 40 s") as caught:
        google(drive, retries=3).put(file, "a.tar", HOME)
    assert caught.value.retry_after == 40 and drive.faults[0].times == 8


def test_wrong_credentials_stay_secret(drive: DriveServer) -> None:
    """A refused token is a RemoteError without the token; a broken key file is a ConfigError without the key."""
    target = google(drive, token="wrong-secret")
    with pytest.raises(RemoteError) as caught:
        list(target.list())
    assert not caught.value.retryable
    assert "wrong-secret" not in f"{caught.value} {target!r}"
    broken = GoogleDrive(folder_id=FOLDER, service_account=SecretDict({"private_key": "wrong-secret"}))
    with pytest.raises(ConfigError) as refused:
        broken.target()
    assert "wrong-secret" not in f"{refused.value} {broken!r}"
    with pytest.raises(ConfigError, match="no credentials"):
        GoogleDrive(folder_id=FOLDER).target()


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Google's packages the error names the extra to install."""
    monkeypatch.setitem(sys.modules, "googleapiclient.discovery", None)
    with pytest.raises(ConfigError, match=r"autosync\[drive\]"):
        GoogleDrive(folder_id=FOLDER, token=SecretStr("t")).target()
