"""Git repositories for tests, with the history that is asked for: one `git fast-import` each."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

Step = tuple[int, Mapping[str, bytes | None]]


def git(folder: Path, *args: str, data: bytes | None = None, time: int | None = None) -> str:
    """What git prints, in a folder, with nothing of the user's settings; commits are made at `time`."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    env |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    for role in ("AUTHOR", "COMMITTER"):
        env |= {f"GIT_{role}_NAME": "Somebody", f"GIT_{role}_EMAIL": "somebody@example.org"}
        if time is not None:
            env[f"GIT_{role}_DATE"] = f"@{time} +0000"
    command = ["git", "-C", str(folder), *args]
    return subprocess.run(command, env=env, input=data, capture_output=True, check=True).stdout.decode().strip()


def write_history(folder: Path, steps: Iterable[Step], *, bare: bool = True) -> list[str]:
    """Make a repository whose branch main has one commit a step.

    Args:
        steps: Commit time (Unix seconds) and the files that the commit writes, None for one that it removes.

    Returns:
        The commits, oldest first.
    """
    folder.mkdir(parents=True)
    git(folder, "init", "--quiet", "--initial-branch=main", *(["--bare"] if bare else []))
    command = ["git", "-C", str(folder), "fast-import", "--quiet", "--force"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        assert process.stdin
        for n, (time, files) in enumerate(steps, 1):
            head = b"commit refs/heads/main\nmark :%d\ncommitter S <s@example.org> %d +0000\ndata 1\nx\n"
            process.stdin.write(head % (n, time))
            for path, data in files.items():
                if data is None:
                    process.stdin.write(b'D "%s"\n' % path.encode())
                else:
                    process.stdin.write(b'M 100644 inline "%s"\ndata %d\n%s\n' % (path.encode(), len(data), data))
    assert process.returncode == 0, "git fast-import failed"
    return git(folder, "rev-list", "--reverse", "main").split()
