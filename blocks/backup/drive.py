"""A Google Drive folder as the place that keeps backups. Needs the extra `drive`."""

# Google's client libraries come without types.
# mypy: disable-error-code="import-untyped,no-untyped-call"

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from importlib import resources
from pathlib import Path
from typing import Any

from prefect.blocks.core import Block
from prefect.types import SecretDict
from pydantic import Field, HttpUrl, SecretStr

from autosync.errors import AutoSyncError, ConfigError, RemoteError, RemoteUnavailable
from autosync.policy import asked_wait
from autosync.ports import Stored
from blocks.files import put_in_place

__all__ = ["DriveTarget", "GoogleDrive"]

SCOPE = "https://www.googleapis.com/auth/drive"
PART = ".part"
FIELDS = "id,name,size,md5Checksum,sha256Checksum,modifiedTime,appProperties"
_KEPT = "the older backup of that name, if there was one"


class GoogleDrive(Block):
    """A folder in Google Drive.

    Attributes:
        folder_id: The folder's id, the last part of its address.
        service_account: A service account's key, the JSON file that Google gives out.
        token: An OAuth access token, instead of a service account.
        endpoint: Another address of the API, for tests and proxies.
        chunk_size: Bytes in one piece of an upload; a cut upload goes on after the last whole piece.
        timeout: Seconds to wait for an answer.
        retries: How often one piece is tried again at once.
        pause: Seconds before the first repetition; it doubles each time.

    Example:
        ```python
        from blocks.backup.drive import GoogleDrive

        drive = GoogleDrive.load("BLOCK_NAME")
        print(list(drive.target().list()))
        ```
    """

    _block_type_name = "AutoSync Google Drive"
    _block_type_slug = "autosync-google-drive"
    _description = "The Google Drive folder that AutoSync keeps backups in."
    _documentation_url = HttpUrl("https://developers.google.com/workspace/drive/api/guides/manage-uploads")
    _logo_url = HttpUrl(
        "https://cdn.sanity.io/images/3ugk85nk/production/10424e311932e31c477ac2b9ef3d53cefbaad708-250x250.png"
    )

    folder_id: str = Field(description="The folder's id: the last part of its address in the browser.")
    service_account: SecretDict | None = Field(default=None, description="The key file's JSON of a service account.")
    token: SecretStr | None = Field(default=None, description="An OAuth access token, instead of a service account.")
    endpoint: str | None = Field(default=None, description="Another address of the API, for tests and proxies.")
    chunk_size: int = Field(default=8 << 20, multiple_of=1 << 18, gt=0, description="Bytes in one piece of an upload.")
    timeout: float = Field(default=60.0, gt=0, description="Seconds to wait for an answer.")
    retries: int = Field(default=4, ge=0, description="How often one piece is tried again at once.")
    pause: float = Field(default=1.0, ge=0, description="Seconds before the first repetition; it doubles each time.")

    def target(self) -> DriveTarget:
        """The folder as a place to put backups into."""
        try:
            import httplib2
            from google_auth_httplib2 import AuthorizedHttp
            from googleapiclient.discovery import build_from_document
        except ImportError:
            raise ConfigError(
                "Google Drive needs a package that is not installed", todo='run: pip install "autosync[drive]"'
            ) from None
        http = httplib2.Http(timeout=self.timeout)
        http.redirect_codes = http.redirect_codes - {308}  # to Drive it means: go on with the upload
        service = build_from_document(_description(self.endpoint), http=AuthorizedHttp(self._credentials(), http=http))
        retry = _Retry(self.retries, self.pause)
        return DriveTarget(service, self.folder_id, chunk_size=self.chunk_size, retry=retry)

    def _credentials(self) -> Any:
        from google.oauth2 import credentials, service_account

        if self.service_account is not None:
            try:
                info = self.service_account.get_secret_value()
                return service_account.Credentials.from_service_account_info(info, scopes=[SCOPE])
            except (ValueError, KeyError):
                raise ConfigError(
                    "The service account's key is not complete",
                    where="block GoogleDrive",
                    todo="copy the whole JSON file that Google gave out into service_account",
                ) from None
        if self.token is None:
            raise ConfigError(
                "Google Drive has no credentials", where="block GoogleDrive", todo="fill in service_account or token"
            )
        return credentials.Credentials(self.token.get_secret_value())


class DriveTarget:
    """Keeps files in one Drive folder; a new one takes its name only when its checksum is right."""

    def __init__(self, service: Any, folder_id: str, *, chunk_size: int, retry: _Retry) -> None:
        self._files, self._folder, self._chunk, self._retry = service.files(), folder_id, chunk_size, retry

    def __repr__(self) -> str:
        return f"DriveTarget({self._folder!r})"

    @property
    def address(self) -> str:
        """The folder's page."""
        return f"https://drive.google.com/drive/folders/{self._folder}"

    def put(self, path: Path, name: str, home: str) -> Stored:
        """Upload in pieces, going on after a cut; this home's older file of that name goes when the new one is proven.

        A file of that name that another home or a person put there stays beside it, as Drive allows.
        """
        with self._errors(name):
            sums = _sums(path)
            for leftover in self._own(name + PART, home):
                self._remove(leftover["id"])
            new = self._upload(path, name, sums | {"home": home})
            if not _as_put(new, sums):
                self._remove(new["id"])
                raise RemoteUnavailable(f"{name} arrived damaged", where=self.address, kept=_KEPT, todo="run again")
            older = self._own(name, home)
            change = {"fileId": new["id"], "body": {"name": name}, "fields": FIELDS, "supportsAllDrives": True}
            done = self._retry(self._files.update(**change).execute)
            for file in older:
                self._remove(file["id"])
            return _stored(done)

    def get(self, name: str, path: Path, home: str = "") -> None:
        """Download to `path`, which appears only when its checksum is right."""
        from googleapiclient.http import MediaIoBaseDownload

        part = path.with_name(f".{path.name}{PART}")
        with self._errors(name):
            if not (found := self._own(name, home) if home else self._found(name)):
                raise RemoteError(f"There is no backup {name}", where=self.address, todo="choose one from the list")
            try:
                with part.open("wb") as file:
                    request = self._files.get_media(fileId=found[0]["id"], supportsAllDrives=True)
                    download, done = MediaIoBaseDownload(file, request, chunksize=self._chunk), False
                    while not done:
                        _, done = self._retry(download.next_chunk)
                if _sums(part)["md5"] != found[0].get("md5Checksum"):
                    kept = f"{path} as it was"
                    raise RemoteUnavailable(f"{name} came damaged", where=self.address, kept=kept, todo="run again")
                put_in_place(part, path)
            finally:
                part.unlink(missing_ok=True)

    def list(self) -> Iterator[Stored]:
        """What lies there, newest first."""
        with self._errors("the folder"):
            for file in self._query(""):
                if not file["name"].endswith(PART):
                    yield _stored(file)

    def verify(self, name: str, home: str) -> bool:
        """Whether this home put the file, and Drive's own checksum of its bytes is that of what was put."""
        with self._errors(name):
            found = self._own(name, home)
            return bool(found) and _as_put(found[0], found[0]["appProperties"])

    def delete(self, name: str, home: str) -> None:
        """Remove what this home put; what isn't there is no error."""
        with self._errors(name):
            own = self._own(name, home)
            if not own and self._found(name):
                raise RemoteError(
                    f"{name} is not deleted: nothing proves that this home made it",
                    where=self.address,
                    kept="the file as it is",
                    todo="look what it is, and delete it by hand if nobody needs it there",
                )
            for file in own:
                self._remove(file["id"])

    def _upload(self, path: Path, name: str, facts: dict[str, str]) -> dict[str, Any]:
        from googleapiclient.http import MediaFileUpload

        media = MediaFileUpload(
            path, mimetype="application/octet-stream", chunksize=self._chunk, resumable=path.stat().st_size > 0
        )
        media.has_stream = lambda: False  # whole pieces: the HTTP client sends again what a stream no longer has
        body = {"name": name + PART, "parents": [self._folder], "appProperties": facts}
        request = self._files.create(body=body, media_body=media, fields=FIELDS, supportsAllDrives=True)
        if not media.resumable():
            return dict(self._retry(request.execute))
        response = None
        while response is None:
            # 400: the HTTP client sent a piece again whose answer was lost; the next try asks how far it came.
            _, response = self._retry(request.next_chunk, also=400)
        return dict(response)

    def _found(self, name: str) -> tuple[dict[str, Any], ...]:
        """The files of that name, newest first, whoever put them."""
        quoted = name.replace("\\", "\\\\").replace("'", "\\'")
        return tuple(self._query(f" and name = '{quoted}'"))

    def _own(self, name: str, home: str) -> tuple[dict[str, Any], ...]:
        """Those of them that a home put; an empty id proves nothing."""
        return tuple(file for file in self._found(name) if home and _home(file) == home)

    def _query(self, more: str) -> Iterator[dict[str, Any]]:
        folder = "mimeType != 'application/vnd.google-apps.folder'"
        options = {
            "q": f"'{self._folder}' in parents and trashed = false and {folder}{more}",
            "fields": f"nextPageToken,files({FIELDS})",
            "orderBy": "modifiedTime desc",
            "supportsAllDrives": True,
            "includeItemsFromAllDrives": True,
        }
        request = self._files.list(**options, pageSize=1000)
        while request is not None:
            page = self._retry(request.execute)
            # Google's own documents and shortcuts have neither size nor bytes.
            yield from (file for file in page.get("files", ()) if "size" in file)
            request = self._files.list_next(request, page)

    def _remove(self, file_id: str) -> None:
        from googleapiclient.errors import HttpError

        try:
            self._retry(self._files.delete(fileId=file_id, supportsAllDrives=True).execute)
        except HttpError as error:
            if error.status_code != 404:
                raise

    @contextlib.contextmanager
    def _errors(self, name: str) -> Iterator[None]:
        from google.auth.exceptions import GoogleAuthError
        from googleapiclient.errors import Error, HttpError
        from httplib2 import HttpLib2Error

        try:
            yield
        except AutoSyncError:
            raise
        except HttpError as error:
            raise _explained(error.status_code, str(error.reason), self.address, _asked(error)) from None
        except GoogleAuthError as error:
            if getattr(error, "retryable", False):
                raise RemoteUnavailable("Google did not answer", where=self.address, kept=_KEPT) from None
            raise _explained(401, "the credentials are not valid", self.address) from None
        except FileNotFoundError as error:
            raise RemoteError(f"{error.filename} is not there", where=self.address, kept=_KEPT) from None
        except (OSError, HttpLib2Error, Error) as error:
            what = f"Google Drive did not answer for {name} ({type(error).__name__})"
            raise RemoteUnavailable(what, where=self.address, kept=_KEPT, todo="check network and disk space") from None


class _Retry:
    """Repeats a call that failed on the way; the client goes on with an upload where it was cut."""

    def __init__(self, retries: int, pause: float) -> None:
        self._retries, self._pause = retries, pause

    def __call__(self, call: Callable[[], Any], *, also: int = 0) -> Any:
        for attempt in range(self._retries + 1):
            try:
                return call()
            except Exception as error:
                if attempt == self._retries or not _passing(error, also):
                    raise
            time.sleep(self._pause * 2**attempt)
        raise AssertionError("the loop returns or raises")


def _passing(error: Exception, also: int) -> bool:
    from googleapiclient.errors import HttpError
    from httplib2 import HttpLib2Error

    if isinstance(error, HttpError):
        if _asked(error) is not None:  # to be waited for as a whole, by whoever holds nothing meanwhile
            return False
        return error.status_code >= 500 or error.status_code == also or _busy(error.status_code, str(error.reason))
    return isinstance(error, (ConnectionError, TimeoutError, HttpLib2Error))


def _busy(status: int, reason: str) -> bool:
    return status == 429 or (status == 403 and "rate limit" in reason.lower())


def _asked(error: Any) -> float | None:
    """The seconds that an HttpError of Drive asks to wait; it seldom does."""
    status: int = error.status_code
    return asked_wait(error.resp, now=time.time()) if status in (403, 429) or status >= 500 else None


def _explained(status: int, reason: str, where: str, asked: float | None = None) -> RemoteError:
    what = f"Google Drive says: {' '.join(reason.split())[:200]} ({status})"
    if asked is not None:
        what = f"Google Drive asked to wait {asked:,.0f} s: {' '.join(reason.split())[:200]} ({status})"
    if asked is not None or status >= 500 or _busy(status, reason):
        return RemoteUnavailable(what, where=where, kept=_KEPT, todo="wait and run again", retry_after=asked)
    todo = {
        401: "make new credentials and put them into the block",
        403: "share the folder with the service account as editor, and see that there is space",
        404: "check folder_id, and share the folder with the service account",
    }.get(status, "look at Google's answer")
    return RemoteError(what, where=where, kept=_KEPT, todo=todo)


def _description(endpoint: str | None) -> dict[str, Any]:
    """Drive's own description out of the client's package; its addresses replaced, so uploads go there too."""
    file = resources.files("googleapiclient.discovery_cache") / "documents" / "drive.v3.json"
    document: dict[str, Any] = json.loads(file.read_text("utf-8"))
    if endpoint:
        root = endpoint.rstrip("/") + "/"
        document |= {"rootUrl": root, "baseUrl": root + document["servicePath"]}
        document.pop("mtlsRootUrl", None)
    return document


def _sums(path: Path) -> dict[str, str]:
    sums = {"sha256": hashlib.sha256(), "md5": hashlib.md5(usedforsecurity=False)}
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            for each in sums.values():
                each.update(piece)
    return {name: each.hexdigest() for name, each in sums.items()}


def _as_put(file: dict[str, Any], sums: dict[str, str]) -> bool:
    """Whether Drive's checksums of a file are those of what was put; it always knows the MD5."""
    md5, sha256 = sums.get("md5"), sums.get("sha256")
    return bool(md5) and file.get("md5Checksum") == md5 and file.get("sha256Checksum", sha256) == sha256


def _home(file: dict[str, Any]) -> str:
    return str(file.get("appProperties", {}).get("home", ""))


def _stored(file: dict[str, Any]) -> Stored:
    sha256 = file.get("sha256Checksum") or file.get("appProperties", {}).get("sha256", "")
    time = datetime.fromisoformat(file["modifiedTime"]).timestamp()
    return Stored(file["name"], int(file["size"]), sha256, time, _home(file))
