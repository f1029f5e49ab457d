"""What is refused before a job or a schedule is made: the environment, the compiled job, its image, its folder."""

from __future__ import annotations

import difflib
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cloud import snapshots
from cloud.api_errors import CloudError, Remedies, explained, retrying
from cloud.compiled_pipeline import CODE_LABEL, ENVIRONMENT_LABEL
from cloud.image_registry import Image, labels
from cloud.spec_tasks import images

if TYPE_CHECKING:
    from pipeline.environment import Place

Json = Mapping[str, Any]

REQUIRED = ("project", "region", "root", "service_account")
IMAGE_LABEL = "dev.headworks.code"
SCHEMA_VERSIONS = ("2.0.0", "2.1.0")

_MAY = ("storage.objects.create", "storage.objects.get", "storage.objects.list")
_TRUE, _FALSE = ("true", "yes", "1"), ("false", "no", "0")
_SECRET_WORDS = frozenset(
    {
        "password",
        "passwd",
        "passphrase",
        "secret",
        "token",
        "apikey",
        "privatekey",
        "accesskey",
        "credentials",
    }
)
_SECRET_VALUE = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----|\bAIza[\w-]{35}|\bya29\.[\w-]{20}|\bGOCSPX-[\w-]{20}|\bAKIA[0-9A-Z]{16}\b"
    r"|\bgh[pousr]_\w{36}|\bxox[abprs]-[\w-]{10}|://[^/\s:@]+:[^/\s@{]+@"
)
_SECRET_OPTION = re.compile(r"--?(?P<key>[\w-]+)[= ](?P<value>\S+)")
_REFERENCE = re.compile(r"projects/[^/]+/secrets/[\w-]+(/versions/\w+)?|\{\{.*\}\}|\$\{?\w+\}?|")
"""Values that name a secret without being one: Secret Manager's names, placeholders, variables."""


class SubmissionError(CloudError):
    """Something stands in the way of a submission; nothing was made. One line a fault."""


def check_environment(place: Place) -> None:
    """Makes sure that an environment says all that a run needs; there are no defaults for these.

    Raises:
      SubmissionError: naming each key that is missing and the file it belongs into.
    """
    file = place.layers[-1].path
    missing = [key for key in REQUIRED if getattr(place.settings, key) is None]
    faults = [f"{key}: missing in environment {place.name}; set it in {file}" for key in missing]
    root = place.settings.root
    if root is not None and not re.fullmatch(r"gs://[a-z0-9][a-z0-9._-]+[a-z0-9](/.*)?", root):
        faults.append(f"root: {root!r}: Vertex AI writes to gs://BUCKET/FOLDER ({place.place('root')})")
    _raise(faults)


def check_job(job: Json, place: Place, source: str, code: str | None) -> None:
    """Looks over a compiled job without asking anybody.

    Args:
      job: a PipelineJob as JSON.
      place: the environment that it is to run in.
      source: what the job was read from, for messages.
      code: the digest of the code here; None: it need not be the job's.

    Raises:
      SubmissionError: one line a fault.
    """
    spec = job.get("pipelineSpec")
    if not isinstance(spec, dict) or "root" not in spec:
        raise SubmissionError(
            f"{source}: holds no pipelineSpec with a root; make it with: headworks compile --runner vertex"
        )
    version = spec.get("schemaVersion")
    if version not in SCHEMA_VERSIONS:
        raise SubmissionError(
            f"{source}: schemaVersion {version!r}: want one of {', '.join(SCHEMA_VERSIONS)}"
        )
    _raise(
        [*_place_faults(job, place, source), *_code_faults(job, source, code), *_content_faults(job, source)]
    )


def _place_faults(job: Json, place: Place, source: str) -> Iterator[str]:
    made_for = job.get("labels", {}).get(ENVIRONMENT_LABEL)
    if made_for is not None and made_for != place.name:
        yield f"{source}: was compiled for environment {made_for}, not {place.name}; compile it for {place.name}"
    folder = job.get("runtimeConfig", {}).get("gcsOutputDirectory", "")
    root = str(place.settings.root).rstrip("/")
    if folder and folder != root and not folder.startswith(f"{root}/"):
        yield (
            f"{source}: writes to {folder}, which is not in the environment's root {root} ({place.place('root')}); "
            "compile it again"
        )


def _code_faults(job: Json, source: str, code: str | None) -> Iterator[str]:
    found = job.get("labels", {}).get(CODE_LABEL)
    if code is not None and found != code:
        made_from = f"from code {found}" if found else "without a note of its code"
        yield f"{source}: was compiled {made_from}, and the code here is {code}; compile it again"


def _content_faults(job: Json, source: str) -> Iterator[str]:
    for image in images(job):
        try:
            Image.parse(image)
        except CloudError as error:
            yield f"{source}: {error}"
    for path in dict.fromkeys(secrets(job)):
        yield (
            f"{source}: {path}: looks like a secret; whoever may look at a run would see it: keep it in Secret "
            "Manager, and let the service account read it"
        )


def check_image(job: Json) -> None:
    """Asks the registry whether the job's images hold the code that it was compiled from.

    Raises:
      SubmissionError: one line an image that is not there, holds no Headworks or another state of it.
    """
    _raise([fault for image in images(job) for fault in _image_faults(image, job)])


def _image_faults(image: str, job: Json) -> Iterator[str]:
    wanted = job.get("labels", {}).get(CODE_LABEL)
    try:
        held = labels(Image.parse(image)).get(IMAGE_LABEL)
    except CloudError as error:
        yield str(error)
        return
    if held is None:
        yield f"image {image}: does not hold Headworks (no label {IMAGE_LABEL}); build it from our Dockerfile"
    elif wanted is not None and held != wanted:
        yield (
            f"image {image}: holds code {held}, and the job was compiled from code {wanted}; one of them is older: "
            "build and push the image from the code you compile, put its digest into `image`, and compile again"
        )


def check_root(place: Place, endpoint: str | None = None) -> list[str]:
    """Asks Cloud Storage whether the environment's root may be written.

    It answers for the account that asks, not for the one that the run acts as.

    Args:
      place: the environment.
      endpoint: of a service on this machine instead of Google's, asked without credentials.

    Returns:
      Warnings, such as a bucket far from the machines.

    Raises:
      SubmissionError: if the bucket is not there, or may not be written.
    """
    from google.api_core.exceptions import Forbidden

    root, settings = place.require("root"), place.settings
    remedies = Remedies(
        forbidden="whoever submits needs roles/storage.objectUser on the bucket",
        not_found=f"make the bucket, or mend root ({place.place('root')})",
    )
    with explained(f"root {root}", SubmissionError, remedies):
        bucket = _storage(place.require("project"), endpoint).bucket(
            root.removeprefix("gs://").partition("/")[0]
        )
        held = retrying()(bucket.test_iam_permissions, list(_MAY))
        lacking = [name for name in _MAY if name not in held]
        if lacking:
            raise SubmissionError(
                f"root {root}: may not be written: {', '.join(lacking)} missing on {bucket.name}; give "
                f"roles/storage.objectUser there to whoever submits and to {settings.service_account}"
            )
        try:
            bucket.reload()
        except Forbidden:
            return [f"root {root}: who asks may not see where the bucket lies (storage.buckets.get)"]
    location = str(bucket.location).lower()
    if bucket.location_type == "region" and location != settings.region:
        return [
            f"root {root}: the bucket lies in {location} and the run in {settings.region}: each byte travels, and is "
            "paid for"
        ]
    return []


def _storage(project: str, endpoint: str | None) -> Any:
    from google.cloud import storage

    if endpoint is None:
        return storage.Client(project=project)
    from google.auth.credentials import AnonymousCredentials

    return storage.Client(
        project=project, credentials=AnonymousCredentials(), client_options={"api_endpoint": endpoint}
    )


def parameter_values(job: Json, assignments: Sequence[str]) -> dict[str, Any]:
    """The values that a job is to run with: those compiled into it, and those assigned.

    A snapshot time that nobody says stays open, see `cloud.vertex_pipelines.job_request`.

    Args:
      job: a PipelineJob as JSON.
      assignments: `NAME=VALUE`.

    Raises:
      SubmissionError: one line a parameter that does not exist, is of another type, or has no value.
    """
    known = job["pipelineSpec"]["root"].get("inputDefinitions", {}).get("parameters", {})
    values: dict[str, Any] = dict(job.get("runtimeConfig", {}).get("parameterValues", {}))
    faults = []
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals:
            faults.append(f"--parameter {assignment}: write it as NAME=VALUE")
        elif name not in known:
            faults.append(f"parameter {name}: does not exist{_hint(name, known)}")
        else:
            try:
                values[name] = _typed(text, known[name].get("parameterType", "STRING"))
            except ValueError as error:
                faults.append(f"parameter {name}: {text!r}: {error}")
    for name, declared in known.items():
        is_filled_in = name == snapshots.PARAMETER or "defaultValue" in declared or declared.get("isOptional")
        if name not in values and not is_filled_in:
            faults.append(f"parameter {name}: has no value; add --parameter {name}=VALUE")
    _raise(faults)
    return values


def _hint(name: str, known: Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if close:
        return f"; did you mean {close[0]}?"
    return f"; there are {', '.join(sorted(known))}" if known else "; this pipeline has none"


def _typed(text: str, kind: str) -> Any:
    """A value of a parameter's type.

    Raises:
      ValueError: saying what is wanted.
    """
    if kind == "STRING":
        return text
    if kind == "BOOLEAN":
        if text.lower() not in (*_TRUE, *_FALSE):
            raise ValueError("want true or false")
        return text.lower() in _TRUE
    try:
        if kind == "NUMBER_INTEGER":
            return int(text)
        value = json.loads(text)
    except ValueError:
        raise ValueError(f"want {_KINDS.get(kind, ('a ' + kind, object))[0]}") from None
    wanted, types = _KINDS.get(kind, ("", object))
    if not isinstance(value, types) or isinstance(value, bool):
        raise ValueError(f"want {wanted}")
    return value


_KINDS: Mapping[str, tuple[str, Any]] = {
    "NUMBER_INTEGER": ("a whole number", int),
    "NUMBER_DOUBLE": ("a number", int | float),
    "LIST": ("a list in JSON", list),
    "STRUCT": ("an object in JSON", dict),
}
"""What a parameter's type wants, in words and in Python."""


def secrets(value: Any, path: str = "", key: str = "") -> Iterator[str]:
    """Where, in dotted keys, something looks like a secret: by the key that it stands under, or by itself.

    Looks into strings that hold JSON, and at options of command lines; never yields the value.
    """
    if isinstance(value, Mapping):
        named = str(value.get("name", "")) if set(value) <= {"name", "value"} else ""
        for name, inner in value.items():
            yield from secrets(
                inner, f"{path}.{name}".lstrip("."), named if name == "value" and named else name
            )
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from secrets(inner, f"{path}[{index}]", key)
    elif isinstance(value, str):
        yield from _secret_text(value, path, key)


def _secret_text(text: str, path: str, key: str) -> Iterator[str]:
    if text.lstrip()[:1] in ("{", "[") and (inner := _parsed(text)) is not None:
        yield from secrets(inner, path, key)
        return
    is_named = _is_secret_name(key) and not _REFERENCE.fullmatch(text)
    options = (
        option for option in _SECRET_OPTION.finditer(text) if not _REFERENCE.fullmatch(option["value"])
    )
    if is_named or _SECRET_VALUE.search(text) or any(_is_secret_name(option["key"]) for option in options):
        yield path


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None  # Text that only begins like JSON, such as {{$}}.


def _is_secret_name(name: str) -> bool:
    """Whether a word of a name, or two that stand together, mean a secret: `db_password`, `apiKey`."""
    words = re.findall(r"[a-z]+", re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name).lower())
    pairs = [first + second for first, second in itertools.pairwise(words)]
    return not _SECRET_WORDS.isdisjoint((*words, *pairs))


def _raise(faults: Sequence[str]) -> None:
    if faults:
        raise SubmissionError("\n".join(faults))
