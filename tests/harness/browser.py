"""Debian's Chromium, driven by Playwright, with a record of all that a page asked for and complained about."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlsplit

from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, sync_playwright

CHROMIUM = "/usr/bin/chromium"
WAIT_MS = 15_000
WIDE = (1440, 860)
NARROW = (390, 800)


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser of its own profile; Debian's package `chromium` must be installed."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM)
        try:
            yield browser
        finally:
            browser.close()


@dataclass(slots=True)
class Explorer:
    """One visit to the explorer. `requested` has the address of each request, `complaints` what went wrong in the page."""

    page: Page
    address: str
    requested: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("request", lambda request: self.requested.append(request.url))
        self.page.on("console", lambda message: self._heard(message))  # noqa: PLW0108 - a slotted object takes no other
        # The editor (Monaco) cancels what it was about to do when it is taken away, and nobody catches that.
        self.page.on(
            "pageerror", lambda error: error.name == "Canceled" or self.complaints.append(f"{error}\n{error.stack}")
        )

    def _heard(self, message: ConsoleMessage) -> None:
        # The browser writes an error of its own for each answer that is no success; a wrong key gets one.
        if message.type in {"error", "warning"} and "status of 401" not in message.text:
            self.complaints.append(message.text)

    @property
    def foreign(self) -> list[str]:
        """Requests that left for another host than the API's, or had no host."""
        own = urlsplit(self.address).netloc
        return [url for url in self.requested if urlsplit(url).netloc != own]

    def visit(self) -> None:
        self.page.goto(self.address)
        self.page.get_by_label("API key").wait_for()

    def enter(self, key: str) -> None:
        """Type the key and open the explorer; it is ready when completion knows the schema."""
        self.page.get_by_label("API key").fill(key)
        self.page.get_by_role("button", name="Open the explorer").click()
        self.ready()

    def ready(self) -> None:
        self.page.locator(".graphiql-query-editor .monaco-editor .view-line").first.wait_for()
        self.page.locator("button[aria-label^='Re-fetch GraphQL schema']:not([disabled])").wait_for()

    def text(self, editor: Literal["operation.graphql", "variables.json", "response.json"]) -> str:
        """What an editor holds, also what is scrolled out of sight."""
        return str(
            self.page.evaluate(
                "name => __MONACO.editor.getModels().find(model => model.uri.path.endsWith(name)).getValue()", editor
            )
        )

    def type_query(self, text: str) -> None:
        """Type into the query editor key by key, over what is there."""
        self.page.locator(".graphiql-query-editor .monaco-editor .view-lines").click()
        self.page.keyboard.press("Control+A")
        self.page.keyboard.press("Delete")
        self.page.keyboard.type(text, delay=15)

    def suggestion(self, name: str) -> Locator:
        """An entry of the completion list."""
        return self.page.locator(".suggest-widget .monaco-list-row").filter(
            has=self.page.locator(".label-name", has_text=re.compile(f"^{name}$"))
        )

    def run(self) -> Any:
        """Run what the editors hold with the button; the answer's JSON."""
        with self.page.expect_response(lambda response: response.request.method == "POST") as answered:
            self.page.get_by_role("button", name="Execute query").click()
        return answered.value.json()

    @property
    def result(self) -> Locator:
        """What is seen of the answer."""
        return self.page.get_by_label("Result Window")

    @property
    def refusal(self) -> Locator:
        """What the page says about a key that was not taken."""
        return self.page.locator(".refused[role=alert]")

    def tab(self, title: str) -> Locator:
        """The tab with this title, whether or not it is the active one, which has a second button."""
        return self.page.get_by_role("tab").filter(has=self.page.get_by_role("button", name=title, exact=True))


@contextmanager
def visiting(
    browser: Browser,
    port: int,
    size: tuple[int, int] = WIDE,
    scheme: Literal["light", "dark"] = "light",
    scale: float = 1,
) -> Iterator[Explorer]:
    """The explorer of the API at this port in a fresh profile, opened and not yet entered."""
    width, height = size
    with browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=scheme, device_scale_factor=scale
    ) as context:
        context.set_default_timeout(WAIT_MS)
        explorer = Explorer(context.new_page(), f"http://127.0.0.1:{port}/graphql")
        explorer.visit()
        yield explorer
