"""The function's two entry points: events of Cloud Storage and Pub/Sub, and web requests.

Cloud Functions wants this file at the top of its source: `python deploy/function/bundle.py function.zip` packs it with
requirements.txt and the modules of this project that it imports. What it does stands in cloud/triggers.py, its
settings are environment variables (docs/triggers.md).
"""

from __future__ import annotations

import json
import logging
import os
from functools import cache
from typing import TYPE_CHECKING, Any

import functions_framework

from cloud.triggers import Triggers, connected

if TYPE_CHECKING:
    from cloudevents.http import CloudEvent
    from flask import Request


class _AsJson(logging.Formatter):
    """A line of JSON a record: Cloud Logging reads its severity from it."""

    def format(self, record: logging.LogRecord) -> str:
        return json.dumps({"severity": record.levelname, "message": super().format(record)})


@cache
def _triggers() -> Triggers:
    handler = logging.StreamHandler()
    handler.setFormatter(_AsJson())
    logging.getLogger("cloud").addHandler(handler)
    logging.getLogger("cloud").setLevel(logging.INFO)
    return connected(os.environ)


@functions_framework.cloud_event
def on_event(event: CloudEvent) -> None:
    """Takes an event; an exception makes the platform deliver it again."""
    _triggers().on_event(event)


@functions_framework.http
def on_request(request: Request) -> tuple[dict[str, Any], int]:
    """Answers a web request."""
    return _triggers().on_request(request)
