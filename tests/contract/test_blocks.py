"""Every block type against Prefect's own standard for blocks, and the rule that importing does nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest
from prefect.blocks.core import Block
from prefect.testing.standard_test_suites.blocks import BlockStandardTestSuite

from blocks.backup.drive import GoogleDrive
from blocks.catalog import GitRemote, JsonSource, SQLiteStore
from blocks.notify.email import SmtpServer
from blocks.notify.slack import SlackWebhook
from blocks.repository.github import GitHubRepository


class _Offline(BlockStandardTestSuite):
    """The suite without its picture check, which loads the logo from the network."""

    def test_has_a_valid_image(self, block: type[Block]) -> None:
        """The logo is given as a web address of a picture."""
        assert str(block._logo_url).startswith("https://")
        assert str(block._logo_url).endswith(".png")


class TestGitHubRepository(_Offline):
    @pytest.fixture
    def block(self) -> type[Block]:
        return GitHubRepository


class TestSlackWebhook(_Offline):
    @pytest.fixture
    def block(self) -> type[Block]:
        return SlackWebhook


class TestSmtpServer(_Offline):
    @pytest.fixture
    def block(self) -> type[Block]:
        return SmtpServer


class TestGoogleDrive(_Offline):
    @pytest.fixture
    def block(self) -> type[Block]:
        return GoogleDrive


class TestJsonSource(_Offline):
    @pytest.fixture
    def block(self) -> type[Block]:
        return JsonSource


class TestSQLiteStore(_Offline):
    @pytest.fixture
    def block(self) -> type[Block]:
        return SQLiteStore


class TestGitRemote(_Offline):
    @pytest.fixture
    def block(self) -> type[Block]:
        return GitRemote


@pytest.mark.parametrize("module", ["blocks.repository.git", "blocks.backup.folder", "blocks.notify.console"])
def test_the_embedded_parts_need_no_prefect(module: str) -> None:
    """What runs without any account imports neither Prefect nor a client library."""
    code = (
        f"import sys, {module}; print([m for m in ('prefect', 'github', 'slack_sdk', 'requests') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_google_is_imported_only_when_used() -> None:
    """The optional extra isn't needed to import its block."""
    code = "import sys, blocks.backup.drive; print([m for m in ('googleapiclient', 'httplib2') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
