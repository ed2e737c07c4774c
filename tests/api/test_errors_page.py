from __future__ import annotations

import re
from pathlib import Path

from clarion.core.errors import Code

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/reference/errors.md").read_text()


def test_every_code_is_documented_and_no_other() -> None:
    http = (ROOT / "src/clarion/api/http.py").read_text()
    before_graphql = set(re.findall(r'Refused\(\s*\d+, "([A-Z_]+)"', http))
    assert before_graphql == {"MALFORMED", "UNAUTHENTICATED", "TOO_LARGE", "INTERNAL"}
    documented = set(re.findall(r"^\| (?:[\d, ]+\| )?`([A-Z_]+)` \|", PAGE, re.MULTILINE))
    assert documented == set(Code) | before_graphql | {"NAME_NOT_RESOLVED"}
