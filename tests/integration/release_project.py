"""A small real project to release: this one's packages in a working copy with a bare `origin`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("autosync", "blocks", "analytics", "reports", "flows")
RESULTS = """<?xml version="1.0"?><testsuites><testsuite name="t" errors="0" failures="{failed}" skipped="1" tests="5"
time="0.5"/></testsuites>"""
# What the real Makefile does, without an installation: .venv/bin/python is the Python that runs the tests.
MAKEFILE = r"""
.venv/.installed:
	@mkdir -p .venv/bin
	@printf '#!/bin/sh\nexec "$$DOUBLE_PYTHON" "$$@"\n' > .venv/bin/python
	@chmod +x .venv/bin/python
	@touch $@
"""
SMOKE = "python -c 'import autosync; print(autosync.__file__); assert not hasattr(autosync, \"BAD\")'"
PASS = "sh -c 'cp good.xml \"$AUTOSYNC_JUNIT\"'"
FAIL = "sh -c 'cp bad.xml \"$AUTOSYNC_JUNIT\"; echo one test failed; exit 1'"


@dataclass
class Project:
    """The working copy `work`, its remote `origin.git` and the folder of releases `to`, in a folder."""

    folder: Path

    @property
    def work(self) -> Path:
        return self.folder / "work"

    @property
    def to(self) -> Path:
        return self.folder / "to"

    @property
    def current(self) -> str:
        """The release in use, or ""."""
        link = self.to / "current"
        return link.readlink().name if link.is_symlink() else ""

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a user who has nothing set."""
        dropped = ("PREFECT_", "AUTOSYNC_", "GIT_", "GITHUB_", "SLACK_", "PYTEST_", "XDG_")
        clean = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
        return clean | {"HOME": str(self.folder / "home"), "COLUMNS": "200", "PYTHONDONTWRITEBYTECODE": "1"}

    def create(self) -> Project:
        """Copy the project, commit it, push it."""
        subprocess.run(["git", "init", "--quiet", "--bare", "-b", "main", str(self.folder / "origin.git")], check=True)
        (self.folder / "home").mkdir()
        for name in (*PACKAGES, ".github"):
            shutil.copytree(ROOT / name, self.work / name, ignore=shutil.ignore_patterns("__pycache__", "*.tmp"))
        for name in ("pyproject.toml", "README.md"):
            shutil.copy(ROOT / name, self.work / name)
        (self.work / "Makefile").write_text(MAKEFILE)
        (self.work / ".gitignore").write_text("build/\n.venv/\n__pycache__/\n.autosync/\n")
        (self.work / "good.xml").write_text(RESULTS.format(failed=0))
        (self.work / "bad.xml").write_text(RESULTS.format(failed=2))
        self.git("init", "--quiet", "-b", "main")
        self.git("remote", "add", "origin", (self.folder / "origin.git").as_uri())
        self.change("README.md", "first")
        return self

    def git(self, *args: str, where: str = "work") -> str:
        """Run git in the working copy, or in `origin.git`."""
        who = ["-c", "user.name=Somebody", "-c", "user.email=somebody@example.org"]
        done = subprocess.run(
            ["git", *who, *args],
            cwd=self.folder / where,
            env=self.environment,
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        return done.stdout.strip()

    def origin(self, *args: str) -> str:
        """Run git in the remote."""
        return self.git(*args, where="origin.git")

    def change(self, path: str, text: str) -> str:
        """Add a line to a file, commit, push; returns the commit."""
        with (self.work / path).open("a") as file:
            file.write(f"{text}\n")
        self.git("add", "--all")
        self.git("commit", "--quiet", f"--message=Change {path}: {text}")
        self.git("push", "--quiet", "origin", "HEAD:main")
        return self.git("rev-parse", "HEAD")

    def run(self, *args: str, status: int | None = 0, **env: str) -> subprocess.CompletedProcess[str]:
        """`python -m flows.release ARGS` in the working copy."""
        done = subprocess.run(
            [sys.executable, "-m", "flows.release", *args],
            cwd=self.work,
            env=self.environment | env,
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert status is None or done.returncode == status, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
        return done
