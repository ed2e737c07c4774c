from __future__ import annotations

import re
from pathlib import Path

from clarion.core.errors import Code

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/reference/errors.md").read_text()


def test_every_code_is_documented_and_no_other() -> None:
    api = "".join(module.read_text() for module in (ROOT / "src/clarion/api").glob("*.py"))
    before_graphql = set(re.findall(r'Refused\(\s*\d+,\s*"([A-Z_]+)"', api))
    assert before_graphql == {
        *("MALFORMED", "UNAUTHENTICATED", "TOO_LARGE", "INTERNAL"),
        *("IDEMPOTENCY_KEY_IN_USE", "IDEMPOTENCY_KEY_REUSED"),
    }
    documented = set(re.findall(r"^\| (?:[\d, ]+\| )?`([A-Z_]+)` \|", PAGE, re.MULTILINE))
    assert documented == set(Code) | before_graphql | {"NAME_NOT_RESOLVED"}
