"""The Git working copy that a release is made from: what is committed in it, its tags, its report commit."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from autosync.errors import AutoSyncError, ConfigError, RemoteError, RemoteMoved
from blocks.git_process import git_error, run_git

__all__ = ["WorkTree"]

WHO = {"NAME": "AutoSync", "EMAIL": "autosync@localhost"}
REMOTE = "origin"


class WorkTree:
    """A working copy. Uses the credentials that git has been given for its remote `origin`.

    Args:
        folder: The working copy's root.
        push: Whether tags and commits go to `origin` too.
        timeout: Seconds that one git command may take.
    """

    def __init__(self, folder: Path, *, push: bool = False, timeout: float = 300.0) -> None:
        self.folder, self.push, self.timeout = folder, push, timeout

    def __repr__(self) -> str:
        return f"WorkTree({str(self.folder)!r}, push={self.push})"

    def product(self, without: tuple[str, ...]) -> tuple[str, int]:
        """The newest commit that changes anything but the named files, and its Unix time."""
        others = [f":(exclude,top){path}" for path in without]
        found = self.git("log", "-1", "--format=%H %ct", "--", ":/", *others).split()
        if not found:
            raise ConfigError("there is no commit yet", where=str(self.folder), todo="commit, then run again")
        return found[0], int(found[1])

    def clean(self, without: tuple[str, ...]) -> bool:
        """Whether the files are those of the newest commit; ignored ones and the named ones don't count."""
        others = [f":(exclude,top){path}" for path in without]
        return not self.git("status", "--porcelain", "--", ":/", *others)

    def tag(self, name: str, commit: str, message: str) -> None:
        """Tag a commit, here and on the remote; a tag that is there already for this commit is left alone."""
        if self._on_remote(name):
            self.git("fetch", "--quiet", "--no-tags", REMOTE, f"+refs/tags/{name}:refs/tags/{name}")
        there = self._try("rev-parse", "--verify", "--quiet", f"refs/tags/{name}^{{commit}}")
        if there and there != commit:
            raise RemoteError(f"the tag {name} names another commit ({there[:12]})", where=str(self.folder))
        if not there:
            self.git("tag", "--annotate", f"--message={message}", name, commit)
        if self.push:
            self.git("push", "--quiet", REMOTE, f"refs/tags/{name}")

    def untag(self, name: str) -> bool:
        """Delete a tag here and on the remote. Returns whether there was one."""
        there = bool(self._try("rev-parse", "--verify", "--quiet", f"refs/tags/{name}"))
        if self._on_remote(name):
            self.git("push", "--quiet", REMOTE, f":refs/tags/{name}")
            there = True
        self._try("tag", "--delete", name)
        return there

    def _on_remote(self, tag: str) -> bool:
        return self.push and bool(self.git("ls-remote", REMOTE, f"refs/tags/{tag}"))

    def base(self) -> str:
        """The commit to put the next one on: the remote branch as it is now, or the local one."""
        if not self.push:
            return self.git("rev-parse", "HEAD")
        self.git("fetch", "--quiet", "--no-tags", REMOTE, f"refs/heads/{self._branch()}")
        return self.git("rev-parse", "FETCH_HEAD")

    def read(self, commit: str, path: str) -> str:
        """A file in a commit, or "" when it isn't there."""
        return self._try("show", f"{commit}:{path}")

    def save(self, files: Mapping[str, str], message: str, base: str) -> str:
        """Commit the files on top of `base` and move the branch, or raise RemoteMoved. Returns the sha.

        Neither the index nor any other file of the working copy takes part.
        """
        branch = self._branch()
        sha = self._commit(files, message, base)
        if self.push:
            done = self._run("push", "--porcelain", "--quiet", REMOTE, f"{sha}:refs/heads/{branch}")
            if done.status:
                raise self._refused(done.text + done.complaint, branch)
        else:
            self.git("update-ref", f"refs/heads/{branch}", sha, base)
            self.git("checkout", "--quiet", sha, "--", *files)
        return sha

    def git(self, *args: str, stdin: str | None = None, index: str = "") -> str:
        """Run git; its output without the last line feed. RemoteError when it fails."""
        done = self._run(*args, stdin=stdin, index=index)
        if done.status:
            raise self._error(done.complaint)
        return done.text.rstrip("\n")

    def _commit(self, files: Mapping[str, str], message: str, base: str) -> str:
        with tempfile.TemporaryDirectory(prefix="autosync-index-") as folder:
            index = str(Path(folder) / "index")
            self.git("read-tree", base, index=index)
            for path, text in files.items():
                blob = self.git("hash-object", "-w", "--stdin", stdin=text)
                self.git("update-index", "--add", "--cacheinfo", f"100644,{blob},{path}", index=index)
            tree = self.git("write-tree", index=index)
        return self.git("commit-tree", tree, "-p", base, stdin=message)

    def _branch(self) -> str:
        branch = self._try("symbolic-ref", "--short", "--quiet", "HEAD")
        if not branch:
            raise ConfigError(
                "no branch is checked out", where=str(self.folder), todo="check a branch out, or leave the commit out"
            )
        return branch

    def _refused(self, said: str, branch: str) -> AutoSyncError:
        if "[rejected]" in said or "cannot lock ref" in said:
            return RemoteMoved(f"the branch {branch} moved meanwhile", kept="the other commit", todo="try again")
        return self._error(said)

    def _try(self, *args: str) -> str:
        done = self._run(*args)
        return "" if done.status else done.text.rstrip("\n")

    def _run(self, *args: str, stdin: str | None = None, index: str = "") -> _Ended:
        env = {k: v for k, v in os.environ.items() if not k.startswith("GIT_") or "SSH" in k or "CONFIG" in k}
        env |= {"GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"} | ({"GIT_INDEX_FILE": index} if index else {})
        env |= {f"GIT_{role}_{field}": value for role in ("AUTHOR", "COMMITTER") for field, value in WHO.items()}
        done = run_git(["git", *args], env=env, timeout=self.timeout, cwd=self.folder, stdin=(stdin or "").encode())
        if done is None:
            raise self._error(f"timed out after {self.timeout:.0f} s in git {args[0]}")
        return _Ended(done.returncode, *(end.decode("utf-8", "replace") for end in (done.stdout, done.stderr)))

    def _error(self, said: str) -> AutoSyncError:
        if "not a git repository" in said:
            return ConfigError("this folder is not a Git repository", where=str(self.folder), todo="run it in a clone")
        return git_error(said, str(self.folder), "what git had written before, and the working copy's files")


class _Ended(NamedTuple):
    """How a git command ended: exit status, output, complaint."""

    status: int
    text: str
    complaint: str
