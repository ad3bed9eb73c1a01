"""A Git repository as the place to push to: a bare one on disk, or any address the git command reaches.

Commits are streamed through `git fast-import` and become visible only by the last step, a
compare-and-set of the branch, so a process that dies earlier leaves nothing but loose objects.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

from autosync.errors import ConfigError, RemoteError, RemoteMoved, RemoteUnavailable
from autosync.ports import Commit, Head
from blocks.git_process import GitProcess, is_address, without_login
from blocks.private_files import original_umask

__all__ = ["GitRepository", "check_path", "trailers_of"]

ZEROS = "0" * 40
LOOK_BACK = 100
MOST_PACKS = 50
KEPT = "the branch was not moved"
UNSURE = "The connection was lost while the branch was being moved"
FOUND_LATER = "every change; the next run recognises the commit if it was made"
_TRAILER = re.compile(r"([A-Za-z0-9-]+): ?(.*)")


def trailers_of(message: str) -> dict[str, str]:
    """The `Name: value` lines of a commit message's last paragraph; none when it holds anything else."""
    paragraphs = re.split(r"\n\s*\n", message.strip())
    found = [_TRAILER.fullmatch(line) for line in paragraphs[-1].splitlines()] if len(paragraphs) > 1 else []
    return {match[1]: match[2].strip() for match in found if match} if all(found) else {}


def check_path(path: str) -> bytes:
    """The path's bytes, or RemoteError when no repository can hold a file of that name."""
    try:
        raw = path.encode()
    except UnicodeEncodeError:
        raw = b""
    parts = path.split("/")
    if not raw or "\0" in path or any(part in ("", ".", "..") or part.lower() == ".git" for part in parts):
        raise RemoteError(f"{path!r} can't be the name of a file in a Git repository", kept=KEPT, todo="rename it")
    return raw


class GitRepository(GitProcess):
    """Takes one atomic commit at a time, in a bare repository that is created when first committed to.

    Args:
        location: A folder, or an address such as `https://host/name.git`, `ssh://...`, `file:///...`.
            A user name and password in an address are used, but shown nowhere.
        branch: The branch to move.
        author: Name and email address that commits carry.
        cache: Needed for an address: the folder that keeps a bare copy of it between runs.
        timeout: Seconds that one git command may take.
    """

    def __init__(
        self,
        location: str | Path,
        *,
        branch: str = "main",
        author: tuple[str, str] = ("AutoSync", "autosync@localhost"),
        cache: Path | None = None,
        timeout: float = 900.0,
        private: bool = False,
    ) -> None:
        text = os.fspath(location)
        self.branch, self.ref = branch, f"refs/heads/{branch}"
        url, login = without_login(text) if is_address(text) else ("", "")
        if url and cache is None:
            raise ConfigError(f"{url} is a Git address without a folder for its local copy", todo="give a cache folder")
        if branch.startswith("-") or not re.fullmatch(r"[^\s~^:?*\[\\\x00-\x1f]+", branch):
            raise ConfigError(f"{branch!r} is not a branch name", todo="name a branch such as main")
        umask = -1 if url or private else original_umask()
        path = Path(cache if url and cache else location).absolute()
        super().__init__(path, url, login, timeout=timeout, kept=KEPT, umask=umask)
        self._author = " ".join(re.sub(r"[<>\n\r\0]", "", author[0]).split()), re.sub(r"[<>\s\0]", "", author[1])

    def __repr__(self) -> str:
        return f"GitRepository({self.address!r}, branch={self.branch!r})"

    def link(self, sha: str) -> str:
        """The commit's page for a web address, otherwise the command that shows it."""
        if self._url.startswith(("https://", "http://")):
            return f"{self._url.removesuffix('/').removesuffix('.git')}/commit/{sha}"
        return f"git --git-dir={self._path} show {sha}"

    def head(self) -> Head | None:
        """The branch's newest commit, or None when the branch doesn't exist yet."""
        if not self._refresh():
            return None
        return next(self._log("-1"), None) if self._tip() else None

    def history(self, path: str) -> Iterator[Head]:
        """The branch's commits that changed a path, newest first."""
        check_path(path)
        if self._refresh() and self._tip():
            yield from self._log(path=path)

    def find(self, trailer: str, value: str) -> str | None:
        """The newest commit, among the last 100, that carries this trailer line."""
        if not self._refresh() or not self._tip():
            return None
        found = (commit for commit in self._log(f"-{LOOK_BACK}") if commit.trailers.get(trailer) == value)
        return next((commit.sha for commit in found), None)

    def _log(self, *options: str, path: str = "") -> Iterator[Head]:
        form = "--format=%H%n%ct%n%B"
        log = self._git("--literal-pathspecs", "log", "-z", *options, form, self.ref, "--", *([path] if path else []))
        for entry in filter(None, log.decode("utf-8", "replace").split("\0")):
            sha, time, message = entry.split("\n", 2)
            yield Head(sha, message.rstrip("\n"), trailers_of(message), float(time))

    def read(self, path: str) -> bytes | None:
        """A file at the branch's head, or None."""
        check_path(path)
        entries = [entry for entry in self._entries(path) if entry[0] == path]
        return next((data for _, data in self._blobs(entries)), None)

    def files(self, under: str, at: str = "") -> Iterator[tuple[str, bytes]]:
        """Every regular file below a folder at the branch's head or a commit (all of them for ""), in path order."""
        folder = under.strip("/")
        yield from self._blobs(self._entries(f"{folder}/" if folder else "", at))

    def commit(self, commit: Commit, *, parent: str | None) -> str:
        """Make one commit on top of `parent` and move the branch to it, or nothing at all."""
        self._create()
        self._refresh()
        self._still_at(parent)
        sha = self._import(commit, parent)
        if self._url:
            self._push(sha, parent)
        else:
            self._move(sha, parent)
        self._tidy()
        return sha

    def _tidy(self) -> None:
        """Join the packs of many commits, small ones first, so that reading stays fast; a failure harms nothing."""
        if len(list(self._path.glob("objects/pack/*.pack"))) > MOST_PACKS:
            self._run("repack", "-d", "--geometric=2", "--quiet")

    def _still_at(self, parent: str | None) -> None:
        tip = self._tip()
        if tip != (parent or ""):
            raise RemoteMoved(
                f"The branch {self.branch} stands at {tip[:12] or 'no commit'}, not at {(parent or 'none')[:12]}",
                where=self.address,
                kept="the other commit, and the changes still to be pushed",
                todo="read the branch again and repeat; AutoSync does this by itself",
            )

    def _move(self, sha: str, parent: str | None) -> None:
        done = self._run("update-ref", self.ref, sha, parent or ZEROS)
        if done.returncode and self._tip() != sha:
            self._still_at(parent)
            raise self._error(done.stderr)

    def _push(self, sha: str, parent: str | None) -> None:
        lease = f"--force-with-lease={self.ref}:{parent or ''}"
        done = self._run("push", "--porcelain", "--quiet", lease, "--", self._url, f"{sha}:{self.ref}")
        if done.returncode:
            try:
                self._refresh()  # the reply may be all that was lost
            except RemoteUnavailable:
                raise RemoteUnavailable(UNSURE, where=self.address, kept=FOUND_LATER, todo="run again later") from None
        if done.returncode and self._tip() != sha:
            self._still_at(parent)
            raise self._error(done.stderr + done.stdout)
        self._git("update-ref", self.ref, sha)

    def _create(self) -> None:
        if (self._path / "HEAD").is_file():
            return
        if self._path.exists() and (not self._path.is_dir() or any(self._path.iterdir())):
            kind = "a working copy" if (self._path / ".git").exists() else "not empty and not a bare Git repository"
            raise ConfigError(
                f"{self._path} is {kind}", kept="nothing in it was touched", todo="name a folder that does not exist"
            )
        self._git("init", "--bare", "--quiet", f"--initial-branch={self.branch}", str(self._path), anywhere=True)

    def _refresh(self) -> bool:
        """Bring the local copy to what the address says; False when there is no repository yet."""
        if not self._url:
            return (self._path / "HEAD").is_file()
        self._create()
        line = self._git("ls-remote", "--quiet", "--", self._url, self.ref).decode()
        there, here = line.partition("\t")[0], self._tip()
        if there and there != here:
            self._git("fetch", "--quiet", "--no-tags", "--", self._url, f"+{self.ref}:{self.ref}")
        elif here and not there:
            self._git("update-ref", "-d", self.ref)
        return True

    def _tip(self) -> str:
        return self._git("for-each-ref", "--format=%(objectname)", self.ref).decode().strip()

    def _entries(self, under: str, at: str = "") -> list[tuple[str, str]]:
        if not self._refresh() or not (tip := at or self._tip()):
            return []
        listed = self._git("--literal-pathspecs", "ls-tree", "-r", "-z", tip, *(["--", under] if under else []))
        rows = (row.partition(b"\t") for row in listed.split(b"\0") if row)
        named = ((name.decode("utf-8", "surrogateescape"), meta.decode().split()) for meta, _, name in rows)
        return [(name, meta[2]) for name, meta in named if meta[0] in ("100644", "100755")]

    def _blobs(self, entries: list[tuple[str, str]]) -> Iterator[tuple[str, bytes]]:
        if not entries:
            return
        with closing(self._objects(sha for _, sha in entries)) as objects:
            for (name, _), found in zip(entries, objects, strict=True):
                if found is None:
                    raise RemoteError(f"The file {name} can't be read from the repository", todo="run git fsck in it")
                yield name, found.data

    def _import(self, commit: Commit, parent: str | None) -> str:
        before = self._leftovers()
        with ExitStack() as unless_made, tempfile.TemporaryFile() as said:
            unless_made.callback(self._sweep, before)
            try:
                # fast-import's deltas, each against the file that came before, would make every later reading slow.
                with self._start("fast-import", "--quiet", "--depth=0", errors=said) as process:
                    sha = _imported(process, _stream(commit, parent, self._author), self._timeout)
            except (BrokenPipeError, ChildProcessError, subprocess.TimeoutExpired):
                said.seek(0)
                raise self._error(said.read()) from None
            unless_made.pop_all()
        return sha

    def _sweep(self, before: set[Path]) -> None:
        for leftover in self._leftovers() - before:  # on a full disk they would pile up
            leftover.unlink(missing_ok=True)

    def _leftovers(self) -> set[Path]:
        """What a failed fast-import leaves lying about."""
        return {*self._path.glob("objects/pack/tmp_pack_*"), *self._path.glob("fast_import_crash_*")}


def _stream(commit: Commit, parent: str | None, author: tuple[str, str]) -> Iterator[bytes]:
    """What fast-import reads: all files first, each read once, then the commit that names them, deletions first."""
    marks: dict[bytes, bytes | None] = {}
    for number, (path, data) in enumerate(commit.files, start=2):
        marks[check_path(path)] = None if data is None else b":%d" % number
        if data is not None:
            yield from (b"blob\nmark :%d\ndata %d\n" % (number, len(data)), data, b"\n")
    text = commit.text.replace("\0", "").encode("utf-8", "replace")
    who = f"{author[0]} <{author[1]}> {max(0, int(commit.time))} +0000\n".encode()
    yield b"commit refs/autosync/new\nmark :1\nauthor %scommitter %sdata %d\n%s\n" % (who, who, len(text), text)
    if parent:
        yield b"from %s\n" % parent.encode()
    folders = [folder.strip("/") for folder in commit.replace]
    yield from (b"D %s\n" % _quoted(check_path(folder)) if folder else b"deleteall\n" for folder in folders)
    yield from (b"D %s\n" % _quoted(path) for path, mark in marks.items() if mark is None)
    yield from (b"M 100644 %s %s\n" % (mark, _quoted(path)) for path, mark in marks.items() if mark)
    # Forgetting the branch again leaves the commit without any ref; the compare-and-set gives it one.
    yield b"\nget-mark :1\nreset refs/autosync/new\n"


def _imported(process: subprocess.Popen[bytes], stream: Iterator[bytes], timeout: float) -> str:
    assert process.stdin and process.stdout
    for piece in stream:
        process.stdin.write(piece)
    process.stdin.close()
    sha = process.stdout.read().decode().strip()
    if process.wait(timeout):
        raise ChildProcessError("git fast-import failed")
    return sha


def _quoted(path: bytes) -> bytes:
    return b'"' + path.replace(b"\\", b"\\\\").replace(b'"', b'\\"').replace(b"\n", b"\\n") + b'"'
