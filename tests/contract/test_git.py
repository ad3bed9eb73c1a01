"""What only a repository reached with the git command can do wrong."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from autosync.errors import ConfigError, RemoteError, RemoteUnavailable
from blocks.repository.git import MOST_PACKS, GitRepository, trailers_of
from tests.contract.conftest import commit
from tests.doubles.github_server import TOKEN, GitHubServer
from tests.histories import git


@pytest.fixture
def bare(tmp_path: Path) -> GitRepository:
    """A repository that isn't there yet."""
    return GitRepository(tmp_path / "new" / "remote.git")


def wrapper(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a program of the name git before the real one."""
    folder.mkdir()
    program = folder / "git"
    program.write_text(f'#!/bin/sh\n{script}\nexec {shutil.which("git")} "$@"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)


def test_reading_makes_no_repository(bare: GitRepository) -> None:
    """Only a commit makes the repository; asking for its head leaves the disk as it was."""
    assert bare.head() is None
    assert bare.read("a") is None
    assert not Path(bare.address).exists()
    bare.commit(commit({"a": b"1"}), parent=None)
    assert bare.read("a") == b"1"


@pytest.mark.parametrize("inside", ["notes.txt", ".git/HEAD"])
def test_somebodys_folder_is_left_alone(tmp_path: Path, inside: str) -> None:
    """A folder with other things in it, or a working copy, is refused and not touched."""
    file = tmp_path / "mine" / inside
    file.parent.mkdir(parents=True)
    file.write_text("mine")
    with pytest.raises(ConfigError, match="nothing in it was touched"):
        GitRepository(tmp_path / "mine").commit(commit({"a": b"1"}), parent=None)
    assert [path for path in (tmp_path / "mine").rglob("*") if path.is_file()] == [file]


def test_without_git_the_error_says_so(bare: GitRepository, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the git program the error asks to install it."""
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ConfigError, match="install git"):
        bare.commit(commit({"a": b"1"}), parent=None)


def test_the_users_git_settings_have_no_say(
    bare: GitRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Signing, hooks, line-end rules or a GIT_DIR of the user's change nothing in a commit."""
    hook = tmp_path / "hooks" / "reference-transaction"
    hook.parent.mkdir()
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    (tmp_path / ".gitconfig").write_text(
        f"[user]\nname = Somebody\n[commit]\ngpgSign = true\n[core]\nautocrlf = true\nhooksPath = {hook.parent}\n"
    )
    for name, value in {"HOME": str(tmp_path), "GIT_DIR": "/nowhere", "GIT_AUTHOR_NAME": "Somebody"}.items():
        monkeypatch.setenv(name, value)
    bare.commit(commit({"a": b"1\r\n"}), parent=None)
    shown = bare._git("log", "-1", "--format=%an %cn", bare.ref).decode()
    assert shown.strip() == "AutoSync AutoSync"
    assert bare.read("a") == b"1\r\n"


class Growing(Mapping[str, bytes | None]):
    """Files made only when they are read, and the most that were asked for twice."""

    def __init__(self, count: int, size: int, fails: bool = False) -> None:
        self.count, self.size, self.fails, self.reads = count, size, fails, 0

    def __getitem__(self, path: str) -> bytes:
        self.reads += 1
        if self.fails and self.reads == self.count:
            raise OSError("the mirror's disk is gone")
        return path.encode().ljust(self.size, b".")

    def __iter__(self) -> Iterator[str]:
        return (f"d{number % 50}/f{number:05}.json" for number in range(self.count))

    def __len__(self) -> int:
        return self.count


def test_a_large_first_commit_is_streamed(bare: GitRepository) -> None:
    """Thousands of files are read once each, one after the other, and arrive in one commit."""
    files = Growing(5_000, 2_000)
    bare.commit(commit(files), parent=None)
    assert files.reads == 5_000
    assert sum(1 for _ in bare.files("")) == 5_000
    assert sum(1 for _ in bare.files("d7")) == 100


def test_a_file_that_cannot_be_read_stops_the_commit(bare: GitRepository) -> None:
    """When reading a file fails in the middle, nothing moved and the next commit works."""
    first = bare.commit(commit({"a": b"1"}), parent=None)
    with pytest.raises(OSError, match="disk is gone"):
        bare.commit(commit(Growing(500, 10, fails=True), 2), parent=first)
    head = bare.head()
    assert head is not None and head.sha == first
    assert not [*Path(bare.address).glob("objects/pack/tmp_pack_*"), *Path(bare.address).glob("fast_import_crash_*")]
    bare.commit(commit({"b": b"2"}, 3), parent=first)
    assert dict(bare.files("")) == {"a": b"1", "b": b"2"}


FAILURES = [
    ("fatal: write error: No space left on device", False, "free some space"),
    ("fatal: Unable to create '/x/refs/heads/main.lock': File exists.", True, ".lock"),
    ("fatal: something new", False, "something new"),
]


@pytest.mark.parametrize(("said", "later", "text"), FAILURES)
def test_a_failing_git_says_what_to_do(
    bare: GitRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, later: bool, text: str
) -> None:
    """A full disk, a leftover lock, anything else: the error names the next step, and nothing moved."""
    first = bare.commit(commit({"a": b"1"}), parent=None)
    script = f'case "$*" in *fast-import*) echo "{said}" >&2; exit 128;; esac'
    with monkeypatch.context() as patch:
        wrapper(tmp_path / "bin", script, patch)
        with pytest.raises(RemoteError) as caught:
            bare.commit(commit(Growing(300, 1000), 2), parent=first)
    assert caught.value.retryable is later
    assert text in str(caught.value)
    head = bare.head()
    assert head is not None and head.sha == first


def test_the_login_is_in_no_argument(server: GitHubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """User name and password of an address appear in no process's arguments, nor in the copy's files."""
    wrapper(tmp_path / "bin", f'echo "$@" >> {tmp_path}/arguments', monkeypatch)
    address = server.url.replace("://", f"://octo:{TOKEN}@") + f"/{server.name}.git"
    GitRepository(address, cache=tmp_path / "cache").commit(commit({"a": b"1"}), parent=None)
    written = (path.read_bytes() for path in (tmp_path / "cache").rglob("*") if path.is_file())
    seen = (tmp_path / "arguments").read_bytes() + b"".join(written)
    assert b"push" in seen
    assert TOKEN.encode() not in seen


def test_nobody_there_is_unavailable(tmp_path: Path) -> None:
    """An address where nothing listens may work later; one that is no repository won't."""
    with pytest.raises(RemoteUnavailable):
        GitRepository("http://127.0.0.1:9/x.git", cache=tmp_path / "a").head()
    with pytest.raises(RemoteError) as caught:
        GitRepository((tmp_path / "nothing.git").as_uri(), cache=tmp_path / "b").head()
    assert not caught.value.retryable
    with pytest.raises(ConfigError, match="cache"):
        GitRepository("https://example.org/x.git")


@pytest.mark.parametrize("branch", ["-x", "a b", "a~1", "a:b", ""])
def test_a_wrong_branch_is_refused(tmp_path: Path, branch: str) -> None:
    """What Git takes for no branch name is refused before anything runs."""
    with pytest.raises(ConfigError):
        GitRepository(tmp_path / "r.git", branch=branch)


def test_a_damaged_repository_is_told(bare: GitRepository) -> None:
    """A repository with a missing object is a RemoteError, not an empty branch."""
    bare.commit(commit({"a": b"1"}), parent=None)
    for path in (Path(bare.address) / "objects").rglob("*"):
        if path.is_file():
            path.unlink()
    with pytest.raises(RemoteError):
        bare.head()


def test_another_author_and_branch(tmp_path: Path) -> None:
    """Author and branch are the user's to choose; signs that would break the commit are dropped."""
    path = tmp_path / "r.git"
    repository = GitRepository(path, branch="records/live", author=("علی <x>\n", "ali@example.org>"))
    repository.commit(commit({"a": b"1"}), parent=None)
    form = ["git", f"--git-dir={path}", "log", "--format=%an|%ae", "records/live"]
    assert subprocess.run(form, capture_output=True, check=True).stdout.decode() == "علی x|ali@example.org\n"


TRAILERS: list[tuple[str, dict[str, str]]] = [
    ("Subject", {}),
    ("AutoSync-Seq: 1", {}),
    ("S\n\nAutoSync-Seq: 1\nOther: a: b\n", {"AutoSync-Seq": "1", "Other": "a: b"}),
    ("S\n\nbody: text\nmore\n", {}),
    ("S\n\nAutoSync-Seq: 1\n\nThe end.", {}),
    ("S\r\n\r\nAutoSync-Seq: 1\r\n", {"AutoSync-Seq": "1"}),
]


@pytest.mark.parametrize(("message", "trailers"), TRAILERS)
def test_trailers_are_the_last_paragraph(message: str, trailers: dict[str, str]) -> None:
    """Only a last paragraph of nothing but `Name: value` lines counts, as in Git itself."""
    assert trailers_of(message) == trailers


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_no_process_is_left_behind(bare: GitRepository) -> None:
    """An abandoned reading leaves no git process running."""
    bare.commit(commit(Growing(600, 10)), parent=None)
    reading = bare.files("")
    next(reading)
    reading.close()  # type: ignore[attr-defined] # an iterator by contract, a generator in fact
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    names = [Path(f"/proc/{child}/comm").read_text().strip() for child in children]
    assert "git" not in names


def test_packs_of_many_commits_are_joined(bare: GitRepository) -> None:
    """After any number of commits there are few packs and no loose objects, and every file reads as before."""
    head, files = None, {f"{n}.json": b"%d" % n * 100 for n in range(150)}
    for number in range(MOST_PACKS + 10):
        changed = {
            f"{n}.json": b"%d %d" % (n, number) for n in range(number, number + 100 if number % 2 else number + 1)
        }
        files |= changed
        head = bare.commit(commit(changed if head else files), parent=head)
    counts = dict(line.split(": ") for line in git(Path(bare.address), "count-objects", "-v").splitlines())
    assert int(counts["packs"]) <= MOST_PACKS
    assert (counts["count"], counts["garbage"]) == ("0", "0")
    assert dict(bare.files("")) == files
    assert len(list(bare.history("0.json"))) == 1
    git(Path(bare.address), "fsck", "--strict")


def test_a_file_is_stored_without_the_others(bare: GitRepository) -> None:
    """Reading a file of a commit never walks through the others that came with it."""
    bare.commit(commit({f"{n}.json": b"the same line\n" * 100 + b"%d" % n for n in range(100)}), parent=None)
    pack = next(Path(bare.address).glob("objects/pack/*.idx"))
    assert "chain length" not in git(Path(bare.address), "verify-pack", "--verbose", str(pack))
