"""Tokens of the machine's own Google credentials, for requests that no client library makes."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from beam_jobs.rows import PredictionError

if TYPE_CHECKING:
    from google.auth.credentials import Credentials

_SCOPE = "https://www.googleapis.com/auth/cloud-platform"


class BearerToken:
    """Gives a valid access token; fetches one when there is none, or the last has run out.

    May be called from any thread, and travels to workers, each of which has credentials of its own.
    """

    def __init__(self, credentials: Credentials | None = None) -> None:
        """Takes credentials, by default the machine's own (Application Default Credentials)."""
        self._credentials = credentials
        self._lock = threading.Lock()

    def __call__(self) -> str:
        """The token.

        Raises:
          PredictionError: if there are no credentials, or Google does not honour them.
        """
        from google.auth import default
        from google.auth.exceptions import GoogleAuthError
        from google.auth.transport.requests import Request

        with self._lock:
            try:
                if self._credentials is None:
                    self._credentials, _ = default(scopes=[_SCOPE])
                if not self._credentials.valid:
                    self._credentials.refresh(Request())
            except GoogleAuthError as error:
                raise PredictionError(
                    f"no credentials for the endpoint: {str(error).splitlines()[0]}; log in with "
                    "`gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS"
                ) from error
            return str(self._credentials.token)

    def __getstate__(self) -> dict[str, Any]:
        return {"_credentials": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())
