"""A Git repository as the place to push to: a bare one on disk, or any address the git command reaches.

Commits are streamed through `git fast-import` and become visible only by the last step, a
compare-and-set of the branch, so a process that dies earlier leaves nothing but loose objects.
"""

from __future__ import annotations

import base64
import os
import re
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, urlsplit, urlunsplit

from autosync.errors import ConfigError, RemoteError, RemoteMoved, RemoteUnavailable
from autosync.ports import Commit, Head

__all__ = ["GitRepository", "check_path", "trailers_of"]

ZEROS = "0" * 40
LOOK_BACK = 100
KEPT = "the branch was not moved"
UNSURE = "The connection was lost while the branch was being moved"
FOUND_LATER = "every change; the next run recognises the commit if it was made"
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://|[\w.-]+@[\w.-]+:")
_TRAILER = re.compile(r"([A-Za-z0-9-]+): ?(.*)")
_LATER = re.compile(
    r"(?i)resolve host|refused|timed out|reset|hung up|early EOF|unexpected disconnect|Empty reply|error: (5\d\d|429)"
    r"|unreachable|connect to server|cannot lock ref|Unable to create .*\.lock"
)
_DENIED = re.compile(r"(?i)Authentication failed|could not read (Username|Password)|Permission denied|error: 40[13]")
_FULL = re.compile(r"(?i)No space left|Out of diskspace|Disk quota exceeded|File too large")
_KEEP_GIT = ("GIT_SSH", "GIT_SSH_COMMAND", "GIT_SSL_CAINFO", "GIT_EXEC_PATH", "GIT_TEMPLATE_DIR")


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


class GitRepository:
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
    ) -> None:
        text = os.fspath(location)
        self.branch, self.ref = branch, f"refs/heads/{branch}"
        self._url, self._login = _without_login(text) if _ADDRESS.match(text) else ("", "")
        if self._url and cache is None:
            raise ConfigError(
                f"{self._url} is a Git address without a folder for its local copy", todo="give a cache folder"
            )
        if branch.startswith("-") or not re.fullmatch(r"[^\s~^:?*\[\\\x00-\x1f]+", branch):
            raise ConfigError(f"{branch!r} is not a branch name", todo="name a branch such as main")
        self._path = Path(cache if self._url and cache else location).absolute()
        self._author = " ".join(re.sub(r"[<>\n\r\0]", "", author[0]).split()), re.sub(r"[<>\s\0]", "", author[1])
        self._timeout = timeout

    def __repr__(self) -> str:
        return f"GitRepository({self.address!r}, branch={self.branch!r})"

    @property
    def address(self) -> str:
        """The address without credentials, or the folder."""
        return self._url or str(self._path)

    def link(self, sha: str) -> str:
        """The commit's page for a web address, otherwise the command that shows it."""
        if self._url.startswith(("https://", "http://")):
            return f"{self._url.removesuffix('/').removesuffix('.git')}/commit/{sha}"
        return f"git --git-dir={self._path} show {sha}"

    def head(self) -> Head | None:
        """The branch's newest commit, or None when the branch doesn't exist yet."""
        if not self._refresh():
            return None
        found = self._git("for-each-ref", "--format=%(objectname)%0a%(contents)", self.ref).decode("utf-8", "replace")
        sha, _, message = found.partition("\n")
        return Head(sha, message.rstrip("\n"), trailers_of(message)) if sha else None

    def find(self, trailer: str, value: str) -> str | None:
        """The newest commit, among the last 100, that carries this trailer line."""
        if not self._refresh() or not self._tip():
            return None
        log = self._git("log", "-z", f"-{LOOK_BACK}", "--format=%H%n%B", self.ref, "--").decode("utf-8", "replace")
        for entry in log.split("\0"):
            sha, _, message = entry.partition("\n")
            if trailers_of(message).get(trailer) == value:
                return sha
        return None

    def read(self, path: str) -> bytes | None:
        """A file at the branch's head, or None."""
        check_path(path)
        entries = [entry for entry in self._entries(path) if entry[0] == path]
        return next((data for _, data in self._blobs(entries)), None)

    def files(self, under: str) -> Iterator[tuple[str, bytes]]:
        """Every regular file below a folder at the branch's head (all of them for ""), in path order."""
        folder = under.strip("/")
        yield from self._blobs(self._entries(f"{folder}/" if folder else ""))

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
        self._run("gc", "--auto", "--quiet")  # packs what has piled up; a failure here harms nothing
        return sha

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

    def _entries(self, under: str) -> list[tuple[str, str]]:
        if not self._refresh() or not (tip := self._tip()):
            return []
        listed = self._git("--literal-pathspecs", "ls-tree", "-r", "-z", tip, *(["--", under] if under else []))
        rows = (row.partition(b"\t") for row in listed.split(b"\0") if row)
        named = ((name.decode("utf-8", "surrogateescape"), meta.decode().split()) for meta, _, name in rows)
        return [(name, meta[2]) for name, meta in named if meta[0] in ("100644", "100755")]

    def _blobs(self, entries: list[tuple[str, str]]) -> Iterator[tuple[str, bytes]]:
        if not entries:
            return
        with self._start("cat-file", "--batch") as process:
            for start in range(0, len(entries), 500):  # 500 names fit in a pipe, so neither side can block
                yield from _answers(process, entries[start : start + 500])

    def _import(self, commit: Commit, parent: str | None) -> str:
        before = self._leftovers()
        with tempfile.TemporaryFile() as said:
            try:
                with self._start("fast-import", "--quiet", errors=said) as process:
                    return _imported(process, _stream(commit, parent, self._author), self._timeout)
            except (BrokenPipeError, ChildProcessError, subprocess.TimeoutExpired):
                said.seek(0)
                raise self._error(said.read()) from None
            finally:
                for leftover in self._leftovers() - before:  # on a full disk they would pile up
                    leftover.unlink(missing_ok=True)

    def _leftovers(self) -> set[Path]:
        """What a failed fast-import leaves lying about."""
        return {*self._path.glob("objects/pack/tmp_pack_*"), *self._path.glob("fast_import_crash_*")}

    def _command(self, *args: str, anywhere: bool = False) -> list[str]:
        return ["git", *([] if anywhere else [f"--git-dir={self._path}"]), *args]

    @contextmanager
    def _start(self, *args: str, errors: IO[bytes] | int = subprocess.DEVNULL) -> Iterator[subprocess.Popen[bytes]]:
        pipe = subprocess.PIPE
        try:
            process = subprocess.Popen(
                self._command(*args), stdin=pipe, stdout=pipe, stderr=errors, env=self._settings()
            )
        except FileNotFoundError:
            raise _no_git() from None
        try:
            yield process
        finally:
            process.kill()
            for end in (process.stdin, process.stdout):
                with suppress(OSError):  # closing writes what is left, to a process that may be gone
                    end.close() if end else None
            process.wait()

    def _run(self, *args: str, anywhere: bool = False) -> subprocess.CompletedProcess[bytes]:
        command = self._command(*args, anywhere=anywhere)
        try:
            options: dict[str, Any] = {"env": self._settings(), "timeout": self._timeout, "capture_output": True}
            return subprocess.run(command, stdin=subprocess.DEVNULL, check=False, **options)
        except FileNotFoundError:
            raise _no_git() from None
        except subprocess.TimeoutExpired:
            raise self._error(f"timed out after {self._timeout:.0f} s in git {args[0]}".encode()) from None

    def _git(self, *args: str, anywhere: bool = False) -> bytes:
        done = self._run(*args, anywhere=anywhere)
        if done.returncode:
            raise self._error(done.stderr)
        return done.stdout

    def _settings(self) -> dict[str, str]:
        """git's environment: nothing of the user's own git settings, no question asked, every write synced."""
        config = {"core.hooksPath": os.devnull, "core.fsync": "committed", "core.quotePath": "false"}
        if self._login:  # in the environment and not in the arguments, which every user of the machine can list
            config |= {f"http.{self._url}.extraHeader": self._login, "http.followRedirects": "false"}
        env = {k: v for k, v in os.environ.items() if not k.startswith("GIT_") or k in _KEEP_GIT}
        env |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
        env |= {"GIT_TERMINAL_PROMPT": "0", "GIT_ASKPASS": "", "GIT_ALLOW_PROTOCOL": "file:git:http:https:ssh"}
        env |= {"LC_ALL": "C", "GIT_CONFIG_COUNT": str(len(config))}
        env.setdefault("GIT_SSH_COMMAND", "ssh -oBatchMode=yes")
        for number, (key, value) in enumerate(config.items()):
            env |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
        return env

    def _error(self, stderr: bytes) -> RemoteError:
        said = stderr.decode("utf-8", "replace").replace(self._login or "\0", "***").strip()
        last = next((line for line in reversed(said.splitlines()) if line.strip()), "git gave no reason")
        what, where = f"git says: {last.strip()}", self.address
        if _FULL.search(said):
            return RemoteError("The disk is full", where=where, kept=KEPT, todo="free some space, then run again")
        if _DENIED.search(said):
            return RemoteError(what, where=where, kept=KEPT, todo="give a user name and password or key that may write")
        if _LATER.search(said):
            todo = "wait and run again; a .lock file that stays while no git runs can be removed"
            return RemoteUnavailable(what, where=where, kept=KEPT, todo=todo)
        return RemoteError(what, where=where, kept=KEPT, todo="see that the repository is whole and may be written")


def _stream(commit: Commit, parent: str | None, author: tuple[str, str]) -> Iterator[bytes]:
    """What fast-import reads: all files first, each read once, then the commit that names them, deletions first."""
    marks: dict[bytes, bytes | None] = {}
    for number, (path, data) in enumerate(commit.files.items(), start=2):
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


def _answers(process: subprocess.Popen[bytes], entries: Iterable[tuple[str, str]]) -> Iterator[tuple[str, bytes]]:
    assert process.stdin and process.stdout
    wanted = list(entries)
    process.stdin.write("".join(f"{sha}\n" for _, sha in wanted).encode())
    process.stdin.flush()
    for name, _ in wanted:
        header = process.stdout.readline().split()
        if len(header) != 3:
            raise RemoteError(f"The file {name} can't be read from the repository", todo="run git fsck in it")
        data = process.stdout.read(int(header[2]))
        process.stdout.read(1)
        yield name, data


def _without_login(address: str) -> tuple[str, str]:
    """The address without user name and password, and the HTTP header that carries them."""
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or "@" not in parts.netloc:
        return address, ""
    login, _, host = parts.netloc.rpartition("@")
    header = "Authorization: Basic " + base64.b64encode(unquote(login).encode()).decode()
    return urlunsplit((parts.scheme, host, parts.path, parts.query, "")), header


def _no_git() -> ConfigError:
    return ConfigError("The git program was not found", kept="nothing was started", todo="install git, then run again")
