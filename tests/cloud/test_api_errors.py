"""Errors of Google's libraries as one line: what it means, what the service said, what to do."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import pytest
from google.api_core import exceptions as api
from google.auth.exceptions import DefaultCredentialsError, TransportError
from requests.exceptions import ConnectionError as NoConnection

from cloud.api_errors import CloudError, Remedies, explained, meaning

REMEDIES = Remedies(
    forbidden="give a role", not_found="look again", conflict="name it", quota="ask", connection="region"
)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (api.Forbidden("GET https://x/y: Permission denied"), "not allowed: Permission denied; give a role"),
        (api.NotFound("POST https://x: No bucket.\nMore"), "not found: No bucket; look again"),
        (api.AlreadyExists("There already"), "in conflict: There already; name it"),
        (api.TooManyRequests("Quota exceeded for cpus"), "a quota is used up: Quota exceeded for cpus; ask"),
        (api.ResourceExhausted("Quota exceeded"), "a quota is used up: Quota exceeded; ask"),
        (api.InvalidArgument("Bad cron"), "not accepted: Bad cron"),
        (api.InternalServerError("Oops"), "the service failed: Oops; run the same again later"),
        (NoConnection("Failed to resolve nowhere"), "no connection: Failed to resolve nowhere; region"),
        (TransportError("Unreachable"), "no connection: Unreachable; region"),
        (api.Cancelled("Gone for good"), "Cancelled: Gone for good"),
    ],
)
def test_an_error_says_what_it_means_and_what_to_do(error, line):
    assert meaning(error, REMEDIES) == line


@pytest.mark.parametrize("error", [DefaultCredentialsError("None found.\nSee"), api.Unauthorized("Expired")])
def test_lacking_credentials_say_how_to_get_them(error):
    assert "gcloud auth application-default login" in meaning(error, REMEDIES)


def test_an_api_that_is_not_enabled_is_no_lack_of_roles():
    disabled = api.Forbidden("Vertex AI API is disabled", error_info=_Info("SERVICE_DISABLED"))
    assert "gcloud services enable" in meaning(disabled, REMEDIES)
    assert "role" not in meaning(disabled, REMEDIES)


def test_what_no_service_said_passes_as_it_is():
    with pytest.raises(KeyError), explained("run x"):
        raise KeyError
    with pytest.raises(CloudError, match=r"^run x: not found: gone$"), explained("run x"):
        raise api.NotFound("gone")


class _Info:
    domain = "googleapis.com"
    metadata: Mapping[str, str] = MappingProxyType({})

    def __init__(self, reason: str) -> None:
        self.reason = reason
