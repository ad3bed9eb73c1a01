"""How the dashboard is bound to a workspace: where Prefect's pages are, on which address it may serve."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from autosync.errors import ConfigError
from autosync.settings import Home
from flows.service.dashboard import VARIABLE, prefect_pages, serve
from flows.workspace import Workspace
from tests import busy


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    (tmp_path / "autosync.toml").write_text(busy.CONFIG)
    return Workspace(Home(tmp_path / "home"), tmp_path / "autosync.toml")


@pytest.mark.parametrize(
    ("environ", "pages"),
    [
        ({"PREFECT_API_URL": "http://127.0.0.1:4200/api"}, "http://127.0.0.1:4200"),
        ({"PREFECT_API_URL": "http://h/api", "PREFECT_UI_URL": "https://prefect.example/"}, "https://prefect.example"),
        (
            {"PREFECT_API_URL": "https://api.prefect.cloud/api/accounts/a1/workspaces/w2"},
            "https://app.prefect.cloud/account/a1/workspace/w2",
        ),
        ({}, None),
    ],
)
def test_prefect_pages(workspace: Workspace, environ: dict[str, str], pages: str | None) -> None:
    """The pages of a server follow from its API's address; without a server there are none."""
    assert prefect_pages(workspace, environ | {"PREFECT_HOME": str(workspace.home.path)}) == pages


def test_serving_others_needs_a_token(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is started on another address without a token."""
    monkeypatch.delenv(VARIABLE, raising=False)
    with pytest.raises(ConfigError, match="no token is set"):
        serve(workspace, "0.0.0.0", 4280, [], print)
    assert not workspace.home.path.exists()


def test_a_port_in_use_is_told(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """A taken port is an error that says what to do."""
    monkeypatch.delenv(VARIABLE, raising=False)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ConfigError, match="can't be used"):
            serve(workspace, "127.0.0.1", taken.getsockname()[1], [], print)
