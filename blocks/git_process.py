"""Running the git program: in an environment of ours, with its errors turned into ours."""

from __future__ import annotations

import base64
import os
import re
import subprocess
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, NamedTuple
from urllib.parse import unquote, urlsplit, urlunsplit

from autosync.errors import ConfigError, RemoteError, RemoteUnavailable

__all__ = ["GitProcess", "Object", "git_error", "is_address", "no_git", "run_git", "without_login"]

NAMES_BYTES = 16_384
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://|[\w.-]+@[\w.-]+:")
_LATER = re.compile(
    r"(?i)resolve host|refused|timed out|reset|hung up|early EOF|unexpected disconnect|Empty reply|error: (5\d\d|429)"
    r"|unreachable|connect to server|cannot lock ref|Unable to create .*\.lock"
)
_DENIED = re.compile(r"(?i)Authentication failed|could not read (Username|Password)|Permission denied|error: 40[13]")
_FULL = re.compile(r"(?i)No space left|Out of diskspace|Disk quota exceeded|File too large")
PIPE_BYTES = 1 << 20  # git goes on with the next object while this one is worked on
_KEEP_GIT = ("GIT_SSH", "GIT_SSH_COMMAND", "GIT_SSL_CAINFO", "GIT_EXEC_PATH", "GIT_TEMPLATE_DIR")


class Object(NamedTuple):
    """An object of a repository: `blob`, `tree` or `commit`, and its content."""

    kind: str
    data: bytes


class GitProcess:
    """What runs git on one Git folder.

    Args:
        path: The Git folder: a bare repository, or the `.git` of a working copy.
        url: The address that it is a copy of, without credentials; "" when it is itself what people named.
        login: The HTTP header that carries the credentials for that address.
        timeout: Seconds that one git command may take.
        kept: What an error says was left untouched.
        umask: That of git; this process's when -1.
    """

    def __init__(
        self, path: Path, url: str = "", login: str = "", *, timeout: float, kept: str, umask: int = -1
    ) -> None:
        self._path, self._url, self._login, self._timeout, self._kept = path, url, login, timeout, kept
        self._umask = umask

    @property
    def address(self) -> str:
        """The address without credentials, or the folder."""
        return self._url or str(self._path)

    def _objects(self, names: Iterable[str]) -> Generator[Object | None, None, None]:
        """The object that each name (a hash, `commit:path`) stands for, in order; None where there is none."""
        with self._start("cat-file", "--batch") as process:
            for group in _groups(names):
                yield from self._answers(process, group)

    def _answers(self, process: subprocess.Popen[bytes], names: list[bytes]) -> Iterator[Object | None]:
        assert process.stdin and process.stdout
        with suppress(BrokenPipeError):  # the missing answer tells
            process.stdin.writelines(names)
            process.stdin.flush()
        for name in names:
            header = process.stdout.readline()
            if header == name.removesuffix(b"\n") + b" missing\n":
                yield None
                continue
            facts = header.split()
            data = process.stdout.read(int(facts[2])) if len(facts) == 3 and facts[2].isdigit() else None
            if data is None or process.stdout.read(1) != b"\n":
                raise self._error(b"git cat-file ended early")
            yield Object(facts[1].decode(), data)

    def _command(self, *args: str, anywhere: bool = False) -> list[str]:
        return ["git", *([] if anywhere else [f"--git-dir={self._path}"]), *args]

    @contextmanager
    def _start(self, *args: str, errors: IO[bytes] | int = subprocess.DEVNULL) -> Iterator[subprocess.Popen[bytes]]:
        pipe = subprocess.PIPE
        try:
            process = subprocess.Popen(
                self._command(*args),
                stdin=pipe,
                stdout=pipe,
                stderr=errors,
                env=self._settings(),
                pipesize=PIPE_BYTES,
                umask=self._umask,
            )
        except FileNotFoundError:
            raise no_git() from None
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
        done = run_git(command, env=self._settings(), timeout=self._timeout, umask=self._umask)
        if done is None:
            raise self._error(f"timed out after {self._timeout:.0f} s in git {args[0]}".encode())
        return done

    def _git(self, *args: str, anywhere: bool = False) -> bytes:
        done = self._run(*args, anywhere=anywhere)
        if done.returncode:
            raise self._error(done.stderr)
        return done.stdout

    def _settings(self) -> dict[str, str]:
        """git's environment: nothing of the user's own git settings, no question asked, every write synced."""
        config = {"core.hooksPath": os.devnull, "core.fsync": "committed", "core.quotePath": "false"}
        config |= {"fastimport.unpackLimit": "1", "fetch.unpackLimit": "1"}  # packs are joined, loose objects are not
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
        said = stderr.decode("utf-8", "replace").replace(self._login or "\0", "***")
        return git_error(said, self.address, self._kept)


def run_git(
    command: list[str],
    *,
    env: Mapping[str, str],
    timeout: float,
    umask: int = -1,
    cwd: Path | None = None,
    stdin: bytes = b"",
) -> subprocess.CompletedProcess[bytes] | None:
    """Run a git command to its end; None when that takes longer than `timeout` seconds.

    Raises:
        ConfigError: There is no git program.
    """
    try:
        return subprocess.run(
            command, env=env, timeout=timeout, umask=umask, cwd=cwd, input=stdin, capture_output=True, check=False
        )
    except FileNotFoundError:
        raise no_git() from None
    except subprocess.TimeoutExpired:
        return None


def git_error(said: str, where: str, kept: str) -> RemoteError:
    """What git said as an error of ours: whether a retry can help, and what people can do."""
    last = next((line for line in reversed(said.strip().splitlines()) if line.strip()), "git gave no reason")
    what = f"git says: {last.strip()}"
    if _FULL.search(said):
        return RemoteError("The disk is full", where=where, kept=kept, todo="free some space, then run again")
    if _DENIED.search(said):
        return RemoteError(what, where=where, kept=kept, todo="give a user name and password or key that may write")
    if _LATER.search(said):
        todo = "wait and run again; a .lock file that stays while no git runs can be removed"
        return RemoteUnavailable(what, where=where, kept=kept, todo=todo)
    return RemoteError(what, where=where, kept=kept, todo="see that the repository is whole and may be written")


def is_address(text: str) -> bool:
    """Whether a location is an address for git and no folder."""
    return bool(_ADDRESS.match(text))


def _groups(names: Iterable[str]) -> Iterator[list[bytes]]:
    """The names as lines, in groups that fit in any pipe, so that neither side can block."""
    group, size = list[bytes](), 0
    for name in names:
        line = name.encode("utf-8", "surrogateescape") + b"\n"
        if group and size + len(line) > NAMES_BYTES:
            yield group
            group, size = [], 0
        group.append(line)
        size += len(line)
    if group:
        yield group


def without_login(address: str) -> tuple[str, str]:
    """The address without user name and password, and the HTTP header that carries them."""
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or "@" not in parts.netloc:
        return address, ""
    login, _, host = parts.netloc.rpartition("@")
    header = "Authorization: Basic " + base64.b64encode(unquote(login).encode()).decode()
    return urlunsplit((parts.scheme, host, parts.path, parts.query, "")), header


def no_git() -> ConfigError:
    return ConfigError("The git program was not found", kept="nothing was started", todo="install git, then run again")
