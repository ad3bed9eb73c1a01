"""The settings of autosync.toml that name a Prefect block, the kinds that fit each, and the port that it opens.

Read without Prefect, so that a name that can't fit is told before a server is asked.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Generic, TypeVar

from autosync.errors import ConfigError
from autosync.ports import BackupTarget, Headers, Mailer, Notifier, Remote

P = TypeVar("P")
_NAME = re.compile(r"[^/\s]+/[^/\s]+")


@dataclass(frozen=True)
class BlockSetting(Generic[P]):
    """A setting that names a block `kind/name`, as a port of type P.

    Attributes:
        label: The setting as people find it in autosync.toml.
        kinds: The kinds (Prefect's block type slugs) that fit, the usual one first.
    """

    label: str
    kinds: tuple[str, ...]

    @property
    def forms(self) -> str:
        """How a name may be written."""
        return " or ".join(f"{kind}/NAME" for kind in self.kinds)

    def check(self, name: str) -> None:
        """Raise ConfigError for a name that is malformed or of a kind that doesn't fit."""
        if not _NAME.fullmatch(name):
            raise self.wrong(name, "is no name of a block")
        if (kind := name.split("/")[0]) not in self.kinds:
            raise self.wrong(name, f"is of a kind that does not fit, {kind}")

    def wrong(self, name: str, problem: str, hint: str = "") -> ConfigError:
        """The error for a name: what is wrong with it, and the kinds that fit."""
        todo = f"name a block {self.forms} there" + (f"; {hint}" if hint else "")
        return ConfigError(f"{self.label} = {name!r} {problem}", where="autosync.toml", todo=todo)


PUSH: BlockSetting[Remote] = BlockSetting("[push] block", ("autosync-github-repository", "git-remote"))
SLACK: BlockSetting[Notifier] = BlockSetting("[notify] slack", ("autosync-slack-webhook",))
EMAIL: BlockSetting[Mailer] = BlockSetting("[notify] email", ("autosync-smtp-server",))
BACKUP: BlockSetting[BackupTarget] = BlockSetting("[backup] block", ("autosync-google-drive",))


def source_block(source: str) -> BlockSetting[Headers]:
    """`block` of a source."""
    return BlockSetting(f"[[source]] {source}, block", ("json-source",))
