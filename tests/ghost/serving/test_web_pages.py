"""In a real browser: a page of another origin neither reads nor stops anything here, nor does one with a rebound name.

A rebound name is one that its owner lets resolve to this machine once the page is loaded. The browser then takes the
page and our server for one origin, so what the page may do is shown from any document of that name and port.
"""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from benchmarks.pictures import browser
from tests.ghost.serving.cog_server import ASYNC, wait_until
from tests.ghost.serving.test_door import Canned, served
from tests.ghost.serving.test_openai_api import Fake
from tests.ghost.serving.test_openai_api import served as openai_served

program = browser.found()
pytestmark = pytest.mark.skipif(program is None, reason="no Chromium or Chrome on PATH, nor in BROWSER")

PAGE = b"<!doctype html><title>elsewhere</title><body>zebracorn"
# Each as a page can send it: readable if it may, blind if not, and by a form.
TRY = """window.found = null; (async () => {
  const found = [], body = JSON.stringify({input: {prompt: 'hey'}, messages: [{role: 'user', content: 'hey'}]});
  for (const [method, url] of %s) for (const mode of ['cors', 'no-cors', 'same-origin'])
    for (const type of ['application/json', 'text/plain']) {
      const sent = method === 'GET' ? {} : {body, headers: {'Content-Type': type}};
      try {
        const answer = await fetch(url, {method, mode, signal: AbortSignal.timeout(3000), ...sent});
        found.push([answer.status, await answer.text()]);
      } catch (error) { found.push([0, '']); }
    }
  for (const [method, url] of %s) if (method === 'POST') {
    const frame = document.createElement('iframe'), form = document.createElement('form');
    frame.name = form.target = 'f' + url;
    Object.assign(form, {method: 'POST', action: url, enctype: 'text/plain'});
    document.body.append(frame, form);
    form.submit();
    await new Promise(done => setTimeout(done, 200));
  }
  window.found = found;
})()"""


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[Canned]:
    """Somebody's site: its page, whatever is asked, open to every origin."""
    head = (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nAccess-Control-Allow-Origin: *\r\nContent-Length: %d\r\n\r\n%s"
    )
    with Canned(head % (len(PAGE), PAGE)) as server:
        yield server
        server.shutdown()


@pytest.fixture(scope="module")
def page() -> Iterator[browser.Browser]:
    assert program is not None
    rules = "--host-resolver-rules=MAP site.example 127.0.0.1, MAP rebound.example 127.0.0.1"
    with browser.browser(program, rules, "--no-proxy-server") as opened:
        yield opened


def tried(page: browser.Browser, at: str, base: str, asked: list[tuple[str, str]]) -> list[list[Any]]:
    """(status, text) of each attempt of a page at `at`."""
    page.visit(at, width=400, scheme="light")
    urls = json.dumps([(method, path if path.startswith("http") else base + path) for method, path in asked])
    page.ask(TRY % (urls, urls))
    return list(page.wait("window.found"))


def nothing_is_read(page: browser.Browser, elsewhere: Canned, port: int, asked: list[tuple[str, str]]) -> None:
    """Neither by a page of another port, nor of another name, nor of a name that leads here."""
    foreign = elsewhere.server_address[1]
    for at, base in (
        (f"http://127.0.0.1:{foreign}/", f"http://127.0.0.1:{port}"),
        (f"http://site.example:{foreign}/", f"http://127.0.0.1:{port}"),
        (f"http://site.example:{foreign}/", f"http://rebound.example:{port}"),
        (f"http://rebound.example:{port}/", f"http://rebound.example:{port}"),
        (f"http://rebound.example:{port}/", f"http://localhost:{port}"),
    ):
        found = tried(page, at, base, asked)
        assert {status for status, _ in found} <= {0, 403}, (at, base)
        rebound = tried(page, at, f"http://127.0.0.1:{foreign}", [("GET", "/")])
        assert [200, PAGE.decode()] in rebound, "the page itself works"


def test_cogs_api(page: browser.Browser, elsewhere: Canned, tiny_merged: Path, tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    with served(tiny_merged, tmp_path, log=log) as (server, http):
        private = f"http://{server.door.host}:{server.door.port}"
        long = http.put("/predictions/long", json={"input": {"prompt": "a " * 20_000}}, headers=ASYNC)
        assert long.status_code == 202
        gets = [("GET", path) for path in ("/", "/health-check", "/openapi.json", f"{private}/health-check")]
        posts = [("POST", path) for path in ("/predictions", "/predictions/long/cancel", "/shutdown")]
        around = [("POST", f"{private}{path}") for _, path in posts]
        nothing_is_read(page, elsewhere, int(server.url.rpartition(":")[2]), [*gets, *posts, *around])
        assert http.get("/health-check").json()["status"] == "BUSY"
        assert httpx2.get(f"{private}/health-check", trust_env=False).json()["status"] == "BUSY"
        assert http.post("/predictions/long/cancel").status_code == 200
        wait_until(http, "READY")
        assert set(re.findall(r'"prediction_id":"([^"]*)"', log.read_text())) == {"long"}


def test_openais_api(page: browser.Browser, elsewhere: Canned) -> None:
    backend = Fake()
    with openai_served(backend) as http:
        asked = [("GET", "/v1/models"), ("POST", "/v1/chat/completions"), ("POST", "/v1/completions")]
        nothing_is_read(page, elsewhere, http.base_url.port or 0, asked)
    assert not backend.asked


def test_the_page_of_a_conversation(page: browser.Browser, elsewhere: Canned, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.ghost.serving.chat.page", str(tmp_path / "log.jsonl")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(browser.__file__).parents[2])
    try:
        assert process.stdout
        url = re.search(r"http://127\.0\.0\.1:(\d+)/", process.stdout.readline())
        assert url
        assert httpx2.get(url[0], trust_env=False).status_code == 200
        asked = [
            ("GET", path) for path in ("/", "/config", "/gradio_api/info", "/gradio_api/queue/data?session_hash=a")
        ]
        asked += [
            ("POST", path) for path in ("/gradio_api/queue/join", "/gradio_api/run/predict", "/gradio_api/cancel")
        ]
        nothing_is_read(page, elsewhere, int(url[1]), asked)
    finally:
        process.kill()
        process.communicate()
