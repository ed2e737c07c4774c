from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

from clarion.core.settings import Settings
from harness.process import ClarionProcess

REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "settings.md"


def test_reference_documents_every_setting_with_default_and_meaning() -> None:
    rows = re.findall(r"^\| `(CLARION_\w+)` \| (.*?) \| (.*?) \|$", REFERENCE.read_text(), re.MULTILINE)
    expected = []
    for name, field in Settings.model_fields.items():
        default = "" if field.default in (None, ()) else f"`{field.default}`"
        expected.append((f"CLARION_{name.upper()}", default, field.description))
    assert rows == expected


def test_secrets_are_named_but_never_shown(clarion_process: Callable[..., ClarionProcess]) -> None:
    secrets = {
        "CLARION_DATABASE_URL": "postgresql://user:hunter2hunter2@host/db",
        "CLARION_BOOTSTRAP_API_KEY": "k" * 40,
    }
    for arguments in (["settings"], ["settings", "--json"]):
        shown = clarion_process(*arguments, **secrets).wait()
        assert shown.code == 0, shown.stderr
        assert shown.stdout.count("(set, not shown)") == 2
        assert not any(text in shown.stdout + shown.stderr for text in ("hunter2", "kkkk"))


def test_json_lists_every_setting_with_its_origin(clarion_process: Callable[..., ClarionProcess]) -> None:
    shown = clarion_process("settings", "--json", CLARION_ALLOWED_NETWORKS="127.0.0.0/8,::1/128").wait()
    rows = {row["name"]: row for row in json.loads(shown.stdout)}
    assert set(rows) == {f"CLARION_{name.upper()}" for name in Settings.model_fields}
    assert rows["CLARION_ALLOWED_NETWORKS"]["value"] == ["127.0.0.0/8", "::1/128"]
    assert rows["CLARION_ALLOWED_NETWORKS"]["from"] == "environment"
    assert rows["CLARION_LISTEN"]["from"] == "default"


def test_unusable_setting_is_named_with_what_is_wrong(clarion_process: Callable[..., ClarionProcess]) -> None:
    for name, value, reason in (
        ("CLARION_LISTEN", "8400", "host:port"),
        ("CLARION_BOOTSTRAP_API_KEY", "short", "at least 32 characters"),
        ("CLARION_ALLOWED_NETWORKS", "10.0.0.1/8", "host bits"),
        ("CLARION_LOG_LEVEL", "LOUD", "DEBUG, INFO, WARNING or ERROR"),
    ):
        refused = clarion_process("migrate", **{name: value}).wait()
        assert refused.code == 2
        assert refused.stderr.startswith(f"clarion: {name}: ")
        assert reason in refused.stderr
        assert value not in refused.stderr.splitlines()[0].replace(name, "") or name != "CLARION_BOOTSTRAP_API_KEY"
        assert not refused.stdout
