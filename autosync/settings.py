"""autosync.toml as typed, frozen values, and where things live below the home folder."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from autosync.errors import ConfigError
from autosync.suggestions import choose_from, did_you_mean, or_else, unknown_name

RESERVED = frozenset(
    "_lease batch change change_log change_rec collection consumer fence meta outbox outbox_open quarantine record "
    "record_boundary record_id record_mirror run run_source seen seen_part source_state stage".split()
)
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,62}")

JsonType = Literal["string", "integer", "number", "boolean", "object", "array", "null", "date", "datetime"]


class Struct(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of every settings table: frozen, unknown names are errors."""


class Guard(Struct, frozen=True):
    """What a run may do before it must ask.

    Attributes:
        max_delete: Share of the collection (0 to 1) that one run may delete.
        max_refuse: Share of the input rows (0 to 1) that may fail their checks before the whole batch is refused.
    """

    max_delete: float = 0.2
    max_refuse: float = 0.5


class DatasetCheck(Struct, frozen=True):
    """One Great Expectations expectation on the changed rows.

    Attributes:
        expect: The expectation's name, such as `expect_column_mean_to_be_between`.
        column: JSON Pointer of the column, where the expectation takes one.
        args: Further arguments as Great Expectations names them.
    """

    expect: str
    column: str | None = None
    args: dict[str, Any] = {}


class Expect(Struct, frozen=True):
    """Row checks by JSON Pointer, and dataset checks."""

    required: list[str] = []
    types: dict[str, JsonType | list[JsonType]] = {}
    ranges: dict[str, tuple[float | None, float | None]] = {}
    patterns: dict[str, str] = {}
    allowed: dict[str, list[Any]] = {}
    unique: list[str] = []
    dataset: list[DatasetCheck] = []


class Freshness(Struct, frozen=True):
    """Age of the newest successful run, in seconds, from which people are warned."""

    warn_after: float | None = None
    error_after: float | None = None


class Source(Struct, frozen=True):
    """Where records come from. See docs/configuration.md for each field."""

    name: str
    location: str
    key: str | list[str]
    collection: str = ""
    records: str = ""
    mode: Literal["snapshot", "upsert"] = "snapshot"
    schedule: str | float | None = None
    timeout: float = 30.0
    block: str | None = None
    guard: Guard = Guard()
    expect: Expect = Expect()
    freshness: Freshness = Freshness()

    @property
    def keys(self) -> list[str]:
        """The key's JSON Pointers."""
        return [self.key] if isinstance(self.key, str) else list(self.key)

    @property
    def into(self) -> str:
        """The collection's name."""
        return self.collection or self.name


class Push(Struct, frozen=True):
    """Where commits go: a Prefect block `type/name`, else a Git address or folder, else the home's bare repository."""

    block: str | None = None
    url: str | None = None
    branch: str = "main"


class Notify(Struct, frozen=True):
    """Prefect blocks `type/name` that deliver notices, in order; the console when none is set."""

    slack: str | None = None
    email: str | None = None


class Backup(Struct, frozen=True):
    """Where backups go: a folder, or a Prefect block `autosync-google-drive/name`; how many are kept."""

    folder: str | None = None
    block: str | None = None
    keep: int = 14
    schedule: str | float | None = None


class Retention(Struct, frozen=True):
    """How long history is kept: all for `days`, then the last of each day for `daily` days, then of each month.

    Attributes:
        schedule: When what is past that is merged; "" for never by itself.
    """

    days: Annotated[int, msgspec.Meta(ge=0)] = 30
    daily: Annotated[int, msgspec.Meta(ge=0)] = 365
    schedule: str | float | None = "45 3 * * *"


class Report(Struct, frozen=True):
    """When the report and the monitor run, and in which language people read."""

    schedule: str | float | None = None
    monitor_schedule: str | float | None = None
    language: Literal["en", "fa"] = "en"


class Settings(Struct, frozen=True):
    """The whole of autosync.toml."""

    source: list[Source] = []
    push: Push = Push()
    notify: Notify = Notify()
    backup: Backup = Backup()
    retention: Retention = Retention()
    report: Report = Report()

    def named(self, names: list[str] | tuple[str, ...]) -> list[Source]:
        """The named sources, or all; ConfigError for a name that autosync.toml doesn't have."""
        known = {source.name: source for source in self.source}
        for name in names:
            if name not in known:
                raise unknown_name("source", name, known)
        return [known[name] for name in names] if names else list(self.source)


def check_collection(name: str, where: str = "") -> None:
    """Raise ConfigError when a collection can't have this name."""
    _check_name(name, where)
    if name.lower() in RESERVED or name.lower().startswith("sqlite_"):
        raise ConfigError(
            f"the collection name {name!r} is one of AutoSync's own tables",
            where=where,
            todo='give the source another `collection = "..."`',
        )


def _check_name(name: str, where: str) -> None:
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"the name {name!r} can't be used",
            where=where,
            todo="use 1 to 63 letters, digits, - and _, beginning with a letter",
        )


def _check(settings: Settings, where: str) -> None:
    seen: dict[str, str] = {}
    for source in settings.source:
        _check_name(source.name, where)
        check_collection(source.into, where)
        for kind, name in (("source", source.name), ("collection", source.into)):
            if seen.setdefault(f"{kind} {name.lower()}", source.name) != source.name or (
                kind == "source" and sum(other.name.lower() == name.lower() for other in settings.source) > 1
            ):
                raise ConfigError(f"two sources use the {kind} name {name!r}", where=where, todo="rename one of them")
        if not source.keys or not 0 <= source.guard.max_delete <= 1 or not 0 <= source.guard.max_refuse <= 1:
            raise ConfigError(
                f"source {source.name!r}: a key is needed and guard shares lie between 0 and 1", where=where
            )
        for pointer, pattern in source.expect.patterns.items():
            try:
                re.compile(pattern)
            except re.error as error:
                raise ConfigError(
                    f"source {source.name!r}: the pattern for {pointer} is no regular expression: {error}", where=where
                ) from None


_UNKNOWN = re.compile(r"(?:unknown field `|Invalid enum value ')(.*?)[`'](?: - at `\$(.*)`)?$")


def _suggest(message: str) -> str:
    """The settings or values that fit where msgspec met an unknown one; "" when its message is about something else."""
    match = _UNKNOWN.search(message)
    return choose_from(match[1], _fitting(match[2] or "")) if match else ""


def _fitting(path: str) -> list[str]:
    """The names of the fields, or the values, that fit at msgspec's path, such as `.source[0].guard`."""
    from msgspec import inspect

    types: list[inspect.Type] = [inspect.type_info(Settings)]
    for field in re.findall(r"\.(\w+)|\[", path):
        types = [inner for kind in _members(types) for inner in _inner(kind, field)]
    names = list[str]()
    for kind in _members(types):
        if isinstance(kind, inspect.StructType):
            names += [field.encode_name for field in kind.fields]
        elif isinstance(kind, inspect.LiteralType):
            names += [str(value) for value in kind.values]
    return list(dict.fromkeys(names))


def _members(types: Iterable[Any]) -> Iterator[Any]:
    """The types, with a union's members for the union."""
    for kind in types:
        yield from getattr(kind, "types", [kind])


def _inner(kind: Any, field: str) -> list[Any]:
    """The type of a field, or of the items when there is no field's name."""
    if field:
        return [inner.type for inner in getattr(kind, "fields", ()) if inner.encode_name == field]
    return [getattr(kind, name) for name in ("item_type", "value_type") if hasattr(kind, name)]


def read(path: Path) -> Settings:
    """Read autosync.toml.

    Raises:
        ConfigError: Missing, unreadable, not TOML, an unknown or wrong setting; names the file and the place.
    """
    try:
        text = path.read_bytes().decode()
    except FileNotFoundError:
        question = did_you_mean(path.name, sorted(other.name for other in path.parent.glob("*.toml")))
        todo = "write one (see README, Your own first source) or name it with --config"
        raise ConfigError(
            "there is no configuration file",
            where=str(path),
            todo=or_else(question, todo),
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the configuration file can't be read: {error}", where=str(path)) from None
    try:
        settings = msgspec.convert(tomllib.loads(text), Settings)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise ConfigError(
            f"the configuration file is wrong: {error}", where=str(path), todo=_suggest(str(error))
        ) from None
    _check(settings, str(path))
    return settings


@dataclass(frozen=True)
class Home:
    """Where AutoSync keeps what it writes."""

    path: Path

    @property
    def database(self) -> Path:
        return self.path / "autosync.db"

    @property
    def identity(self) -> Path:
        return self.path / "home-id.json"

    @property
    def entries(self) -> tuple[Path, ...]:
        """What AutoSync keeps in the home, where people may keep files of their own beside it."""
        names = ("repository-cache", "validator.json")
        own = (self.database, self.identity, self.mirror, self.repository, self.reports, self.quality, self.log.parent)
        return (*own, self.staging, self.prefect, self.backups, *(self.path / name for name in names))

    @property
    def mirror(self) -> Path:
        return self.path / "data_backup"

    @property
    def repository(self) -> Path:
        return self.path / "repository.git"

    @property
    def reports(self) -> Path:
        return self.path / "reports"

    @property
    def quality(self) -> Path:
        return self.path / "quality"

    @property
    def log(self) -> Path:
        return self.path / "logs" / "app.log"

    @property
    def staging(self) -> Path:
        return self.path / "staging"

    @property
    def prefect(self) -> Path:
        return self.path / "prefect"

    @property
    def backups(self) -> Path:
        return self.path / "backups"
