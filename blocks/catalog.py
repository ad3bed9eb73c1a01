"""The Prefect blocks for source, store and repository, and the one way from a block's name in autosync.toml to a port.

A Prefect block keeps what has credentials; autosync.toml only names it (`type/name`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from httpx import HTTPError
from prefect.blocks.core import Block
from prefect.client.orchestration import PrefectClient, get_client
from prefect.exceptions import ObjectNotFound, PrefectException
from prefect.settings import PREFECT_API_URL
from prefect.types import SecretDict
from pydantic import Field, HttpUrl, SecretStr

from autosync.block_settings import BlockSetting
from autosync.errors import RemoteUnavailable
from autosync.ports import Remote
from blocks.repository.git import GitRepository
from blocks.store.schema import Db, connect

P = TypeVar("P")
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


def open_port(setting: BlockSetting[P], name: str) -> P:
    """The port that a setting's block opens.

    Raises:
        ConfigError: The name is malformed, its kind doesn't fit, there is no such block, or it isn't whole.
        RemoteUnavailable: Prefect's server doesn't answer.
    """
    setting.check(name)
    open_block = _openers()[name.split("/")[0]]  # before the block is loaded: Prefect must know its class by then
    port: P = open_block(asyncio.run(_load(setting, name)))
    return port


def _openers() -> dict[str, Callable[[Any], Any]]:
    """Kind -> what opens a block of it. Importing the classes is what registers them with Prefect."""
    from blocks.backup.drive import GoogleDrive
    from blocks.notify.email import SmtpServer
    from blocks.notify.slack import SlackWebhook
    from blocks.repository.github import GitHubRepository

    return {
        "autosync-github-repository": GitHubRepository.remote,
        "git-remote": GitRemote.remote,
        "autosync-slack-webhook": SlackWebhook.notifier,
        "autosync-smtp-server": SmtpServer.notifier,
        "autosync-google-drive": GoogleDrive.target,
        "json-source": lambda block: block,
    }


async def _load(setting: BlockSetting[P], name: str) -> Block:
    """The block. Asynchronous, because Block.load in a stage's thread sees the flow's loop and gives a coroutine."""
    kind, own_name = name.split("/")
    try:
        async with get_client() as client:
            try:
                await client.read_block_document_by_name(own_name, kind, include_secrets=False)
            except ObjectNotFound:
                hint = await _near(client, setting, name)
                raise setting.wrong(name, "can't be used: there is no block of that name", hint) from None
            block: Block = await Block.aload(name)
    except (PrefectException, HTTPError) as error:
        raise RemoteUnavailable(
            f"{setting.label} = {name!r} can't be loaded: Prefect's server doesn't answer as it should",
            where=PREFECT_API_URL.value() or "Prefect's server",
            todo="see: autosync health",
        ) from error
    except (RuntimeError, ValueError):  # Prefect's, for a block whose fields are not those of its class
        raise setting.wrong(name, "was saved by another version", "save it again in the Prefect UI, Blocks") from None
    return block


async def _near(client: PrefectClient, setting: BlockSetting[P], name: str) -> str:
    """A hint at the fitting blocks whose names are near to one that isn't there."""
    known: list[str] = []
    for kind in setting.kinds:
        try:
            documents = await client.read_block_documents_by_type(kind, include_secrets=False)
        except ObjectNotFound:  # no block of this kind was ever saved
            continue
        known += [f"{kind}/{document.name}" for document in documents]
    near = get_close_matches(name, known, n=3) + [other for other in known if other.split("/")[1] == name.split("/")[1]]
    if near:
        return f"did you mean {' or '.join(dict.fromkeys(near))}?"
    return f"there are: {', '.join(known)}" if known else "create it in the Prefect UI, Blocks"
