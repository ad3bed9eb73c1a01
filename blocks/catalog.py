"""The Prefect blocks for source, store and repository, and loading a block by the name that autosync.toml gives.

A Prefect block keeps what has credentials; autosync.toml only names it (`type/name`).
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, ClassVar

from prefect.blocks.core import Block
from prefect.exceptions import PrefectException
from prefect.types import SecretDict
from pydantic import Field, HttpUrl, SecretStr

from autosync.errors import ConfigError
from autosync.ports import Remote
from blocks.repository.git import GitRepository
from blocks.store.schema import Db, connect

LOGO = HttpUrl("https://raw.githubusercontent.com/git/git-scm.com/gh-pages/images/logos/downloads/Git-Icon-1788C.png")
DOCS = HttpUrl("https://docs.prefect.io/v3/concepts/blocks")


class JsonSource(Block):
    """
    A JSON address that needs credentials: the headers that a request carries.

    Example:
        Save it, then name it in autosync.toml as `block = "json-source/crm"`:
        ```python
        from blocks.catalog import JsonSource

        JsonSource(headers={"Authorization": "Bearer ..."}).save("crm")
        source = JsonSource.load("BLOCK_NAME")
        ```
    """

    _block_type_name: ClassVar[str | None] = "JSON Source"
    _block_type_slug: ClassVar[str | None] = "json-source"
    _logo_url: ClassVar[HttpUrl | None] = LOGO
    _documentation_url: ClassVar[HttpUrl | None] = DOCS
    _description: ClassVar[str | None] = "Request headers for an HTTP(S) source of AutoSync."

    headers: SecretDict = Field(default=SecretDict({}), description="Request headers, such as Authorization.")

    def request_headers(self) -> dict[str, str]:
        """The headers in plain text, for the request only."""
        return {str(name): str(value) for name, value in self.headers.get_secret_value().items()}


class SQLiteStore(Block):
    """
    The database of an AutoSync home.

    Example:
        ```python
        from blocks.catalog import SQLiteStore

        store = SQLiteStore.load("BLOCK_NAME")
        with store.connect() as db:
            print(db.execute("select count(*) from change_log").fetchone())
        ```
    """

    _block_type_name: ClassVar[str | None] = "SQLite Store"
    _block_type_slug: ClassVar[str | None] = "sqlite-store"
    _logo_url: ClassVar[HttpUrl | None] = LOGO
    _documentation_url: ClassVar[HttpUrl | None] = DOCS
    _description: ClassVar[str | None] = "The SQLite database that AutoSync keeps: records, change log, runs."

    path: Path = Field(default=..., description="The database file.")

    def connect(self) -> Db:
        """A read-only connection."""
        return connect(self.path, read_only=True)


class GitRemote(Block):
    """
    A Git repository that commits are pushed to over the Git protocol.

    Example:
        Save it, then name it in autosync.toml as `block = "git-remote/mirror"` under `[push]`:
        ```python
        from blocks.catalog import GitRemote

        GitRemote(url="https://git.example.org/data.git", username="sync", token="...").save("mirror")
        repository = GitRemote.load("BLOCK_NAME")
        repository.remote().head()
        ```
    """

    _block_type_name: ClassVar[str | None] = "Git Remote"
    _block_type_slug: ClassVar[str | None] = "git-remote"
    _logo_url: ClassVar[HttpUrl | None] = LOGO
    _documentation_url: ClassVar[HttpUrl | None] = DOCS
    _description: ClassVar[str | None] = "A Git repository, local or remote, that AutoSync commits to."

    url: str = Field(default=..., description="Folder or Git address, without credentials.")
    branch: str = Field(default="main", description="The branch to commit to.")
    username: str = Field(default="", description="User name, where the address needs one.")
    token: SecretStr | None = Field(default=None, description="Password or token, where the address needs one.")
    cache: Path = Field(default=Path("repository-cache"), description="Folder for the local copy of a remote address.")

    def remote(self) -> Remote:
        """The repository, ready for commits."""
        address = self.url
        if self.token is not None and "://" in address:
            scheme, rest = address.split("://", 1)
            address = f"{scheme}://{self.username or 'x-access-token'}:{self.token.get_secret_value()}@{rest}"
        return GitRepository(address, branch=self.branch, cache=self.cache)


def load_block(name: str) -> Any:
    """Load a block by `type/name`.

    Raises:
        ConfigError: There is none, or it was saved by another version.
    """
    import blocks.backup.drive
    import blocks.notify.email
    import blocks.notify.slack
    import blocks.repository.github  # noqa: F401  # importing registers the types, so that Prefect finds the classes

    if name.count("/") != 1:
        raise ConfigError(
            f"{name!r} names no block", todo='write it as "type/name", such as "autosync-slack-webhook/ops"'
        )
    try:
        # Not Block.load: called from a stage's thread, it sees the flow's event loop and gives a coroutine back.
        return asyncio.run(Block.aload(name))
    except (ValueError, PrefectException) as error:
        raise ConfigError(
            f"the block {name!r} can't be loaded: {type(error).__name__}",
            todo="create it in the Prefect UI under Blocks, or see: prefect block ls",
        ) from None
