"""Takes the picture of the API explorer: `scripts/picture`."""

from __future__ import annotations

import json
import socket
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from harness.browser import Explorer, chromium, visiting
from harness.process import CLARION, ClarionProcess, clean_environment

PICTURE = Path(__file__).parents[2] / "docs" / "images" / "explorer.png"
KEY = "the-key-of-the-picture-and-of-nothing-else"
SIZE = (1440, 800)
SCALE = 1.25
BYTES_MAX = 300_000
EVENTS_MIN = 40
MADE_WITHIN_S = 60
QUERY = """query AuditTrail($filters: WebhookEventsInputFilters) {
  webhookEvents(filters: $filters, first: 3) {
    edges {
      node {
        id status
        resource action objectId
        receiver { name }
        attempts {
          outcome statusCode durationMs
        }
      }
    }
    pageInfo { totalCount }
  }
}"""
VARIABLES = """{
  "filters": {
    "status": {"eq": "DELIVERED"}
  }
}"""


def events_count(port: int) -> int:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/graphql",
        json.dumps({"query": "{ webhookEvents(first: 1) { pageInfo { totalCount } } }"}).encode(),
        {"content-type": "application/json", "authorization": f"Bearer {KEY}"},
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return int(json.load(answer)["data"]["webhookEvents"]["pageInfo"]["totalCount"])


def pose(explorer: Explorer) -> None:
    """A query that was just run, with its answer, and the examples beside it."""
    page = explorer.page
    page.get_by_role("button", name="Audit events and their attempts").click()
    page.evaluate(
        "([query, variables]) => { for (const model of __MONACO.editor.getModels()) {"
        " if (model.uri.path.endsWith('operation.graphql')) model.setValue(query);"
        " if (model.uri.path.endsWith('variables.json')) model.setValue(variables); } }",
        [QUERY, VARIABLES],
    )
    explorer.run()
    explorer.result.get_by_text("DELIVERED").first.wait_for()
    page.get_by_role("heading", name="Clarion").click()
    page.mouse.move(640, 5)
    # The button's tooltip fades.
    page.wait_for_timeout(1000)


def main() -> int:
    """Start the demo, wait until it has something to show, and take the picture; the exit code."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="clarion-picture-") as home:
        settings = {"CLARION_LISTEN": f"127.0.0.1:{port}", "CLARION_BOOTSTRAP_API_KEY": KEY}
        demo = ClarionProcess(
            [CLARION, "demo", "--rate", "10", "--json"], clean_environment(Path(home), **settings), Path(home)
        )
        try:
            demo.wait_for_line(r"\{", MADE_WITHIN_S)
            waited_until = time.monotonic() + MADE_WITHIN_S
            while events_count(port) < EVENTS_MIN:
                assert time.monotonic() < waited_until, demo.output()
                time.sleep(0.5)
            with chromium() as browser, visiting(browser, port, SIZE, "dark", SCALE) as explorer:
                explorer.enter(KEY)
                pose(explorer)
                PICTURE.parent.mkdir(exist_ok=True)
                explorer.page.screenshot(path=PICTURE)
        finally:
            demo.interrupt()
            demo.wait(30)
    size = PICTURE.stat().st_size
    print(f"{PICTURE}: {size} bytes")
    return 0 if size <= BYTES_MAX else 1


if __name__ == "__main__":
    sys.exit(main())
