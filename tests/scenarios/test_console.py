"""The console in a real browser: an operator and a user, each at a window of their own."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.scenarios.faces import Place, Server

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = ("--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-sync")
SHOTS = os.environ.get("ROADWORTHY_TEST_SHOTS")  # a folder: screenshots to look at
DESK = '''
from pathlib import Path
from typing import Literal
from roadworthy import Agent, Runtime, ToolCall, tool
from roadworthy.escalation import Inbox
from roadworthy.testing import ScriptedModel

folder = Path(__file__).parent

@tool(effect="read")
def find_invoice(invoice: str) -> str:
    """One invoice. invoice: such as INV-8841."""
    return f"{invoice}: charged twice, 412 euros each"

@tool(approval="operator")
def refund(invoice: str, euros: int, reason: str = "") -> str:
    """Pay an invoice back. invoice: such as INV-8841. euros: how much. reason: for the books."""
    with (folder / "bank.txt").open("a") as bank:
        bank.write(f"{invoice} {euros} {reason}\\n")
    return f"refunded {euros} euros"

@tool(approval="user")
def close_account(account: str) -> str:
    """Close an account. account: its number."""
    return f"closed {account}"

pay = ToolCall("refund", {"invoice": "INV-8841", "euros": 412, "reason": "double <b>charge</b>"})
billing = Agent(
    "billing",
    model=ScriptedModel([
        ["Let me look at it. ", ToolCall("find_invoice", {"invoice": "INV-8841"})],
        ["You were charged twice, I arrange the refund. ", pay],
        "All done: the money is on its way.",
    ]),
    tools=[find_invoice, refund],
)
closer = Agent(
    "closer",
    model=ScriptedModel([ToolCall("close_account", {"account": "17"}), "It is closed."]),
    tools=[close_account],
)
asking = {"question": "Which colour?", "choices": ["Red", "Blue"]}
asker = Agent("asker", model=ScriptedModel([ToolCall("ask_user", asking), "Blue it is."]))
rt = Runtime(f"sqlite:///{folder}/t.db", patterns=[billing, closer, asker], inbox=Inbox())
'''


@pytest.fixture
def place(tmp_path: Path) -> Place:
    made = Place(tmp_path)
    made.desk.write_text(DESK, encoding="utf-8")
    return made


@pytest.fixture
def server(place: Place) -> Iterator[Server]:
    served = Server(place)
    yield served
    served.close()


@pytest.fixture
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=CHROMIUM, args=list(FLAGS), chromium_sandbox=False
        )
        yield started
        started.close()


class Window:
    """A window of its own, which remembers what it asked for and complained of."""

    def __init__(self, browser: Browser, server: Server, *, phone: bool = False) -> None:
        size = {"width": 390, "height": 844} if phone else {"width": 1440, "height": 900}
        context = browser.new_context(
            base_url=server.url,
            viewport=size,  # type: ignore[arg-type]
            has_touch=phone,
            is_mobile=phone,
        )
        self.page: Page = context.new_page()
        self.page.set_default_timeout(15_000)
        self.asked: list[str] = []
        self.complaints: list[str] = []
        self._home = server.url
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def sign_in(self, name: str) -> None:
        """Say who one is."""
        self.page.goto("/")
        self.page.get_by_label("Your name").fill(name)
        self.page.get_by_role("button", name="Go on").click()
        self.page.wait_for_url("**/inbox")
        expect(self.page.locator("#live")).to_have_text("live")

    def shot(self, name: str) -> None:
        """A picture, where somebody wants to look."""
        if SHOTS:
            self.page.screenshot(path=f"{SHOTS}/{name}.png")

    def fine(self) -> None:
        """Nothing was asked of another server, and nothing went wrong."""
        assert [url for url in self.asked if not url.startswith(self._home)] == []
        assert self.complaints == []


@pytest.mark.requirement("HIT-1", "HIT-2", "HIT-3")
def test_an_operator_helps_and_the_user_sees_no_seam(
    place: Place, server: Server, browser: Browser
) -> None:
    lea, ana = Window(browser, server), Window(browser, server)
    lea.sign_in("Lea")
    expect(lea.page.get_by_text("Nobody waits")).to_be_visible()
    ana.page.goto("/chat/billing")
    write(ana.page, "I was charged twice for INV-8841.")
    finds_the_case_and_reads_why(lea)
    takes_over_and_talks(lea.page, ana.page)
    edits_and_approves(lea)
    hands_back(lea.page)
    expect(ana.page.locator(".lines .assistant").last).to_contain_text("All done")
    assert (place.folder / "bank.txt").read_text() == "INV-8841 40 double <b>charge</b>\n"
    expect(lea.page.locator(".talk-pane")).to_contain_text("Resolved")
    lea.page.get_by_role("link", name="Resolved").click()
    expect(lea.page.locator(".queue a")).to_have_count(1)
    lea.shot("4-resolved")
    ana.shot("5-chat")
    shows_no_seam(ana.page)
    lea.fine()
    ana.fine()


def write(page: Page, text: str) -> None:
    """A user's message."""
    box = page.get_by_label("Your message")
    box.fill(text)
    box.press("Enter")


def finds_the_case_and_reads_why(lea: Window) -> None:
    """The queue shows it by itself; the keyboard alone opens it."""
    expect(lea.page.locator(".queue a")).to_have_count(1)
    expect(lea.page).to_have_title("(1) Inbox · Roadworthy")
    lea.shot("1-queue")
    lea.page.keyboard.press("j")
    lea.page.keyboard.press("Enter")
    why = lea.page.get_by_role("region", name="Why it is here")
    pending = why.locator(".pending")
    expect(pending).to_contain_text("May this happen?")
    expect(pending.locator("dl")).to_contain_text("double <b>charge</b>")
    expect(why.locator(".tried")).to_contain_text("charged twice, 412 euros each")
    expect(lea.page.locator(".lines .user")).to_contain_text("I was charged twice for INV-8841.")
    assert "{" not in lea.page.locator("main").inner_text()
    lea.shot("2-case")


def takes_over_and_talks(lea: Page, ana: Page) -> None:
    """What the user writes meanwhile arrives while a reply is being written."""
    lea.keyboard.press("o")
    expect(lea.locator("#state")).to_have_text("you speak")
    lea.keyboard.press("r")
    lea.keyboard.type("Hello, I see the double charge.")
    lea.keyboard.press("Control+Enter")
    said = ana.locator(".lines .assistant", has_text="Hello, I see the double charge.")
    expect(said).to_be_visible()
    reply = lea.get_by_label("Reply to")
    reply.fill("half a sen")
    write(ana, "Thank you! Only 40 euros are wrong.")
    expect(lea.locator(".lines .user", has_text="Only 40 euros are wrong.")).to_be_visible()
    expect(reply).to_have_value("half a sen")
    reply.fill("")
    lea.keyboard.press("Escape")


def edits_and_approves(lea: Window) -> None:
    """A wrong edit is said in words, and keeps what was typed."""
    pending = lea.page.locator(".pending")
    approve = lea.page.get_by_role("button", name="Approve as edited")
    lea.page.keyboard.press("e")
    pending.get_by_label("Euros").fill("forty")
    approve.click()
    expect(lea.page.locator("#notice")).to_contain_text("'forty' is no whole number")
    assert [told for told in lea.complaints if "422" not in told] == []
    lea.complaints.clear()  # a browser remarks on every refusal
    pending.get_by_label("Euros").fill("40")
    lea.shot("3-edit")
    approve.click()
    expect(pending).to_have_count(0)


def hands_back(lea: Page) -> None:
    """With a word for the agent."""
    lea.locator("h2").first.click()
    lea.keyboard.press("b")
    lea.keyboard.type("Say goodbye.")
    lea.keyboard.press("Control+Enter")


def shows_no_seam(ana: Page) -> None:
    """One sender, no word about who writes, and the same after a reload."""
    shown = ana.locator("body").inner_text().lower()
    assert not any(word in shown for word in ("lea", "operator", "takeover", "hand", "person"))
    looks = {
        item.evaluate("e => [e.className, getComputedStyle(e).backgroundColor].join()")
        for item in ana.locator(".lines li:not(.user)").all()
    }
    assert len(looks) == 1
    lines = ana.locator(".lines").inner_text()
    ana.reload()
    expect(ana.locator(".lines li").last).to_contain_text("All done")
    assert ana.locator(".lines").inner_text() == lines


def test_the_user_is_asked_and_says_yes(server: Server, browser: Browser) -> None:
    ana = Window(browser, server)
    ana.page.goto("/chat/closer")
    write(ana.page, "Close my account.")
    asked = ana.page.get_by_role("group", name="What you are asked")
    expect(asked).to_contain_text("Close account?")
    expect(asked).to_contain_text("17")
    ana.shot("6-asked")
    ana.page.get_by_role("button", name="Yes").click()
    expect(ana.page.locator(".lines .assistant").last).to_contain_text("It is closed.")
    expect(asked).to_be_hidden()
    ana.fine()


def test_the_answers_that_a_question_offers_are_buttons(server: Server, browser: Browser) -> None:
    ana = Window(browser, server)
    ana.page.goto("/chat/asker")
    write(ana.page, "Paint it.")
    ana.page.get_by_role("button", name="Blue").click()
    expect(ana.page.locator(".lines .assistant").last).to_contain_text("Blue it is.")
    expect(ana.page.locator(".lines .user").last).to_have_text("Blue")
    ana.fine()


def test_the_inbox_on_a_phone_shows_one_step_at_a_time(server: Server, browser: Browser) -> None:
    ana, lea = Window(browser, server, phone=True), Window(browser, server, phone=True)
    ana.page.goto("/chat/billing")
    write(ana.page, "I was charged twice.")
    lea.sign_in("Lea")
    lea.shot("7-phone-queue")
    lea.page.locator(".queue a").click()
    talk = lea.page.get_by_role("region", name="Conversation")
    why = lea.page.get_by_role("region", name="Why it is here")
    expect(talk).to_be_visible()
    expect(why).to_be_hidden()
    lea.shot("8-phone-talk")
    lea.page.get_by_role("button", name="Why", exact=True).click()
    expect(why).to_be_visible()
    expect(talk).to_be_hidden()
    lea.shot("9-phone-why")
    expect(ana.page.locator(".lines li")).to_have_text(["I was charged twice."])
    lea.page.get_by_role("button", name="Approve").click()
    expect(ana.page.locator(".lines .assistant").last).to_contain_text("All done")
    for window in (ana, lea):
        assert window.page.evaluate("document.documentElement.scrollWidth") <= 390
        window.fine()


def test_light_and_dark_are_remembered_and_the_live_dot_comes_back(
    place: Place, server: Server, browser: Browser
) -> None:
    lea = Window(browser, server)
    lea.sign_in("Lea")
    paper = "getComputedStyle(document.body).backgroundColor"
    light = lea.page.evaluate(paper)
    lea.page.keyboard.press("t")
    lea.page.keyboard.press("t")
    assert lea.page.evaluate(paper) != light
    dark = lea.page.evaluate(paper)
    lea.page.goto("/runs")
    assert lea.page.evaluate(paper) == dark
    lea.page.keyboard.press("?")
    expect(lea.page.get_by_role("dialog")).to_contain_text("light or dark")
    lea.shot("10-dark-help")
    lea.page.keyboard.press("Escape")
    expect(lea.page.locator("#live")).to_have_text("live")
    port = server.url.rstrip("/").rpartition(":")[2]
    server.close()
    expect(lea.page.locator("#live")).to_have_text("connecting")
    again = Server(place, port=port)
    try:
        expect(lea.page.locator("#live")).to_have_text("live", timeout=20_000)
    finally:
        again.close()


def test_the_browser_tells_of_a_case_that_nobody_sees(server: Server, browser: Browser) -> None:
    lea, ana = Window(browser, server), Window(browser, server)
    lea.page.add_init_script(
        """window.told = [];
        window.Notification = class { constructor(title) { told.push(title); } };
        Notification.permission = "granted";
        Object.defineProperty(document, "hidden", { get: () => window.away === true });"""
    )
    lea.sign_in("Lea")
    expect(lea.page.locator("#badge")).to_have_attribute("data-have", re.compile(r"\w{16}"))
    ana.page.goto("/chat/billing")
    write(ana.page, "I was charged twice.")
    expect(lea.page.locator("#badge")).to_have_text("1")
    assert lea.page.evaluate("told") == []  # she sees it
    lea.page.evaluate("window.away = true")
    ana.page.get_by_role("link", name="New chat").click()
    write(ana.page, "And again.")
    expect(lea.page.locator("#badge")).to_have_text("2")
    assert lea.page.evaluate("told") == ["Somebody needs a person"]


AUDIT = """() => {
  const found = [], seen = new Set(), pen = document.createElement("canvas").getContext("2d");
  const shown = e => e.checkVisibility({ visibilityProperty: true, opacityProperty: true });
  const where = e => e.tagName.toLowerCase() + (e.id ? "#" + e.id : "") + "." + e.className;
  const paint = colour => {
    pen.clearRect(0, 0, 1, 1); pen.fillStyle = colour; pen.fillRect(0, 0, 1, 1);
    return pen.getImageData(0, 0, 1, 1).data;
  };
  const under = e => {
    for (let at = e; at; at = at.parentElement) {
      const [r, g, b, a] = paint(getComputedStyle(at).backgroundColor);
      if (a > 250) return [r, g, b];
    }
    return [255, 255, 255];
  };
  const light = rgb => {
    const [r, g, b] = [...rgb].map(v => v / 255)
      .map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
    return .2126 * r + .7152 * g + .0722 * b;
  };
  for (const e of document.querySelectorAll("[id]")) {
    if (seen.has(e.id)) found.push("id twice: " + e.id);
    seen.add(e.id);
  }
  const controls = "button, a[href], input:not([type=hidden]), select, textarea, summary";
  for (const e of document.querySelectorAll(controls)) {
    const name = e.getAttribute("aria-label") || e.labels?.[0]?.textContent || e.textContent;
    if (shown(e) && !name.trim()) found.push("no name: " + where(e));
  }
  for (const e of document.body.querySelectorAll("*")) {
    const own = [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim());
    if (!own || !shown(e) || e.closest("[disabled], .sr, .skip, option")) continue;
    const style = getComputedStyle(e), size = parseFloat(style.fontSize);
    if (!size) continue;
    const [a, b] = [light(paint(style.color)), light(under(e))].sort((x, y) => y - x);
    const ratio = (a + .05) / (b + .05);
    if (ratio < (size >= 24 ? 3 : 4.5)) found.push(ratio.toFixed(2) + ": " + where(e));
  }
  for (const need of ["title", "main", "h1, h2", "html[lang]"])
    if (!document.querySelector(need)) found.push("no " + need);
  return found;
}"""


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_page_can_be_read_and_operated(
    server: Server, browser: Browser, theme: Literal["light", "dark"]
) -> None:
    ana, lea = Window(browser, server), Window(browser, server)
    faults: dict[str, list[str]] = {}
    for window in (ana, lea):
        window.page.emulate_media(color_scheme=theme)
    lea.page.goto("/console/sign-in")
    faults["sign-in"] = lea.page.evaluate(AUDIT)
    lea.sign_in("Lea")
    ana.page.goto("/chat/closer")
    write(ana.page, "Close my account.")
    expect(ana.page.get_by_role("button", name="Yes")).to_be_visible()
    faults["chat"] = ana.page.evaluate(AUDIT)
    ana.page.goto("/chat/billing")
    write(ana.page, "I was charged twice.")
    lea.page.locator(".queue a").click()
    expect(lea.page.locator(".pending")).to_be_visible()
    faults["case"] = lea.page.evaluate(AUDIT)
    for key in ("e", "n"):
        lea.page.locator("h2").first.click()
        lea.page.keyboard.press(key)
    for more in lea.page.locator(".use summary").all():
        more.click()
    faults["forms"] = lea.page.evaluate(AUDIT)
    lea.page.goto("/runs")
    expect(lea.page.locator("tbody tr")).to_have_count(2)
    faults["runs"] = lea.page.evaluate(AUDIT)
    lea.page.locator("tbody a").first.click()
    lea.page.locator(".step summary").first.click()
    faults["run"] = lea.page.evaluate(AUDIT)
    assert {page: found for page, found in faults.items() if found} == {}


def test_the_audit_finds_what_it_looks_for(browser: Browser) -> None:
    page = browser.new_page()
    page.set_content('<p id="a" style="color:#999">pale</p><button id="a"></button>')
    found = page.evaluate(AUDIT)
    assert "id twice: a" in found
    assert "no name: button#a." in found
    assert any(fault.endswith(": p#a.") and fault < "4.5" for fault in found)
    assert {"no main", "no h1, h2", "no html[lang]"} <= set(found)
