"""For the time of a request, its user acts, as part of what its X-Request-ID names."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from inspect import iscoroutinefunction
from typing import Any, Final

from django.apps import apps
from django.core.exceptions import ImproperlyConfigured
from django.utils.decorators import sync_and_async_middleware

from clarion.capture.acting import acting
from clarion.capture.django.statements import request_of

_CORRELATION_ID: Final = re.compile(r"[\x21-\x7e]{1,200}")


@sync_and_async_middleware
def acting_middleware(get_response: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The middleware; it stands after Django's AuthenticationMiddleware. Takes no query of its own.

    The user is asked for only when a statement is about to carry who acts. The correlation id is the request's X-Request-ID
    if it has 1 to 200 printable ASCII characters and no blank, else 32 hexadecimal digits made here. Raises
    ImproperlyConfigured without the app, which carries to the database what is said here.
    """
    if not apps.is_installed("clarion.capture.django"):
        raise ImproperlyConfigured("acting_middleware needs 'clarion.capture.django' in INSTALLED_APPS")
    if iscoroutinefunction(get_response):

        async def answer_async(request: Any) -> Any:
            with _acting_for(request):
                return await get_response(request)

        return answer_async

    def answer(request: Any) -> Any:
        with _acting_for(request):
            return get_response(request)

    return answer


@contextmanager
def _acting_for(request: Any) -> Iterator[None]:
    given = request.headers.get("X-Request-ID", "")
    correlation_id = given if _CORRELATION_ID.fullmatch(given) else secrets.token_hex(16)
    token = request_of.set(request)
    try:
        with acting(correlation_id=correlation_id):
            yield
    finally:
        request_of.reset(token)
