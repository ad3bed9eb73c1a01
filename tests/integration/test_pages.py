"""The pages in a real browser: what people see, hear and reach, in both languages, light and dark, wide and narrow.

Needs Chromium at /usr/bin/chromium, else in CHROMIUM; without it the tests are skipped, but not when CI=true.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]  # ships no types
from playwright.sync_api import Browser, Page, sync_playwright

from autosync.settings import Home
from flows.service.dashboard import StoreReading
from flows.workspace import Workspace, now
from reports.dashboard.app import create_app
from reports.dashboard.guard import Access
from tests import busy
from tests.serving import serving

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or "/usr/bin/chromium"
FLAGS = "--no-sandbox --disable-quic --disable-background-networking --disable-component-update --disable-sync"
ROOT = Path(__file__).resolve().parents[2]
TOKEN = "a-token-that-is-long-enough"
PAGES = ("overview", "runs", "failed", "run", "changes", "record", "numbers", "modules", "missing", "empty", "login")
VARIANTS = [(lang, scheme, width) for lang in ("en", "fa") for scheme in ("light", "dark") for width in (1280, 375)]
MOST_BYTES = 80_000
REFUSED = "Failed to load resource: the server responded with a status of 4"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not Path(CHROMIUM).exists():
        if os.environ.get("CI") == "true":
            pytest.fail(f"{CHROMIUM} is missing, and CI must look at the pages")
        pytest.skip(f"{CHROMIUM} is missing: apt-get install chromium")
    with sync_playwright() as play:
        made = play.chromium.launch(executable_path=CHROMIUM, args=[*FLAGS.split(), "--no-first-run"])
        yield made
        made.close()


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return busy.build(tmp_path_factory.mktemp("busy"))


@pytest.fixture(scope="module")
def addresses(workspace: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Where each page is: of a busy store, of an empty one, of one that asks for a token."""
    folder = tmp_path_factory.mktemp("empty")
    (folder / "autosync.toml").write_text(busy.CONFIG)
    empty = Workspace(Home(folder / "home"), folder / "autosync.toml")
    with (
        serving(create_app(StoreReading(workspace))) as api,
        serving(create_app(StoreReading(empty))) as nothing,
        serving(create_app(StoreReading(workspace), Access(TOKEN))) as closed,
    ):
        failed = api.get("/api/v1/runs?status=failed&limit=1").json()["items"][0]["run"]
        change = api.get("/api/v1/changes?source=contacts&op=update&limit=1").json()["items"][0]
        paths = {name: f"/{name}" for name in ("runs", "changes", "numbers", "modules", "missing")}
        paths |= {"overview": "/", "failed": f"/runs/{failed}", "run": f"/runs/{change['run']}"}
        paths["record"] = f"/record?collection=contacts&id={change['id']}"
        found = {name: f"{api.base_url}{path}" for name, path in paths.items()}
        yield found | {"empty": f"{nothing.base_url}/", "login": f"{closed.base_url}/login"}


@pytest.fixture
def page(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Page]:
    """A page that fails its test for any error in it, and any request to another host."""
    variant: Any = getattr(request, "param", ("en", "light", 1280))
    language, scheme, width = variant
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    context.add_cookies([{"name": "autosync_language", "value": language, "url": "http://127.0.0.1"}])
    made, wrong = context.new_page(), list[str]()
    made.on("pageerror", lambda error: wrong.append(str(error)))
    made.on(
        "console",
        lambda said: wrong.append(said.text) if said.type == "error" and not said.text.startswith(REFUSED) else None,
    )
    made.on("request", lambda sent: wrong.append(sent.url) if urlsplit(sent.url).hostname != "127.0.0.1" else None)
    yield made
    context.close()
    assert not wrong


def settle(page: Page) -> None:
    """Wait until what loads later is there."""
    page.wait_for_function("() => window.htmx && !document.querySelector('.htmx-request, .htmx-settling')")
    page.wait_for_timeout(150)
    page.wait_for_function("() => !document.querySelector('.htmx-request, .htmx-settling')", timeout=60_000)


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("page", VARIANTS, indirect=True, ids=lambda variant: "-".join(map(str, variant)))
def test_every_page_in_every_form(page: Page, addresses: dict[str, str], name: str) -> None:
    """No rule of accessibility is violated, nothing overflows sideways, and the language is the reader's."""
    page.goto(addresses[name])
    settle(page)
    for summary in page.locator("details > summary").all()[:3]:
        summary.click()
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    wanted = {"en": ("ltr", "Overview"), "fa": ("rtl", "نمای کلی")}[page.evaluate("document.documentElement.lang")]
    assert (page.evaluate("document.dir"), page.locator("nav a").first.inner_text()) == wanted


def test_weight_and_speed(page: Page, addresses: dict[str, str]) -> None:
    """The overview is light, painted soon, and asks only its own host."""
    session = page.context.new_cdp_session(page)
    session.send("Network.enable")
    weights: list[float] = []
    session.on("Network.loadingFinished", lambda event: weights.append(event["encodedDataLength"]))
    page.goto(addresses["overview"])
    settle(page)
    painted = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
    assert sum(weights) < MOST_BYTES, weights
    assert painted < 3000
    print(f"\noverview: {sum(weights):.0f} bytes in {len(weights)} requests, first paint {painted:.0f} ms")


def test_charts_are_drawn_from_their_tables(page: Page, addresses: dict[str, str]) -> None:
    """Each chart has a table that says the same, with a row for every bar."""
    page.goto(addresses["overview"])
    settle(page)
    assert page.locator("figure canvas").count() == page.locator("figure details table").count() == 2
    assert page.locator("figure").first.locator("details tbody tr").count() in (30, 31)


def test_keyboard_reaches_everything(page: Page, addresses: dict[str, str]) -> None:
    """Tab goes through skip link, pages and links in order; the skip link leads to the content."""
    page.goto(addresses["overview"])
    settle(page)
    names = []
    for _ in range(8):
        page.keyboard.press("Tab")
        names.append(page.evaluate("document.activeElement.textContent.trim()"))
    assert names[:3] == ["Skip to the content", "AutoSync", "Overview"] and "Modules" in names
    page.goto(addresses["overview"])
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.evaluate("location.hash") == "#content"


def test_language_is_switched_and_kept(page: Page, addresses: dict[str, str]) -> None:
    """The switch turns the page and the next ones into the other language, with its digits."""
    page.goto(addresses["runs"])
    page.get_by_text("فارسی").click()
    assert page.evaluate("document.dir") == "rtl" and "۰" in page.locator("main").inner_text()
    page.goto(addresses["changes"])
    assert page.evaluate("document.documentElement.lang") == "fa"


def test_filters_and_older(page: Page, addresses: dict[str, str]) -> None:
    """The filter form keeps what was chosen, and `Older` goes on from the last row with the same filter."""
    page.goto(addresses["runs"])
    page.get_by_label("Outcome").select_option("changed")
    page.get_by_role("button", name="Apply").click()
    assert page.get_by_label("Outcome").input_value() == "changed"
    first = set(page.locator(".rows a.name").evaluate_all("all => all.map(one => one.href)"))
    page.get_by_role("link", name="Older").click()
    second = set(page.locator(".rows a.name").evaluate_all("all => all.map(one => one.href)"))
    assert len(first) == len(second) == 50 and not first & second
    assert set(page.locator(".rows .badge").all_inner_texts()) == {"changed"}


def test_works_without_scripts(browser: Browser, addresses: dict[str, str]) -> None:
    """Everything but the charts' pictures and the news is there without JavaScript."""
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(addresses["overview"])
    assert "Needs attention" in page.locator("h1").inner_text()
    page.get_by_role("link", name="Show the numbers").click()
    assert "Numbers of the last 30 days" in page.locator("h1").inner_text()
    context.close()


def test_news_arrives_by_itself(browser: Browser, tmp_path: Path) -> None:
    """The empty page turns into the overview when the first run ends, and follows what comes."""
    (tmp_path / "autosync.toml").write_text(busy.CONFIG)
    workspace = Workspace(Home(tmp_path / "home"), tmp_path / "autosync.toml")
    with serving(create_app(StoreReading(workspace))) as api:
        page = browser.new_page()
        page.goto(str(api.base_url))
        assert "autosync run" in page.locator("main").inner_text()
        chance = random.Random(5)
        run = busy.run_id(chance)
        busy.note(workspace, run, "readings", now(), "changed", inserted=4)
        busy.sync(workspace, "readings", busy.readings(1), run, now())
        page.get_by_text("st~11/2026-01-01T01:00Z").wait_for(timeout=15_000)
        busy.note(workspace, busy.run_id(chance), "readings", now(), "failed", error="It broke. What to do: mend it.")
        page.get_by_text("mend it").wait_for(timeout=15_000)
        page.close()


def test_signing_in_with_the_token(page: Page, addresses: dict[str, str]) -> None:
    """A stranger is led to the sign-in page, told when the token is wrong, and back to what was asked for."""
    page.goto(addresses["login"].replace("/login", "/changes?op=delete"))
    for token in ("wrong", TOKEN):
        page.get_by_label("Token").fill(token)
        page.get_by_role("button", name="Sign in").click()
    assert page.url.endswith("/changes?op=delete") and set(page.locator(".rows .badge").all_inner_texts()) == {"delete"}


def test_text_from_data_is_only_text(browser: Browser, tmp_path: Path) -> None:
    """Markup, scripts and direction overrides in ids and values are shown, never obeyed."""
    (tmp_path / "autosync.toml").write_text(busy.CONFIG)
    workspace = Workspace(Home(tmp_path / "home"), tmp_path / "autosync.toml")
    bad: Any = "<script>document.title='owned'</script><img src=x onerror=alert(1)>&amp;\"'{{7*7}}"
    run = busy.run_id(random.Random(6))
    busy.note(workspace, run, "readings", now(), "failed", error=bad)
    busy.sync(
        workspace,
        "readings",
        [{"station": bad, "at": "../..//x?y#z", "v": f"\u202e{bad}", "w": f"{bad}\x00"}],
        run,
        now(),
    )
    with serving(create_app(StoreReading(workspace))) as api:
        page = browser.new_page()
        for path in ("/", "/runs", f"/runs/{run}", "/changes"):
            page.goto(f"{api.base_url}{path}")
            settle(page)
            assert page.title() != "owned" and page.locator("main img, main script").count() == 0
        page.locator(".rows a.name").first.click()
        assert "{{7*7}}" in page.locator("h1").inner_text() and page.title() != "owned"
        assert "\\u202e" in page.locator("main").inner_text() and "\u202e" not in page.content()
        page.close()


def test_the_command_serves_and_ends(workspace: Workspace) -> None:
    """`autosync dashboard` says where it is, and Ctrl-C ends it soon although somebody still listens to events."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    code = "import flows.commands.dashboard, flows.cli; flows.cli.main()"
    args = ["--home", str(workspace.home.path), "--config", str(workspace.config), "dashboard", "--port", str(port)]
    process = subprocess.Popen([sys.executable, "-c", code, *args], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None and f"http://127.0.0.1:{port}" in process.stdout.readline()
        transport = httpx.HTTPTransport(retries=8)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", transport=transport, trust_env=False) as api:
            assert api.get("/readyz").status_code == 200
            with api.stream("GET", "/api/v1/events") as stream:
                assert next(stream.iter_lines()) == "retry: 3000"
                process.send_signal(signal.SIGINT)
                assert process.wait(20) in (0, 130)
    finally:
        process.kill()
        process.wait()


def test_picture_for_the_readme() -> None:
    """The picture in the README is there and light."""
    picture = ROOT / "docs" / "images" / "overview.png"
    assert 10_000 < picture.stat().st_size < 150_000


def test_pages_are_not_kept_by_others(addresses: dict[str, str]) -> None:
    """Pages are private to the reader; static files may be kept as long as their address stands."""
    answer = httpx.get(addresses["overview"], trust_env=False)
    assert answer.headers["cache-control"] == "private, no-cache"
    style = next(part.split('"')[0] for part in answer.text.split('href="') if "app.css" in part)
    kept = httpx.get(httpx.URL(addresses["overview"]).join(style), trust_env=False)
    assert "immutable" in kept.headers["cache-control"]
