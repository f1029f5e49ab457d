"""What Vertex AI and a prediction container agree on, in one place: both sides of the contract read it here.

The registry tells the service (`container_spec`), the service tells the container by environment variables
(`Container.of`), and `cloud.prediction_server` answers as they say. Facts: the page "Custom container requirements for
prediction" of Vertex AI's documentation.

- The server listens on 0.0.0.0 at the port from the beginning: that it can be connected to is the liveness check.
- The health route answers 200 once the model is loaded, and 503 until then; no rows come before.
- The predict route takes `{"instances": [...], "parameters": {...}}` and answers `{"predictions": [...]}`, one an
  instance, in their order. What else it answers goes back to who asked, with its status.
- A shared endpoint passes on requests and answers of at most 1.5 MB.
- The files of the version are in a bucket of the service's own, AIP_STORAGE_URI, whatever folder they came from.

AIP_MODEL_DIR is no part of it: training jobs are told by that name where to leave a model.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from beam_jobs.rows import PredictionError

PORT = 8080
HEALTH_ROUTE = "/health"
PREDICT_ROUTE = "/predict"
COMMAND = ("python", "-m", "cloud.prediction_server")
ENVIRONMENT: Mapping[str, str] = {"TF_CPP_MIN_LOG_LEVEL": "2"}
REQUEST_BYTES = 1_500_000
"""That a shared endpoint passes on."""
LARGEST_REQUEST_BYTES = 10_000_000
"""That any endpoint passes on; the server takes no more."""

_MODE = "PREDICTION"


@dataclass(frozen=True)
class Container:
    """What the service tells a container that it starts.

    Attributes:
      storage_uri: AIP_STORAGE_URI: `gs://` folder of the version's files; a folder of this machine is taken as it is.
      port: AIP_HTTP_PORT.
      health_route: AIP_HEALTH_ROUTE.
      predict_route: AIP_PREDICT_ROUTE.
    """

    storage_uri: str
    port: int = PORT
    health_route: str = HEALTH_ROUTE
    predict_route: str = PREDICT_ROUTE

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Container:
        """Reads the environment variables of a process.

        Raises:
          PredictionError: naming the variable, its value and what it has to be.
        """
        mode = environment.get("AIP_MODE", _MODE)
        if mode != _MODE:
            raise PredictionError(f"AIP_MODE={mode}: this container answers rows; want {_MODE}")
        uri = environment.get("AIP_STORAGE_URI", "").rstrip("/")
        if not uri:
            raise PredictionError(
                "AIP_STORAGE_URI: not set; upload the model with an artifact URI, or name a pushed version's folder"
            )
        port = environment.get("AIP_HTTP_PORT", str(PORT))
        if not (port.isascii() and port.isdigit() and 0 <= int(port) < 1 << 16):
            raise PredictionError(f"AIP_HTTP_PORT={port}: want the number of a port")
        routes = {
            "AIP_HEALTH_ROUTE": environment.get("AIP_HEALTH_ROUTE", HEALTH_ROUTE),
            "AIP_PREDICT_ROUTE": environment.get("AIP_PREDICT_ROUTE", PREDICT_ROUTE),
        }
        for name, route in routes.items():
            if not re.fullmatch(r"/[^\s?#<>]*", route):
                raise PredictionError(f"{name}={route}: want a path that begins with /")
        return cls(uri, int(port), *routes.values())


def container_spec(image: str) -> dict[str, Any]:
    """What the registry is told of the container, as the API's ModelContainerSpec.

    Args:
      image: by digest; its code is Headworks.
    """
    return {
        "image_uri": image,
        "command": list(COMMAND),
        "env": [{"name": name, "value": value} for name, value in ENVIRONMENT.items()],
        "ports": [{"container_port": PORT}],
        "predict_route": PREDICT_ROUTE,
        "health_route": HEALTH_ROUTE,
    }
