"""What do signatures cost a request?

`python bench/signing.py [--requests N] [--body BYTES] [--runs N] [--json]`

Requests are made ready as the sender does it, head and body, without sending them; CPU time of this process. A
rotation adds an HMAC to v1; v1a is an Ed25519 signature.
"""

from __future__ import annotations

import os
import sys
import time
from math import inf

from figures import Figure, Figures, options

from clarion.sender.address import parse_webhook_uri
from clarion.sender.request import RequestTemplate, request_template
from clarion.sender.signing_key import SigningKey, public_key

NOW = 1_795_478_699
TARGET = parse_webhook_uri("https://hooks.example/hook")
SECRET, FORMER = b"k" * 32, b"o" * 32


def template(*signatures: str, until_s: int | None = None, keys: int = 0) -> RequestTemplate:
    seeds = [os.urandom(32) for _ in range(keys)]
    signing = tuple(SigningKey(seed, public_key(seed), 0, inf) for seed in seeds)
    former = None if until_s is None else (FORMER, until_s)
    return request_template(TARGET, "application/json", (), (SECRET,), signatures, former, signing)


def cost_us(made: RequestTemplate, requests: int, body: bytes) -> float:
    before = time.process_time()
    for number in range(requests):
        made.build(f"evt_abcdefgh_{number}", NOW, body, ())
    return (time.process_time() - before) / requests * 1e6


def main() -> int:
    parser = options(__doc__ or "", runs=5)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--body", type=int, default=1024)
    arguments = parser.parse_args()
    body = b"x" * arguments.body
    cases = {
        "v1": template("V1"),
        "v1, the former secret ended": template("V1", until_s=NOW),
        "v1 during a rotation": template("V1", until_s=NOW + 1),
        "v1a": template("V1A", keys=1),
        "v1a during a rotation": template("V1A", keys=2),
        "v1 and v1a": template("V1", "V1A", keys=1),
    }
    figures = Figures(*(Figure(name, "us/request") for name in cases))
    for _ in range(arguments.runs):
        for name, made in cases.items():
            figures[name].add(cost_us(made, arguments.requests, body))
    figures.show(
        as_json=arguments.json, notes=[f"bodies of {arguments.body} bytes, {arguments.requests} requests a run"]
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
