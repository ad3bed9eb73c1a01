"""Whatever runs git, its errors are told alike: whether a retry can help, and what to do."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from autosync.errors import AutoSyncError, ConfigError, RemoteError, RemoteUnavailable
from autosync.ports import Commit
from blocks.release.worktree import WorkTree
from blocks.repository.git import GitRepository

NOWHERE = "http://127.0.0.1:9/data.git"
Use = Callable[[Path], object]


def working_copy(folder: Path) -> WorkTree:
    for args in (["init", "-q", "-b", "main"], ["remote", "add", "origin", NOWHERE]):
        subprocess.run(["git", *args], cwd=folder, check=True)
    return WorkTree(folder, push=True)


USES: dict[str, Use] = {
    "repository": lambda folder: GitRepository(NOWHERE, cache=folder / "cache").head(),
    "working copy": lambda folder: working_copy(folder).base(),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_a_remote_that_does_not_answer_may_answer_later(use: Use, tmp_path: Path) -> None:
    """The error can be retried, says where, and what stays."""
    with pytest.raises(RemoteUnavailable) as caught:
        use(tmp_path)
    assert caught.value.where and caught.value.kept and caught.value.todo


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_a_machine_without_git_is_told(use: Use, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the program nothing is started."""
    folder = tmp_path / "copy"
    folder.mkdir()
    subprocess.run(["git", "init", "-q", "-b", "main"], cwd=folder, check=True)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="git program was not found"):
        WorkTree(folder).base() if use is USES["working copy"] else use(tmp_path)


def test_a_command_that_takes_too_long_may_be_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A git that hangs is ended."""
    slow = tmp_path / "bin" / "git"
    slow.parent.mkdir()
    slow.write_text("#!/bin/sh\nexec sleep 20\n")
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", f"{slow.parent}{os.pathsep}{os.environ['PATH']}")
    uses: list[Callable[[], object]] = [
        lambda: WorkTree(tmp_path, timeout=0.2).base(),
        lambda: GitRepository(NOWHERE, cache=tmp_path / "cache", timeout=0.2).head(),
    ]
    for use in uses:
        with pytest.raises(RemoteUnavailable, match="timed out"):
            use()


def test_a_disk_that_is_full_is_no_passing_trouble(tmp_path: Path) -> None:
    """A hook that says so stands for the disk."""
    bare = tmp_path / "bare.git"
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(bare)], check=True)
    (bare / "hooks" / "pre-receive").write_text("#!/bin/sh\necho 'fatal: No space left on device' >&2\nexit 1\n")
    (bare / "hooks" / "pre-receive").chmod(0o755)
    copy = tmp_path / "copy"
    copy.mkdir()
    tree = working_copy(copy)
    subprocess.run(["git", "remote", "set-url", "origin", str(bare)], cwd=copy, check=True)
    subprocess.run(
        ["git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "--allow-empty", "-m", "x"],
        cwd=copy,
        check=True,
    )
    with pytest.raises(RemoteError, match="disk is full") as caught:
        tree.tag("v1", tree.git("rev-parse", "HEAD"), "one")
    assert not caught.value.retryable


def test_errors_are_ours(tmp_path: Path) -> None:
    """Neither lets the system's error through."""
    with pytest.raises(AutoSyncError):
        WorkTree(tmp_path).base()
    with pytest.raises(AutoSyncError):
        GitRepository(tmp_path / "none" / "file.git").commit(Commit("m", (), {}, 0.0), parent="0" * 40)
