"""Pushed versions in the Model Registry of Vertex AI: all versions of a pipeline are versions of one model.

A version is known by two labels: its number in the serving folder, and a digest of its files. Uploaded again, it is
found by them. An alias moves to a version when that is registered and no later one is; `default` moves only where the
settings name it among the aliases (the service gives it to the first version of a model by itself).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from beam_jobs.pushed import MANIFEST, PushedModel
from beam_jobs.rows import PredictionError
from cloud.api_errors import LOGIN
from cloud.model_evaluation import Evaluation
from cloud.prediction_container import container_spec
from cloud.vertex_api import Api, NotThereError, RegistryError
from pipeline.environment import RegistrySettings
from pipeline.mounts import uri_of

if TYPE_CHECKING:
    from google.cloud import aiplatform_v1

VERSION_LABEL = "headworks-version"
CONTENT_LABEL = "headworks-content"
_EMULATOR = "STORAGE_EMULATOR_HOST"
"""Environment variable: a service of this machine, which takes no credentials."""
_LABEL_LENGTH = 63
_DIGEST = 32
"""Characters of digests in labels."""
_ALIAS = re.compile(r"[a-z][a-zA-Z0-9-]{0,126}[a-z0-9]")
_SLICES_AT_ONCE = 50


@dataclass(frozen=True)
class Candidate:
    """A pushed version that is to be registered.

    Attributes:
      uri: of its folder, as the service reads it.
      pushed: what prediction needs of its manifest.
      facts: all of its manifest.
    """

    uri: str
    pushed: PushedModel
    facts: Mapping[str, Any]

    @property
    def content(self) -> str:
        """A digest of all its files."""
        listed = json.dumps(dict(self.pushed.digests), sort_keys=True)
        return hashlib.sha256(listed.encode()).hexdigest()[:_DIGEST]


@dataclass(frozen=True)
class Upload:
    """What the registry is told of all versions alike.

    Attributes:
      settings: of the environment.
      image: that serves them, by digest.
      labels: of the environment; those of the lineage come beside them.
      kms_key: that encrypts what the service keeps of them.
    """

    settings: RegistrySettings
    image: str
    labels: Mapping[str, str]
    kms_key: str | None = None

    def __post_init__(self) -> None:
        for alias in self.settings.aliases:
            if not _ALIAS.fullmatch(alias):
                raise RegistryError(
                    f"registry.aliases: {alias!r} is no alias: want 2 to 128 letters, digits and -, beginning with a "
                    "small letter and ending with a small letter or a digit"
                )


@dataclass(frozen=True)
class Registered:
    """A version in the registry.

    Attributes:
      model: resource name, `projects/P/locations/L/models/ID`.
      version: its number there.
      serving_version: its number in the serving folder; empty for one that was not uploaded from here.
      aliases: that it has.
      labels: all.
      is_new: whether it was uploaded just now.
    """

    model: str
    version: str
    serving_version: str = ""
    aliases: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    is_new: bool = False

    @property
    def resource(self) -> str:
        """The name of the version, as endpoints and batch prediction jobs take it."""
        return f"{self.model}@{self.version}"


def read(folder: str) -> Candidate:
    """Reads a pushed version, or the newest one of a serving folder.

    Args:
      folder: `gs://BUCKET/FOLDER`, or a path; that of a mounted bucket becomes its URI again.

    Raises:
      RegistryError: if there is none, or its manifest lacks something.
    """
    from apache_beam.io.filesystems import FileSystems

    _require_credentials(folder)
    try:
        pushed = PushedModel.read(folder)
    except PredictionError as error:
        raise RegistryError(str(error)) from error
    with FileSystems.open(f"{pushed.folder}/{MANIFEST}") as file:
        facts = json.loads(file.read())
    return Candidate(uri_of(pushed.folder), pushed, facts)


def _require_credentials(folder: str) -> None:
    """Refuses a bucket that cannot be asked: Beam would try for minutes."""
    import google.auth
    from google.auth.exceptions import DefaultCredentialsError

    if not folder.startswith("gs://") or _EMULATOR in os.environ:
        return
    try:
        google.auth.default()
    except DefaultCredentialsError as error:
        raise RegistryError(f"{folder}: no credentials; {LOGIN}") from error


def register(
    api: Api,
    candidate: Candidate,
    upload: Upload,
    evaluation: Evaluation | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> Registered:
    """Sees that a version is registered, with its evaluation and its aliases. To call it again is safe.

    Args:
      api: the service.
      candidate: the version.
      upload: what the registry is told of it.
      evaluation: of the version; imported once.
      tell: takes a line whenever something is done.

    Raises:
      RegistryError: if the service refuses; what was done before stays, and is found the next time.
    """
    if api.is_live and not candidate.uri.startswith("gs://"):
        raise RegistryError(
            f"{candidate.uri}: Vertex AI reads models from gs://BUCKET/FOLDER; set root in the environment to a "
            "bucket, or name the version's folder there"
        )
    known = versions(api, upload.settings.model)
    found = next((one for one in known if _is_same(one, candidate)), None)
    if found is None:
        found = _upload(api, candidate, upload, is_first=not known)
        tell(
            f"registered: {found.resource}: version {candidate.pushed.version} of {candidate.pushed.pipeline}"
        )
    else:
        tell(f"registered before: {found.resource}: version {candidate.pushed.version}")
    if evaluation is not None and _import_evaluation(api, found, candidate, evaluation):
        tell(f"evaluation: {len(evaluation.metrics)} metrics, {len(evaluation.slices)} slices")
    return _move_aliases(api, found, known, upload.settings.aliases, tell)


def versions(api: Api, model_id: str) -> list[Registered]:
    """The versions of a model, oldest first; none where there is no such model."""
    from google.cloud.aiplatform_v1 import ListModelVersionsRequest

    name = f"{api.parent}/models/{model_id}"
    try:
        found = api.call("list_model_versions", ListModelVersionsRequest(name=name), name)
    except NotThereError:
        return []
    return sorted((_registered(name, model) for model in found), key=lambda one: int(one.version))


def choose(known: Sequence[Registered], model_id: str, wanted: str | None) -> Registered:
    """One of the versions of a model, by number or alias; the newest, where none is named.

    Raises:
      RegistryError: if there is none; naming those that there are.
    """
    if not known:
        raise RegistryError(f"model {model_id}: not in the registry; upload a version first")
    if wanted is None:
        return known[-1]
    for one in known:
        if wanted == one.version or wanted in one.aliases:
            return one
    there = ", ".join(" ".join((one.version, *one.aliases)) for one in known)
    raise RegistryError(f"model {model_id}: no version {wanted}; there are {there}")


def labels_of(candidate: Candidate, more: Mapping[str, str]) -> dict[str, str]:
    """Labels that tell where a version comes from, beside those of the environment."""
    facts = candidate.facts
    lineage = {
        "headworks-pipeline": candidate.pushed.pipeline,
        VERSION_LABEL: str(candidate.pushed.version),
        CONTENT_LABEL: candidate.content,
        "headworks-run": candidate.pushed.run_id,
        "headworks-config": str(facts.get("config_hash") or "")[:_DIGEST],
        "headworks-data": str(facts.get("data_fingerprint") or "")[:_DIGEST],
        "headworks-revision": str(facts.get("git_revision") or ""),
    }
    return {**more, **{name: label_value(value) for name, value in lineage.items() if value}}


def label_value(text: str) -> str:
    """Text as the value of a label: at most 63 small letters, digits, - and _."""
    return re.sub(r"[^a-z0-9_-]", "-", text.lower())[:_LABEL_LENGTH]


def upload_request(
    candidate: Candidate, upload: Upload, parent: str, *, is_first: bool
) -> aiplatform_v1.UploadModelRequest:
    """The request that registers a version: the first makes the model, all others name it."""
    from google.cloud.aiplatform_v1 import UploadModelRequest

    model_id = upload.settings.model
    place = {"model_id": model_id} if is_first else {"parent_model": f"{parent}/models/{model_id}"}
    encryption = {"encryption_spec": {"kms_key_name": upload.kms_key}} if upload.kms_key else {}
    pushed = candidate.pushed
    return UploadModelRequest(
        parent=parent,
        **place,
        model={
            "display_name": model_id,
            "version_description": f"version {pushed.version} of {pushed.pipeline}, run {pushed.run_id}",
            "artifact_uri": candidate.uri,
            "container_spec": container_spec(upload.image),
            "labels": labels_of(candidate, upload.labels),
            **encryption,
        },
    )


def _upload(api: Api, candidate: Candidate, upload: Upload, *, is_first: bool) -> Registered:
    request = upload_request(candidate, upload, api.parent, is_first=is_first)
    answer = api.call("upload_model", request, f"model {upload.settings.model}")
    return Registered(
        # The service names the project by its number, and may name the version, too.
        model=f"{api.parent}/models/{upload.settings.model}",
        version=answer.model_version_id,
        serving_version=str(candidate.pushed.version),
        labels=dict(request.model.labels),
        is_new=True,
    )


def _is_same(known: Registered, candidate: Candidate) -> bool:
    return (
        known.serving_version == str(candidate.pushed.version)
        and known.labels.get(CONTENT_LABEL) == candidate.content
    )


def _registered(name: str, model: aiplatform_v1.Model) -> Registered:
    labels = dict(model.labels)
    return Registered(
        model=name,
        version=model.version_id,
        serving_version=labels.get(VERSION_LABEL, ""),
        aliases=tuple(sorted(model.version_aliases)),
        labels=labels,
    )


def _import_evaluation(api: Api, version: Registered, candidate: Candidate, evaluation: Evaluation) -> bool:
    """Imports it if the version has none; returns whether it did."""
    from google.cloud import aiplatform_v1 as service

    what = f"evaluation of {version.resource}"
    listing = service.ListModelEvaluationsRequest(parent=version.resource)
    if not version.is_new and api.call("list_model_evaluations", listing, what):
        return False
    request = service.ImportModelEvaluationRequest(
        parent=version.resource,
        model_evaluation={
            "display_name": f"run {candidate.pushed.run_id}",
            "metrics_schema_uri": evaluation.schema_uri,
            "metrics": _value(evaluation.metrics),
            "slice_dimensions": ["slice"] if evaluation.slices else [],
        },
    )
    imported = api.call("import_model_evaluation", request, what)
    slices = [_slice(evaluation, *place) for place in evaluation.slices]
    for start in range(0, len(slices), _SLICES_AT_ONCE):
        some = slices[start : start + _SLICES_AT_ONCE]
        more = service.BatchImportModelEvaluationSlicesRequest(
            parent=imported.name, model_evaluation_slices=some
        )
        api.call("batch_import_model_evaluation_slices", more, what)
    return True


def _slice(evaluation: Evaluation, column: str, value: str) -> aiplatform_v1.ModelEvaluationSlice:
    from google.cloud.aiplatform_v1 import ModelEvaluationSlice

    return ModelEvaluationSlice(
        slice_={
            "dimension": "slice",
            "value": f"{column} = {value}",
            "slice_spec": {"configs": {column: {"value": {"string_value": value}}}},
        },
        metrics_schema_uri=evaluation.schema_uri,
        metrics=_value(evaluation.slices[column, value]),
    )


def _value(content: Mapping[str, Any]) -> Any:
    from google.protobuf import json_format, struct_pb2

    return json_format.ParseDict(content, struct_pb2.Value())


def _move_aliases(
    api: Api,
    version: Registered,
    known: Sequence[Registered],
    aliases: Sequence[str],
    tell: Callable[[str], None],
) -> Registered:
    """Moves those of the aliases that the version lacks, unless a later version is registered."""
    from google.cloud.aiplatform_v1 import MergeVersionAliasesRequest

    lacking = [alias for alias in aliases if alias not in version.aliases]
    later = [one.version for one in known if int(one.version) > int(version.version)]
    if not lacking:
        return version
    if later:
        tell(f"aliases: {', '.join(lacking)} stay where they are, for version {later[-1]} is newer")
        return version
    request = MergeVersionAliasesRequest(name=version.resource, version_aliases=lacking)
    api.call("merge_version_aliases", request, f"aliases of {version.resource}")
    tell(f"aliases: {', '.join(lacking)} moved to version {version.version}")
    return replace(version, aliases=tuple(sorted((*version.aliases, *lacking))))
