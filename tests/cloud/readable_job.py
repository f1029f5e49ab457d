"""A compiled job as a person reads it, and as it stays where only versions or digests of code change."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

Json = dict[str, Any]

_LONGEST = 120
_DIGEST = re.compile(r"\b(?:[0-9a-f]{64}|[0-9a-f]{16})\b")


def readable(job: Json) -> str:
    """JSON of a PipelineJob or a PipelineSpec.

    Digests and versions are taken out, what KFP wraps around a value too, and a long value becomes its digest. Two jobs
    that differ in anything else differ here.
    """
    return json.dumps(_plain(job), indent=1, sort_keys=True) + "\n"


def _plain(value: Any) -> Any:
    match value:
        case {"runtimeValue": {"constant": constant}, **more} if not more:
            return _plain(constant)
        case {"componentInputParameter": name, **more} if not more:
            return f"<parameter {name}>"
        case {"taskOutputArtifact": {"producerTask": task, "outputArtifactKey": key}, **more} if not more:
            return f"<{key} of {task}>"
        case {"artifactType": {"instanceSchema": schema}, **more} if not more:
            return _short(schema.splitlines()[0])
        case {"parameterType": kind, **more} if not more:
            return kind
        case dict():
            return {
                key: "<version>" if key == "sdkVersion" else _plain(member) for key, member in value.items()
            }
        case list():
            return [_plain(member) for member in value]
        case str():
            return _short(value)
    return value


def _short(text: str) -> str:
    text = _DIGEST.sub("<digest>", text)
    if len(text) <= _LONGEST:
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return f"{text[:40]}... <{len(text)} characters, {digest}>"
