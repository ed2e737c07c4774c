"""Clarion: webhooks that a system of record's integrators can rely on.

What an application calls is here: `publish`, and `acting` for who acts. Both are loaded when they are first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clarion.capture.acting import acting
    from clarion.capture.publish import PublishRefused, publish

__all__ = ["PublishRefused", "acting", "publish"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'clarion' has no attribute {name!r}")
    module = import_module("clarion.capture.acting" if name == "acting" else "clarion.capture.publish")
    return getattr(module, name)
