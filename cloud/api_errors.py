"""What a refusal by Google's services means, and which are worth another try."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import tenacity

LOGIN = "log in with `gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS"
_ATTEMPTS = 5
_LONGEST_PAUSE_SECONDS = 60
_REQUEST = re.compile(r"^(?:\d+ )?(?:(?:GET|POST|PUT|PATCH|DELETE) \S+: )?")
"""What the libraries put before a service's own words."""


class CloudError(Exception):
    """A service refused, or what it was to be asked is wrong; one line a fault, which says what to change."""


@dataclass(frozen=True)
class Remedies:
    """What to do about a refusal, in the words of one service; empty: nothing is known."""

    forbidden: str = ""
    not_found: str = ""
    conflict: str = ""
    quota: str = ""
    connection: str = ""


@contextmanager
def explained(
    what: str, kind: type[Exception] = CloudError, remedies: Remedies | None = None
) -> Iterator[None]:
    """Turns the client libraries' errors into one line that says what to do.

    Args:
      what: was asked of, or for; the line begins with it.
      kind: of the error that is raised instead.
      remedies: of the service that is asked.
    """
    from google.api_core.exceptions import GoogleAPIError, from_http_response
    from google.auth.exceptions import GoogleAuthError
    from google.cloud.storage.exceptions import InvalidResponse
    from requests.exceptions import RequestException

    remedies = remedies or Remedies()
    try:
        yield
    except InvalidResponse as error:
        # What uploads raise, as it came.
        refused = from_http_response(error.response) if error.response.status_code >= 400 else error
        raise kind(f"{what}: {meaning(refused, remedies)}") from error
    except (GoogleAPIError, GoogleAuthError, RequestException) as error:
        raise kind(f"{what}: {meaning(error, remedies)}") from error


def meaning(error: Exception, remedies: Remedies) -> str:
    """An error of Google's libraries in one line: what it means, what the service said, what to do."""
    from google.api_core import exceptions as api
    from google.auth.exceptions import GoogleAuthError, TransportError
    from requests.exceptions import RequestException

    said = _said(error)
    if isinstance(error, TransportError | RequestException):
        return _line("no connection", said, remedies.connection)
    if isinstance(error, GoogleAuthError | api.Unauthorized):
        return _line("no credentials", said, LOGIN)
    if isinstance(error, api.Forbidden) and error.reason == "SERVICE_DISABLED":
        return _line(
            "not enabled", said, "enable the API with `gcloud services enable`, and wait a few minutes"
        )
    kinds: tuple[tuple[type[Exception], str, str], ...] = (
        (api.Forbidden, "not allowed", remedies.forbidden),
        (api.NotFound, "not found", remedies.not_found),
        (api.Conflict, "in conflict", remedies.conflict),
        (api.TooManyRequests, "a quota is used up", remedies.quota),
        (api.BadRequest, "not accepted", ""),
        (api.ServerError, "the service failed", "run the same again later"),
    )
    for kind, meant, remedy in kinds:
        if isinstance(error, kind):
            return _line(meant, said, remedy)
    return _line(type(error).__name__, said, "")


def retrying(sleep: Callable[[float], None] = time.sleep) -> tenacity.Retrying:
    """Calls again while a service is busy, fails, or cannot be reached; five times, a few minutes at most."""
    import tenacity
    from google.api_core.exceptions import ServerError, TooManyRequests
    from requests.exceptions import ConnectionError as NoConnection
    from requests.exceptions import Timeout

    return tenacity.Retrying(
        retry=tenacity.retry_if_exception_type((ServerError, TooManyRequests, NoConnection, Timeout)),
        stop=tenacity.stop_after_attempt(_ATTEMPTS),
        wait=tenacity.wait_random_exponential(multiplier=2, max=_LONGEST_PAUSE_SECONDS),
        sleep=sleep,
        reraise=True,
    )


def _said(error: Exception) -> str:
    """The first line of what the service said, without the request before it and the details behind it."""
    text = _REQUEST.sub("", str(getattr(error, "message", "") or error))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[0].rstrip(".;") if lines else type(error).__name__


def _line(meant: str, said: str, remedy: str) -> str:
    return f"{meant}: {said}; {remedy}" if remedy else f"{meant}: {said}"
