"""What Microsoft Teams, Slack and Google Chat publish of the messages that their incoming webhooks take.

Each `…_faults` says what keeps a service from showing a message: a type, a missing or unknown member, a limit; nothing for a
message that it takes. Only elements that our templates may come to use are known, each with all its members; anything else
is a fault. Where a service counts characters, UTF-16 units are counted, of which there are never fewer.
`…_markup` gives the texts that the service reads as markup.

Sources: Microsoft's schema of adaptive cards 1.4 and its pages on text features and on incoming webhooks of Teams; Slack's
reference of Block Kit (blocks, text object) and of chat.postMessage; Google's discovery document of the Chat API v1.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import clarion

Check = Callable[[Any, str], Iterator[str]]
"""Given a value and where it stands, the faults that it has."""

TEAMS_BYTES_MAX = 28 * 1024
"""As UTF-16: posts of more than some 14,000 ASCII characters were answered with 413."""
GOOGLE_CHAT_BYTES_MAX = 32_000


def _text(least: int = 0, most: int | None = None) -> Check:
    def check(value: Any, where: str) -> Iterator[str]:
        if not isinstance(value, str):
            yield f"{where} is no text"
            return
        units = len(value.encode("utf-16-le")) // 2
        if units < least or (most is not None and units > most):
            yield f"{where} has {units} characters, not {least} to {most}"

    return check


def _one_of(*values: object, any_case: bool = False) -> Check:
    def check(value: Any, where: str) -> Iterator[str]:
        folded = value.lower() if any_case and isinstance(value, str) else value
        if not any(folded == one and type(folded) is type(one) for one in values):
            yield f"{where} is {value!r}, none of {values}"

    return check


_truth = _one_of(True, False)


def _whole(value: Any, where: str) -> Iterator[str]:
    if not isinstance(value, int) or isinstance(value, bool):
        yield f"{where} is no whole number"


def _list(of: Check, least: int = 0, most: int | None = None) -> Check:
    def check(value: Any, where: str) -> Iterator[str]:
        if not isinstance(value, list):
            yield f"{where} is no list"
            return
        if len(value) < least or (most is not None and len(value) > most):
            yield f"{where} has {len(value)} elements, not {least} to {most}"
        for number, one in enumerate(value):
            yield from of(one, f"{where}[{number}]")

    return check


def _object(required: Mapping[str, Check], optional: Mapping[str, Check] | None = None) -> Check:
    def check(value: Any, where: str) -> Iterator[str]:
        if not isinstance(value, dict):
            yield f"{where} is no object"
            return
        known = {**(optional or {}), **required}
        for name in required.keys() - value.keys():
            yield f"{where}.{name} is missing"
        for name, one in value.items():
            if name not in known:
                yield f"{where}.{name} is unknown"
            else:
                yield from known[name](one, f"{where}.{name}")

    return check


def _by_type(checks: Mapping[str, Check]) -> Check:
    """Objects whose member `type` says which of the checks holds."""

    def check(value: Any, where: str) -> Iterator[str]:
        kind = value.get("type") if isinstance(value, dict) else None
        if not isinstance(kind, str) or kind not in checks:
            yield f"{where} is of the unknown type {kind!r}"
            return
        yield from checks[kind]({name: one for name, one in value.items() if name != "type"}, where)

    return check


def _size(message: object) -> int:
    return len(json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode())


# ---------------------------------------------------------------- Microsoft Teams

_colour = _one_of("default", "dark", "light", "accent", "good", "warning", "attention", any_case=True)
_font_size = _one_of("default", "small", "medium", "large", "extralarge", any_case=True)
_weight = _one_of("default", "lighter", "bolder", any_case=True)
_font = _one_of("default", "monospace", any_case=True)
_alignment = _one_of("left", "center", "right", any_case=True)
_element: dict[str, Check] = {
    "id": _text(),
    "isVisible": _truth,
    "separator": _truth,
    "spacing": _one_of("default", "none", "small", "medium", "large", "extralarge", "padding", any_case=True),
    "height": _one_of("auto", "stretch", any_case=True),
}
_styled: dict[str, Check] = {
    "color": _colour,
    "fontType": _font,
    "isSubtle": _truth,
    "size": _font_size,
    "weight": _weight,
}
_run = _by_type(
    {
        "TextRun": _object(
            {"text": _text()},
            _styled | dict.fromkeys(("highlight", "italic", "strikethrough", "underline"), _truth),
        )
    }
)
_teams_element = _by_type(
    {
        "TextBlock": _object(
            {"text": _text(1)},
            _element | _styled | {"horizontalAlignment": _alignment, "maxLines": _whole, "wrap": _truth},
        ),
        "RichTextBlock": _object({"inlines": _list(_run, 1)}, _element | {"horizontalAlignment": _alignment}),
        "FactSet": _object({"facts": _list(_object({"title": _text(), "value": _text()}), 1)}, _element),
    }
)
_card = _object(
    {
        "type": _one_of("AdaptiveCard"),
        "version": _one_of("1.4"),
        "$schema": _one_of("http://adaptivecards.io/schemas/adaptive-card.json"),
        "body": _list(_teams_element, 1),
    },
    {"fallbackText": _text(), "speak": _text(), "lang": _text(2, 2), "minHeight": _text()},
)
_teams = _object(
    {
        "type": _one_of("message"),
        "attachments": _list(
            _object(
                {"contentType": _one_of("application/vnd.microsoft.card.adaptive"), "content": _card},
                {"contentUrl": _one_of(None)},
            ),
            1,
        ),
    }
)


def teams_faults(message: object) -> list[str]:
    """See the module."""
    faults = list(_teams(message, "message"))
    size = len(json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode("utf-16-le"))
    if size > TEAMS_BYTES_MAX:
        faults.append(f"the message has {size} bytes, more than {TEAMS_BYTES_MAX}")
    return faults


def teams_markup(message: Any) -> Iterator[str]:
    """Text blocks and facts are Markdown, text runs are not."""
    for attachment in message["attachments"]:
        card = attachment["content"]
        yield card.get("fallbackText", "")
        for element in card["body"]:
            yield element.get("text", "")
            for fact in element.get("facts", ()):
                yield from fact.values()


# ---------------------------------------------------------------- Slack

_plain: dict[str, Check] = {"plain_text": _object({"text": _text(1, 3000)}, {"emoji": _truth})}
_formatted: dict[str, Check] = {"mrkdwn": _object({"text": _text(1, 3000)}, {"verbatim": _truth})}
_any_text = _by_type(_plain | _formatted)


def _shorter(most: int) -> Check:
    """A text object of at most so many characters."""

    def check(value: Any, where: str) -> Iterator[str]:
        yield from _any_text(value, where)
        if isinstance(value, dict):
            yield from _text(1, most)(value.get("text"), f"{where}.text")

    return check


def _header_text(value: Any, where: str) -> Iterator[str]:
    yield from _by_type(_plain)(value, where)
    yield from _shorter(150)(value, where)


def _section(value: Any, where: str) -> Iterator[str]:
    members = {"text": _any_text, "fields": _list(_shorter(2000), 1, 10), "block_id": _text(1, 255), "expand": _truth}
    yield from _object({}, members)(value, where)
    if not value.keys() & {"text", "fields"}:
        yield f"{where} has neither text nor fields"


_slack = _object(
    {
        "text": _text(1, 40_000),
        "blocks": _list(
            _by_type(
                {
                    "header": _object({"text": _header_text}, {"block_id": _text(1, 255)}),
                    "section": _section,
                    "context": _object({"elements": _list(_any_text, 1, 10)}, {"block_id": _text(1, 255)}),
                    "divider": _object({}, {"block_id": _text(1, 255)}),
                }
            ),
            1,
            50,
        ),
    },
    {"mrkdwn": _truth, "unfurl_links": _truth, "unfurl_media": _truth},
)


def slack_faults(message: object) -> list[str]:
    """See the module."""
    return list(_slack(message, "message"))


def slack_markup(message: Any) -> Iterator[str]:
    """The notification's text, and every text object that says so."""
    yield message["text"]
    objects = [message]
    while objects:
        one = objects.pop()
        if isinstance(one, dict):
            if one.get("type") == "mrkdwn":
                yield one["text"]
            objects += one.values()
        elif isinstance(one, list):
            objects += one


# ---------------------------------------------------------------- Google Chat


def _widget(value: Any, where: str) -> Iterator[str]:
    kinds: dict[str, Check] = {
        "decoratedText": _object({"text": _text(1)}, {"topLabel": _text(), "bottomLabel": _text(), "wrapText": _truth}),
        "textParagraph": _object({"text": _text(1)}, {"maxLines": _whole}),
        "divider": _object({}),
    }
    yield from _object({}, kinds)(value, where)
    if isinstance(value, dict) and len(value) != 1:
        yield f"{where} has {len(value)} widgets in one"


_google_chat = _object(
    {
        "cardsV2": _list(
            _object(
                {
                    "cardId": _text(1),
                    "card": _object(
                        {
                            "header": _object({"title": _text(1)}, {"subtitle": _text()}),
                            "sections": _list(
                                _object(
                                    {"widgets": _list(_widget, 1, 100)},
                                    {"header": _text(), "collapsible": _truth, "uncollapsibleWidgetsCount": _whole},
                                ),
                                1,
                            ),
                        }
                    ),
                }
            ),
            1,
        )
    },
    {"fallbackText": _text(), "text": _text()},
)


def google_chat_faults(message: object) -> list[str]:
    """See the module."""
    faults = list(_google_chat(message, "message"))
    if _size(message) > GOOGLE_CHAT_BYTES_MAX:
        faults.append(f"the message has {_size(message)} bytes, more than {GOOGLE_CHAT_BYTES_MAX}")
    return faults


def google_chat_markup(message: Any) -> Iterator[str]:
    """Most texts of a card may be HTML; which are not is not said. What is before the first < of one is only text."""
    objects = [message]
    while objects:
        one = objects.pop()
        if isinstance(one, str) and "<" in one:
            yield one
        objects += one.values() if isinstance(one, dict) else one if isinstance(one, list) else ()
    yield message.get("text", "")


# ---------------------------------------------------------------- the templates that ship


class Service(NamedTuple):
    """A template, and what its service says of a message."""

    template: Path
    faults: Callable[[object], list[str]]
    markup: Callable[[Any], Iterator[str]]


_SOURCES = Path(clarion.__file__).parent
SHIPPED = _SOURCES / "expressions" / "templates"
SERVICES = {
    "teams": Service(SHIPPED / "teams.cel", teams_faults, teams_markup),
    "slack": Service(SHIPPED / "slack.cel", slack_faults, slack_markup),
    "google-chat": Service(SHIPPED / "google-chat.cel", google_chat_faults, google_chat_markup),
}
ISSUE = Service(_SOURCES / "demo" / "issue.cel", teams_faults, teams_markup)
