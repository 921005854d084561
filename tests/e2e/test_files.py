"""The page's files in a browser: they fit together, obey a strict policy and name every control."""

from __future__ import annotations

import json
from pathlib import Path

from playwright.sync_api import Page, Route

from benchmarks.server_process import ServerProcess, free_port
from tests.e2e.conftest import FAKE, OpenPage
from tests.e2e.live import default_portrait, sessions, wait_live, wait_until

STRICT = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';"
    " img-src 'self' blob: data:; media-src 'self' blob:; form-action 'none'; base-uri 'none'"
)
LINKS = """async () => {
  const links = [...document.querySelectorAll("[href], [src]")].map((e) => e.href || e.src);
  const answers = await Promise.all(links.map((url) => fetch(url)));
  return answers.map((answer) => [answer.url, answer.status]);
}"""
POST_AS_ANY_PAGE_CAN = """async ({ url, sdp, kind, mode }) => {
  const headers = kind ? { "Content-Type": kind } : {};
  const body = JSON.stringify({ sdp, type: "offer" });
  try {
    const answer = await fetch(`${url}/api/offer`, { method: "POST", mode, headers, body });
    return answer.status;
  } catch (error) {
    return error.name;
  }
}"""
AN_OFFER = """async () => {
  const pc = new RTCPeerConnection();
  pc.addTransceiver("video", { direction: "recvonly" });
  pc.addTransceiver("audio", { direction: "recvonly" });
  await pc.setLocalDescription();
  return pc.localDescription.sdp;
}"""
EXPECTED = r"Failed to load resource|blocked by CORS policy|net::ERR_"


def use_everything(page: Page, portrait: bytes) -> None:
    """Touch what has code of its own: microphone, figures, words, the chooser and an upload."""
    page.get_by_role("button", name="Talk", exact=True).click()
    page.get_by_role("button", name="Mute", exact=True).click()
    page.get_by_role("button", name="Stop talking").click()
    page.click("summary")
    page.get_by_role("button", name="Smile", exact=True).click()
    page.get_by_role("button", name="Portrait", exact=True).click()
    page.get_by_role("dialog", name="Choose a portrait").wait_for()
    picture = {"name": "me.jpg", "mimeType": "image/jpeg", "buffer": portrait}
    page.locator("#picture-input").set_input_files(picture)
    page.get_by_role("dialog").wait_for(state="hidden")
    wait_live(page)


def test_the_page_works_under_a_strict_content_policy(
    server: ServerProcess, open_page: OpenPage
) -> None:
    page = open_page("about:blank")

    def with_policy(route: Route) -> None:
        answer = route.fetch()
        headers = {**answer.headers, "Content-Security-Policy": STRICT}
        route.fulfill(response=answer, headers=headers)

    page.route(f"{server.url}/", with_policy)
    page.goto(server.url)
    wait_live(page)
    use_everything(page, default_portrait(server))


def test_every_link_of_the_page_leads_somewhere(server: ServerProcess, open_page: OpenPage) -> None:
    page = open_page(server.url)
    wait_live(page)
    answers = page.evaluate(LINKS)
    assert len(answers) >= 3
    assert [answer for answer in answers if answer[1] != 200] == []


def test_every_control_has_a_name_for_screen_readers(
    server: ServerProcess, open_page: OpenPage
) -> None:
    page = open_page(server.url)
    wait_live(page)
    page.evaluate("document.querySelectorAll('[hidden]').forEach((e) => { e.hidden = false; })")
    page.evaluate("document.getElementById('notice-action').textContent = 'Try again'")
    page.get_by_role("button", name="Portrait", exact=True).focus()
    tree = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")
    named = {}
    for node in tree["nodes"]:
        role = node.get("role", {}).get("value")
        if role in ("button", "textbox") and not node.get("ignored"):
            named[node["nodeId"]] = node.get("name", {}).get("value", "")
    assert len(named) >= 15
    assert [name for name in named.values() if len(name.strip("×–· ")) < 2] == []


def test_another_page_cannot_post_to_the_server(server: ServerProcess, open_page: OpenPage) -> None:
    page = open_page(f"http://localhost:{server.port}/healthz", allow=EXPECTED)
    wait_until(page, "earlier sessions are gone", lambda: sessions(server) == 0, 30)
    asked = {"url": server.url, "sdp": page.evaluate(AN_OFFER)}  # 127.0.0.1: another origin
    for kind in ("", "text/plain"):
        page.evaluate(POST_AS_ANY_PAGE_CAN, {**asked, "kind": kind, "mode": "no-cors"})
    json_offer = {**asked, "kind": "application/json", "mode": "cors"}
    assert page.evaluate(POST_AS_ANY_PAGE_CAN, json_offer) == "TypeError"
    assert sessions(server) == 0
    own = {**json_offer, "url": f"http://localhost:{server.port}"}
    assert page.evaluate(POST_AS_ANY_PAGE_CAN, own) == 200


def test_a_page_that_is_allowed_can(tmp_path: Path, open_page: OpenPage) -> None:
    port = free_port()
    args = ("--allow-origin", f"http://localhost:{port}")
    with ServerProcess(tmp_path / "log.txt", FAKE, args, port=port) as allowing:
        page = open_page(f"http://localhost:{port}/healthz", allow=EXPECTED)
        asked = {"url": allowing.url, "sdp": page.evaluate(AN_OFFER)}
        asked |= {"kind": "application/json", "mode": "cors"}
        assert page.evaluate(POST_AS_ANY_PAGE_CAN, asked) == 200
        assert json.loads(page.inner_text("body"))["status"] == "ok"
