"""`kill -9` of the API at any moment: what was acknowledged is there, once; what is asked again is told the same."""

from __future__ import annotations

import http.client
import json
import random
import threading
import time
from collections import Counter
from typing import Any

from harness.deployment import Deployment

KEY = "bootstrap-key-of-the-test-long-enough"
WORKERS = 6
KILLS = 4
TOLD_WITHIN_S = 90


class Client:
    """Creates receivers one after the other, each with a key of its own, and asks until it is told."""

    def __init__(self, number: int, port: int, stopping: threading.Event) -> None:
        self._number = number
        self._port = port
        self._stopping = stopping
        self._random = random.Random(number)
        self.told: dict[str, dict[str, Any]] = {}
        self.retried = self.replayed = 0
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            sent = 0
            while not self._stopping.is_set():
                sent += 1
                self._create(f"receiver {self._number}-{sent}")
        except BaseException as error:
            self.failure = error

    def _create(self, name: str) -> None:
        query = (
            f'mutation {{ createWebhookReceiver(input: {{name: "{name}", webhookUri: "https://93.184.216.34/"}}) '
            "{ webhookReceiver { id sharedSecret } } }"
        )
        answers = set[str]()
        # Now and then asked once more after it was told: the answer must be the same, also across a kill.
        while not answers or self._random.random() < 0.2:
            answers.add(self._asked(name, json.dumps({"query": query})))
        (answer,) = answers
        self.told[name] = json.loads(answer)["data"]["createWebhookReceiver"]["webhookReceiver"]

    def _asked(self, key: str, body: str) -> str:
        headers = {"authorization": KEY, "content-type": "application/json", "idempotency-key": key.replace(" ", "-")}
        deadline = time.monotonic() + TOLD_WITHIN_S
        seen = "nothing"
        while time.monotonic() < deadline:
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
            try:
                connection.request("POST", "/graphql", body, headers)
                response = connection.getresponse()
                seen = response.read().decode()
                if response.status == 200 and "errors" not in json.loads(seen):
                    self.replayed += response.headers["idempotency-replayed"] == "true"
                    return seen
            except (OSError, http.client.HTTPException) as error:
                seen = repr(error)
            finally:
                connection.close()
            self.retried += 1
            time.sleep(0.02)
        raise AssertionError(f"not told within {TOLD_WITHIN_S} s, lastly: {seen}")


def test_a_killed_api_loses_nothing_that_it_acknowledged_and_does_nothing_twice(deployment: Deployment) -> None:
    settings = {
        "CLARION_BOOTSTRAP_API_KEY": KEY,
        "CLARION_LISTEN": "127.0.0.1:0",
        "CLARION_API_POINTS_PER_SECOND": "1000000",
        "CLARION_API_POINTS_BURST": "1000000",
    }
    api = deployment.serve("--role", "api", **settings)
    port = int(api.wait_for_line(r"ready on http://127\.0\.0\.1:(\d+)")[1])
    settings["CLARION_LISTEN"] = f"127.0.0.1:{port}"
    stopping = threading.Event()
    clients = [Client(number, port, stopping) for number in range(WORKERS)]
    threads = [threading.Thread(target=client.run, daemon=True) for client in clients]
    moments = random.Random(2026)
    try:
        for thread in threads:
            thread.start()
        for _ in range(KILLS):
            time.sleep(moments.uniform(0.3, 1.5))
            api.kill()
            api = deployment.serve("--role", "api", **settings)
        time.sleep(0.5)
    finally:
        stopping.set()
    for thread in threads:
        thread.join(TOLD_WITHIN_S)
    for client in clients:
        if client.failure is not None:
            raise client.failure
    told = {name: answer for client in clients for name, answer in client.told.items()}
    rows = deployment.rows("SELECT name, id FROM clarion.receivers")
    created = Counter(name for name, _ in rows)
    assert [name for name in told if created[name] == 0] == [], "acknowledged, and lost"
    assert [name for name, count in created.items() if count > 1] == [], "done twice"
    assert {name: str(id_) for name, id_ in rows} == {name: answer["id"] for name, answer in told.items()}
    history = "SELECT count(*) FROM clarion.history WHERE object_type = 'WebhookReceiver' AND action = 'CREATE'"
    assert deployment.rows(history) == [(len(told),)]
    assert min(sum(client.retried for client in clients), sum(client.replayed for client in clients)) > 0
    print(
        f"{len(told)} acknowledged, {sum(client.retried for client in clients)} sent again, "
        f"{sum(client.replayed for client in clients)} told again, {KILLS} kills"
    )
