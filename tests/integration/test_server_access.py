"""Who may talk to the Prefect servers that AutoSync starts: their user with the secret, under loopback names only."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil
import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.integration.service import ROOT, Service, up

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or "/usr/bin/chromium"
FLAGS = "--no-sandbox --disable-quic --disable-background-networking --disable-component-update --disable-sync"
CONFIG = '[[source]]\nname = "things"\nlocation = "things.json"\nkey = "/id"\nschedule = 3600\n'
TOKEN = "xoxb-0123456789-not-for-others"
OPEN = {"/api/health", "/api/ready"}

# Everything that a page may try: simple and preflighted requests, with and without reading, sockets, a frame.
ATTACK = """async ([api, deployment]) => {
  const heard = [];
  const body = JSON.stringify({include_secrets: true});
  for (const [mode, credentials] of ["cors", "no-cors"].flatMap(mode => [[mode, "omit"], [mode, "include"]]))
    for (const type of ["application/json", "text/plain", null])
      for (const path of ["/block_documents/filter", "/flow_runs/filter", "/deployments/filter", "/variables/",
                          `/deployments/${deployment}/create_flow_run`]) {
        const headers = type ? {"content-type": type} : {};
        try {
          const answer = await fetch(api + path, {method: "POST", mode, headers, body, credentials});
          const text = await answer.text();
          if (text) heard.push(mode + path + text);
        } catch (error) { }
      }
  for (const path of ["/events/in", "/events/out", "/logs/out"])
    for (const protocols of [[], ["prefect"]])
      await new Promise(done => {
        const socket = new WebSocket(api.replace("http", "ws") + path, protocols);
        socket.onmessage = message => heard.push(path + message.data);
        socket.onopen = () => { try { socket.send(JSON.stringify({type: "auth", token: null})); } catch (error) { } };
        socket.onclose = done;
        setTimeout(done, 3000);
      });
  return heard;
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not Path(CHROMIUM).exists():
        if os.environ.get("CI") == "true":
            pytest.fail(f"{CHROMIUM} is missing, and CI must look at the pages")
        pytest.skip(f"{CHROMIUM} is missing: apt-get install chromium")
    with sync_playwright() as play:
        launched = play.chromium.launch(executable_path=CHROMIUM, args=[*FLAGS.split(), "--no-first-run"])
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("up")
    (folder / "autosync.toml").write_text(CONFIG)
    (folder / "things.json").write_text('[{"id": "a"}]')
    before = os.umask(0)
    try:
        with up(Service(folder)) as running:
            running.post("/block_documents/filter", {})
            save = "from blocks.notify.slack import SlackWebhook; SlackWebhook(url='https://hooks.slack.com/x/" + TOKEN
            save += "').save('ops')"
            environment = running.environment | {
                "PREFECT_API_URL": str(running.api),
                "PREFECT_API_AUTH_STRING": running.secret,
            }
            subprocess.run([sys.executable, "-c", save], env=environment, cwd=ROOT, check=True, timeout=240)
            yield running
    finally:
        os.umask(before)


@contextmanager
def site(folder: Path) -> Iterator[str]:
    """Another web site of this machine."""
    (folder / "index.html").write_text("<!doctype html><title>elsewhere</title>")
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://localhost:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def ui(service: Service, host: str) -> str:
    return f"http://{host}:{urlsplit(str(service.api)).port}"


def test_a_page_of_another_origin_gets_nothing(service: Service, browser: Browser, tmp_path: Path) -> None:
    """No block, run, deployment or event reaches a page elsewhere, and it starts nothing, whatever it sends."""
    assert TOKEN in json.dumps(service.post("/block_documents/filter", {"include_secrets": True}))
    before = started_runs(service)
    deployment = service.post("/deployments/filter", {})[0]["id"]
    with site(tmp_path) as address:
        page = browser.new_page()
        page.goto(address)
        for host in ("127.0.0.1", "localhost"):
            assert page.evaluate(ATTACK, [f"{ui(service, host)}/api", deployment]) == []
        page.close()
    assert started_runs(service) == before


def started_runs(service: Service) -> int:
    """How many flow runs somebody asked for; the scheduler's own come beside them."""
    return sum(not run["auto_scheduled"] for run in service.post("/flow_runs/filter", {}))


def login(service: Service) -> tuple[str, str]:
    """User name and password of the server's secret."""
    user, password = service.secret.split(":", 1)
    return user, password


def test_every_call_of_the_api_asks_for_the_secret(service: Service) -> None:
    """Without the secret, or with a wrong one, every route answers 401; only the liveness probes are open."""
    with httpx.Client(base_url=ui(service, "127.0.0.1"), trust_env=False) as client:
        paths = client.get("/openapi.json").json()["paths"]
        assert len(paths) > 100
        for path, methods in paths.items():
            address = "/api" + path.replace("{", "").replace("}", "")
            for method in methods:
                for auth in (None, ("autosync", "wrong")):
                    answer = client.request(method, address, auth=auth)
                    if answer.status_code != 401:
                        assert address in OPEN and method == "get", (method, path, answer.text)


@pytest.mark.parametrize("host", ["evil.example", "evil.example:4200", "127.0.0.1.evil.example", "localhost.", "[::2]"])
def test_other_names_are_refused(service: Service, host: str) -> None:
    """A name elsewhere that points to this machine (DNS rebinding) gets nothing, the secret given or not."""
    auth = login(service)
    for path in ("/api/health", "/api/admin/version", "/", "/ui-settings"):
        answer = httpx.get(ui(service, "127.0.0.1") + path, headers={"host": host}, auth=auth, trust_env=False)
        assert answer.status_code == 400 and "3.8" not in answer.text


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]"])
def test_loopback_names_are_answered(service: Service, host: str) -> None:
    """Each name of this machine works with its secret."""
    port, auth = urlsplit(str(service.api)).port, login(service)
    for name in (host, f"{host}:{port}"):
        address = f"{ui(service, '127.0.0.1')}/api/admin/version"
        assert httpx.get(address, headers={"host": name}, auth=auth, trust_env=False).status_code == 200


def test_cors_admits_only_the_own_pages(service: Service) -> None:
    """A preflight of another origin is refused, also of another port; the UI's own two names are admitted."""
    port = urlsplit(str(service.api)).port

    def admitted(origin: str) -> str | None:
        headers = {"origin": origin, "access-control-request-method": "POST"}
        response = httpx.options(f"{service.api}/flow_runs/filter", headers=headers, trust_env=False)
        origins: str | None = response.headers.get("access-control-allow-origin")
        return origins

    for origin in ("https://evil.example", "http://localhost:1", "null", f"https://localhost:{port}"):
        assert admitted(origin) is None
    for host in ("localhost", "127.0.0.1"):
        assert admitted(f"http://{host}:{port}") == f"http://{host}:{port}"


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_the_ui_asks_for_the_secret_once(service: Service, browser: Browser, host: str) -> None:
    """Under both names the UI wants the secret, then shows the deployments, and asks no second time."""
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{ui(service, host)}/deployments")
    page.locator("input[type=password]").fill(service.secret)
    page.keyboard.press("Enter")
    shows(page, "things")
    again = context.new_page()
    again.goto(f"{ui(service, host)}/deployments")
    shows(again, "things")
    assert again.locator("input[type=password]").count() == 0
    context.close()


def shows(page: Page, text: str) -> None:
    page.get_by_text(text, exact=True).first.wait_for(timeout=30_000)


def test_up_writes_what_another_shell_needs(service: Service) -> None:
    """The lines that `up` prints work: source the file, then `prefect deployment run`; the secret isn't printed."""
    said = (service.folder / "up.log").read_text()
    path = service.home / "prefect" / "client.env"
    assert os.path.relpath(path, ROOT) in said and "api-secret" in said and service.secret not in said
    command = f". {path}; {sys.executable} -m prefect deployment run sync/things --watch"
    done = subprocess.run(
        ["/bin/sh", "-c", command], env=service.environment, cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert service.secret not in (service.home / "logs" / "app.log").read_text()


def test_no_process_shows_the_secret(service: Service) -> None:
    """The secret is in no argument of any process."""
    assert not [p for p in psutil.process_iter(["cmdline"]) if service.secret in " ".join(p.info["cmdline"] or [])]


def test_the_home_is_its_users_alone(service: Service) -> None:
    """Whatever the umask, the home's folders are 0700 and its files 0600, after runs of every kind."""
    service.run("run")
    service.run("backup")
    service.run("report")
    open_ = [path for path in [service.home, *service.home.rglob("*")] if lax(path)]
    assert open_ == []


def lax(path: Path) -> bool:
    """Whether others have any right on it."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:  # a temporary file of a running program
        return False
    return not stat.S_ISLNK(mode) and bool(mode & 0o077)


def test_a_home_that_was_open_is_closed(tmp_path: Path) -> None:
    """A home of an older version is closed at its next use; a file that people asked for keeps their umask."""
    (tmp_path / "autosync.toml").write_text(CONFIG)
    (tmp_path / "things.json").write_text('[{"id": "a"}]')
    service = Service(tmp_path)
    service.run("run")
    service.home.chmod(0o755)
    (service.home / "autosync.db").chmod(0o644)
    before = os.umask(0o022)
    try:
        service.run("restore", "things", "--to", str(tmp_path / "out.jsonl"))
    finally:
        os.umask(before)
    assert stat.S_IMODE(service.home.stat().st_mode) == 0o700
    assert [path for path in service.home.rglob("*") if lax(path)] == []
    assert stat.S_IMODE((tmp_path / "out.jsonl").stat().st_mode) == 0o644


def test_a_temporary_server_asks_for_the_secret_too(tmp_path: Path) -> None:
    """While a command runs on a server of its own, that one answers neither strangers nor other names."""
    (tmp_path / "autosync.toml").write_text(CONFIG)
    (tmp_path / "things.json").write_text(json.dumps([{"id": n} for n in range(2000)]))
    service = Service(tmp_path)
    process = subprocess.Popen(service.command("run"), env=service.environment, cwd=ROOT, stdout=subprocess.DEVNULL)
    asked = 0
    while process.poll() is None:
        for child in children(process.pid):
            asked += asks_for_the_secret(int(child[child.index("--port") + 1]))
        time.sleep(0.05)
    assert process.returncode == 0 and asked > 3


def children(pid: int) -> list[list[str]]:
    try:
        lines: list[list[Any]] = [child.cmdline() for child in psutil.Process(pid).children()]
    except psutil.Error:
        return []
    return [line for line in lines if "flows.server_app" in line and "--port" in line]


def asks_for_the_secret(port: int) -> bool:
    """Whether the server refused a stranger; False while it doesn't answer yet or any more."""
    address = f"http://127.0.0.1:{port}/api/block_documents/filter"
    try:
        refused = httpx.post(address, json={"include_secrets": True}, trust_env=False, timeout=10)
        foreign = httpx.post(address, json={}, headers={"host": "evil.example"}, trust_env=False, timeout=10)
    except httpx.HTTPError:
        return False
    assert (refused.status_code, foreign.status_code) == (401, 400)
    return True


def test_a_stale_note_of_a_server_is_not_believed(service: Service, tmp_path: Path) -> None:
    """A home whose noted server is gone doesn't take another home's server at that port for its own."""
    (tmp_path / "autosync.toml").write_text(CONFIG)
    (tmp_path / "things.json").write_text('[{"id": "a"}]')
    other = Service(tmp_path)
    (other.home / "prefect").mkdir(parents=True)
    (other.home / "prefect" / "server.json").write_text(json.dumps({"api": service.api, "pid": 1}))
    assert other.json("run", "things")["runs"][0]["outcome"] == "changed"


def test_the_port_is_bound_on_the_loopback_only(service: Service) -> None:
    """Other machines can't connect at all."""
    port = urlsplit(str(service.api)).port
    listening = [c.laddr.ip for c in psutil.net_connections("tcp") if c.status == "LISTEN" and c.laddr.port == port]
    assert listening == ["127.0.0.1"]
