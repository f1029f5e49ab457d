"""New data, a message or a web request becomes a run of its span: one run a span, however often it is said.

What has been started stands in small objects of a bucket, which are written only if they are what they were when they
were read. Of two instances that learn of the same span, one wins.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import logging
import re
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, Protocol

from cloud import snapshots
from ingest.locations import has_span, span_of

if TYPE_CHECKING:
    from cloudevents.http import CloudEvent
    from flask import Request
    from google.cloud import storage

OBJECT_FINALIZED = "google.cloud.storage.object.v1.finalized"
MESSAGE_PUBLISHED = "google.cloud.pubsub.topic.v1.messagePublished"

_PLACE = re.compile(r"gs://(?P<bucket>[^/]+)/(?P<name>.*[^/])")
_NAME = re.compile(r"[a-z][a-z0-9-]{0,62}")
_ISSUERS = ("accounts.google.com", "https://accounts.google.com")
_CERTIFICATES = "https://www.googleapis.com/oauth2/v1/certs"
_LEASE = timedelta(minutes=10)
"""Longer than an instance may take: a claim of this age without a run was left by one that died."""
_TIMEOUT_S = 30.0
_LONGEST_REST_S = 2.0

_log = logging.getLogger(__name__)


class TriggerError(Exception):
    """Settings, a message or a request that is wrong, and stays so however often it is delivered."""


class TemporaryFailure(Exception):  # noqa: N818 (it is how the platform learns to deliver again)
    """What may succeed when it is delivered again."""


class SubmissionRefused(Exception):  # noqa: N818 (the service's answer, not an error of this program)
    """A run that the service does not take, and will not take as it is."""


class Submit(Protocol):
    """Starts a compiled job."""

    def __call__(self, job: Mapping[str, Any], job_id: str, parameters: Mapping[str, int | str]) -> str:
        """Returns the name of the run. If a run of this id is there already, it is the one.

        Raises:
          TemporaryFailure: if it may succeed later.
          SubmissionRefused: if it will not.
        """


@dataclass(frozen=True)
class TriggerSettings:
    """What a trigger of one pipeline knows.

    Attributes:
      name: of the pipeline; begins the ids of its runs.
      spec: `gs://BUCKET/NAME.json`, the compiled job.
      state: `gs://BUCKET/FOLDER` for what has been started.
      objects: `gs://` locations with `{SPAN}`, as in the configuration: objects that mean data, or that mean that all
        data of a span is there (`gs://BUCKET/FOLDER/{SPAN:3}/_SUCCESS`).
      settle_seconds: how long no further object of a span may arrive before its run starts; 0: the first starts it.
      callers: accounts that may ask over the web.
      audience: for whom the tokens of such requests have to be made out.
      certificates: where the keys of those who sign tokens are.
    """

    name: str
    spec: str
    state: str
    objects: tuple[str, ...] = ()
    settle_seconds: int = 0
    callers: tuple[str, ...] = ()
    audience: str = ""
    certificates: str = _CERTIFICATES

    @classmethod
    def of(cls, variables: Mapping[str, str]) -> TriggerSettings:
        """From environment variables.

        Raises:
          TriggerError: naming the variable that is missing or wrong.
        """
        settings = cls(
            name=_variable(variables, "HEADWORKS_NAME", _NAME),
            spec=_variable(variables, "HEADWORKS_SPEC", _PLACE),
            state=_variable(variables, "HEADWORKS_STATE", _PLACE),
            objects=tuple(variables.get("HEADWORKS_OBJECTS", "").split()),
            settle_seconds=int(
                _variable(variables, "HEADWORKS_SETTLE_SECONDS", re.compile(r"[0-9]{1,6}"), "0")
            ),
            callers=tuple(variables.get("HEADWORKS_CALLERS", "").split()),
            audience=variables.get("HEADWORKS_AUDIENCE", ""),
            certificates=variables.get("HEADWORKS_CERTIFICATES", _CERTIFICATES),
        )
        for location in settings.objects:
            if not (_PLACE.fullmatch(location) and has_span(location)):
                raise TriggerError(f"HEADWORKS_OBJECTS: {location}: want gs://BUCKET/… with {{SPAN}}")
        if bool(settings.callers) != bool(settings.audience):
            raise TriggerError("HEADWORKS_CALLERS, HEADWORKS_AUDIENCE: set both or none")
        return settings

    def span(self, bucket: str, name: str) -> int | None:
        """The span that an object belongs to; None for folders, hidden and temporary objects, and all others."""
        last = name.rpartition("/")[2]
        if not last:
            return None
        for location in self.objects:
            span = span_of(location, f"gs://{bucket}/{name}")
            is_hidden = last.startswith((".", "_")) and location.rpartition("/")[2][0] != last[0]
            if span is not None and not is_hidden:
                return span
        return None


@dataclass(frozen=True)
class Claim:
    """That a span has its run.

    Attributes:
      span: number of the span.
      cause: id of the event or request.
      attempt: counts the runs of the span.
      state: `claimed` while an instance starts the run, `free` after a failure that may pass.
      run: name of the run, once it is submitted.
      reason: why it was refused.
      snapshot_time: as of when the run reads its tables, where the job leaves that open. It is settled with the claim:
        asked for again at another minute, the run would be another one.
    """

    span: int
    cause: str
    attempt: int = 1
    state: Literal["claimed", "free", "submitted", "refused"] = "claimed"
    run: str = ""
    reason: str = ""
    snapshot_time: str = ""

    @property
    def is_done(self) -> bool:
        """Whether the service has answered."""
        return self.state in ("submitted", "refused")

    @property
    def parameters(self) -> dict[str, int | str]:
        """Of the run."""
        snapshot = {snapshots.PARAMETER: self.snapshot_time} if self.snapshot_time else {}
        return {"span": self.span, **snapshot}


@dataclass(frozen=True)
class StoredClaim:
    """A claim as it stands in the bucket."""

    claim: Claim
    generation: int
    updated: datetime


@dataclass(frozen=True)
class Arrivals:
    """Objects of a span that have arrived and wait for others.

    Attributes:
      span: number of the span.
      newest: when the last one arrived.
      notes: names and generations of the notes that say so.
    """

    span: int
    newest: datetime
    notes: tuple[tuple[str, int], ...]


class SpanStore:
    """Claims and arrivals of one pipeline, as objects of a bucket."""

    def __init__(self, folder: str, client: storage.Client) -> None:
        bucket, self._folder = _parts(folder)
        self._bucket = client.bucket(bucket)

    def read(self, span: int) -> StoredClaim | None:
        """The claim on a span, if there is one."""
        with _temporary(f"claim on span {span}"):
            blob = self._bucket.get_blob(self._claim(span), timeout=_TIMEOUT_S)
            if blob is None:
                return None
            text = blob.download_as_bytes(if_generation_match=blob.generation, timeout=_TIMEOUT_S)
        return StoredClaim(Claim(**json.loads(text)), blob.generation, blob.updated)

    def write(self, claim: Claim, generation: int) -> int:
        """Writes a claim over the one of a generation, 0 for none. Returns the new generation.

        Raises:
          TemporaryFailure: if another instance was quicker.
        """
        blob = self._bucket.blob(self._claim(claim.span))
        with _temporary(f"claim on span {claim.span}"):
            blob.upload_from_string(
                json.dumps(asdict(claim)),
                content_type="application/json",
                if_generation_match=generation,
                timeout=_TIMEOUT_S,
            )
        return int(blob.generation)

    def note(self, span: int, cause: str, name: str) -> None:
        """Notes that an object has arrived. Every event has its own note: one object takes a write a second."""
        digest = hashlib.sha256(cause.encode()).hexdigest()[:32]
        blob = self._bucket.blob(f"{self._folder}/arrived/{span}/{digest}")
        with _temporary(f"note of {name}"):
            blob.upload_from_string(name, timeout=_TIMEOUT_S)

    def arrivals(self) -> Iterator[Arrivals]:
        """The spans that wait."""
        prefix = f"{self._folder}/arrived/"
        spans: dict[int, Arrivals] = {}
        with _temporary("notes of arrivals"):
            for blob in self._bucket.list_blobs(prefix=prefix, timeout=_TIMEOUT_S):
                span = int(blob.name.removeprefix(prefix).partition("/")[0])
                known = spans.get(span, Arrivals(span, blob.updated, ()))
                spans[span] = replace(
                    known,
                    newest=max(known.newest, blob.updated),
                    notes=(*known.notes, (blob.name, blob.generation)),
                )
        yield from sorted(spans.values(), key=lambda one: one.span)

    def forget(self, arrivals: Arrivals) -> None:
        """Removes the notes."""
        from google.cloud.exceptions import NotFound

        for name, generation in arrivals.notes:
            with _temporary(f"note {name}"):
                try:
                    self._bucket.blob(name).delete(if_generation_match=generation, timeout=_TIMEOUT_S)
                except NotFound:
                    _log.info("note %s is gone already", name)

    def _claim(self, span: int) -> str:
        return f"{self._folder}/runs/{span}.json"


@dataclass(frozen=True)
class Answer:
    """What came of a span: whether this call started its run, and the claim as it stands."""

    started: bool
    claim: Claim


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class Triggers:
    """Events and requests of one pipeline.

    Attributes:
      settings: of the pipeline.
      client: of Cloud Storage.
      submit: starts a run.
      now: the time; for tests.
    """

    settings: TriggerSettings
    client: storage.Client
    submit: Submit
    now: Callable[[], datetime] = _now
    store: SpanStore = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "store", SpanStore(self.settings.state, self.client))

    def on_event(self, event: CloudEvent) -> None:
        """Handles an event of Cloud Storage or Pub/Sub. Returns if it need not be delivered again.

        Raises:
          TemporaryFailure: if it has to be.
        """
        cause = f"{event['source']} {event['id']}"
        try:
            if event["type"] == OBJECT_FINALIZED:
                self._on_object(_object(event.data), cause)
            elif event["type"] == MESSAGE_PUBLISHED:
                self._on_message(_mapping(event.data).get("message"), cause)
            else:
                raise TriggerError(f"events of type {event['type']} are not for this function")
        except TriggerError as error:
            _log.error("event %s: %s; it is dropped", cause, error)

    def on_request(self, request: Request) -> tuple[dict[str, Any], int]:
        """Answers a web request as JSON, with its status.

        `POST /` with `{"span": 7}` starts a run, with `"force": true` also a further one; `"id"` makes a repeated
        request the same one. `POST /settled` starts the runs of the spans for which nothing has arrived of late.
        """
        try:
            caller = self._caller(request.headers.get("Authorization", ""))
        except _NotAllowed as error:
            _log.warning("request refused: %s", error)
            return {"error": str(error)}, error.status
        except TemporaryFailure as error:
            return {"error": str(error)}, 503
        try:
            if request.method != "POST":
                return {"error": "want POST"}, 405
            if request.path == "/settled":
                return self._start_settled(caller), 200
            if request.path == "/":
                return self._on_call(_json(request.get_data()), caller)
        except TriggerError as error:
            return {"error": str(error)}, 400
        except TemporaryFailure as error:
            _log.warning("request of %s: %s", caller, error)
            return {"error": str(error)}, 503
        return {"error": "want the path / or /settled"}, 404

    def start(self, span: int, cause: str, *, is_forced: bool = False) -> Answer:
        """Starts the run of a span, unless it has one.

        Raises:
          TemporaryFailure: if it could not be started, or another instance is at it.
        """
        stored = self.store.read(span)
        earlier = stored.claim if stored else None
        if stored and earlier:
            if earlier.state == "claimed" and self.now() - stored.updated < _LEASE:
                raise TemporaryFailure(f"span {span} is being started for {earlier.cause}")
            if earlier.is_done and (not is_forced or earlier.cause == cause):
                return Answer(False, earlier)
        job = self._job()
        claim = Claim(span, cause, _attempt(earlier), snapshot_time=self._snapshot_time(job, earlier))
        generation = self.store.write(claim, stored.generation if stored else 0)
        job_id = f"{self.settings.name}-span-{span}-{claim.attempt}"
        try:
            claim = replace(claim, state="submitted", run=self.submit(job, job_id, claim.parameters))
        except SubmissionRefused as error:
            claim = replace(claim, state="refused", reason=str(error))
        except TemporaryFailure:
            self.store.write(replace(claim, state="free"), generation)
            raise
        self.store.write(claim, generation)
        return Answer(True, claim)

    def _snapshot_time(self, job: Mapping[str, Any], earlier: Claim | None) -> str:
        """For the next claim; empty where the job takes none, or has its own."""
        if not snapshots.is_open(job, job.get("runtimeConfig", {}).get("parameterValues", {})):
            return ""
        kept = earlier.snapshot_time if earlier is not None and not earlier.is_done else ""
        return kept or snapshots.minute(self.now())

    def _on_object(self, place: tuple[str, str], cause: str) -> None:
        bucket, name = place
        span = self.settings.span(bucket, name)
        if span is None:
            _log.info("gs://%s/%s belongs to no span; ignored", bucket, name)
        elif not self.settings.settle_seconds:
            self._start_and_log(span, cause)
        elif (stored := self.store.read(span)) and stored.claim.is_done:
            _say(Answer(False, stored.claim), cause)
        else:
            self.store.note(span, cause, f"gs://{bucket}/{name}")
            _log.info("span %d: gs://%s/%s has arrived", span, bucket, name)

    def _on_message(self, message: Any, cause: str) -> None:
        message = _mapping(message)
        attributes = _mapping(message.get("attributes") or {})
        if "eventType" in attributes:  # a bucket's own notification
            if attributes["eventType"] == "OBJECT_FINALIZE":
                self._on_object(
                    (str(attributes.get("bucketId")), str(attributes.get("objectId"))),
                    f"{cause} {attributes.get('objectGeneration', '')}",
                )
            return
        try:
            data = base64.b64decode(message.get("data") or "", validate=True)
        except (binascii.Error, TypeError, ValueError) as error:
            raise TriggerError(f"the message's data is no base64: {error}") from error
        self._start_and_log(_span(_json(data), ("span",)), cause)

    def _on_call(self, body: Mapping[str, Any], caller: str) -> tuple[dict[str, Any], int]:
        span = _span(body, ("span", "force", "id"))
        is_forced = body.get("force", False)
        if not isinstance(is_forced, bool):
            raise TriggerError(f"force: {is_forced!r}: want true or false")
        cause = f"{caller} {body.get('id') or uuid.uuid4()}"
        answer = self.start(span, cause, is_forced=is_forced)
        _say(answer, cause)
        status = 422 if answer.claim.state == "refused" else 202 if answer.started else 200
        return {"started": answer.started, **asdict(answer.claim)}, status

    def _start_settled(self, caller: str) -> dict[str, Any]:
        settled = timedelta(seconds=self.settings.settle_seconds)
        started, failed = [], []
        for arrivals in self.store.arrivals():
            if self.now() - arrivals.newest < settled:
                continue
            try:
                answer = self._start_and_log(arrivals.span, f"{caller} {arrivals.newest.isoformat()}")
                self.store.forget(arrivals)
            except TemporaryFailure as error:
                _log.warning("span %d: %s", arrivals.span, error)
                failed.append(arrivals.span)
            else:
                started += [arrivals.span] if answer.started else []
        if failed:
            raise TemporaryFailure(f"started spans {started}, and could not start {failed}")
        return {"started": started}

    def _start_and_log(self, span: int, cause: str) -> Answer:
        answer = self.start(span, cause)
        _say(answer, cause)
        return answer

    def _job(self) -> dict[str, Any]:
        bucket, name = _parts(self.settings.spec)
        with _temporary(self.settings.spec):
            text = self.client.bucket(bucket).blob(name).download_as_bytes(timeout=_TIMEOUT_S)
        try:
            return dict(_json(text))
        except TriggerError as error:  # of the deployment: the message is not to blame, and is not to be lost
            raise TemporaryFailure(f"{self.settings.spec}: {error}") from error

    def _caller(self, authorization: str) -> str:
        """The account that a request comes from."""
        from google.auth.exceptions import GoogleAuthError, TransportError
        from google.auth.transport.requests import Request
        from google.oauth2.id_token import verify_token

        kind, _, token = authorization.partition(" ")
        if kind.lower() != "bearer" or not token:
            raise _NotAllowed(401, "want a bearer token")
        if not self.settings.callers:
            raise _NotAllowed(403, "HEADWORKS_CALLERS names nobody who may ask")
        try:
            says = verify_token(token, Request(), self.settings.audience, self.settings.certificates)
        except TransportError as error:
            raise TemporaryFailure(f"keys of {self.settings.certificates}: {error}") from error
        except (GoogleAuthError, ValueError) as error:
            raise _NotAllowed(401, f"the token is not valid: {error}") from error
        if says.get("iss") not in _ISSUERS:
            raise _NotAllowed(401, f"the token is not of Google, but of {says.get('iss')}")
        if says.get("email") not in self.settings.callers or says.get("email_verified") is not True:
            raise _NotAllowed(403, f"{says.get('email')} may not ask")
        return str(says["email"])


class _NotAllowed(Exception):  # noqa: N818 (an answer)
    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


def _say(answer: Answer, cause: str) -> None:
    claim = answer.claim
    if answer.started and claim.state == "refused":
        _log.error(
            "span %d, for %s: refused: %s; mend it and ask with force", claim.span, cause, claim.reason
        )
    elif answer.started:
        _log.info("span %d, for %s: %s", claim.span, cause, claim.run)
    else:
        _log.info("span %d, for %s: has its run %s", claim.span, cause, claim.run or claim.reason)


def _attempt(earlier: Claim | None) -> int:
    """A claim without a run keeps its number, and with it the id of a run that may have been submitted after all."""
    if earlier is None:
        return 1
    return earlier.attempt + earlier.is_done


def _variable(
    variables: Mapping[str, str], name: str, pattern: re.Pattern[str], default: str | None = None
) -> str:
    value = variables.get(name, default)
    if value is None:
        raise TriggerError(f"{name} is not set")
    if not pattern.fullmatch(value):
        raise TriggerError(f"{name}: {value!r}: want what matches {pattern.pattern}")
    return value


def _parts(place: str) -> tuple[str, str]:
    match = _PLACE.fullmatch(place)
    if match is None:
        raise TriggerError(f"{place!r}: want gs://BUCKET/NAME")
    return match["bucket"], match["name"]


def _mapping(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise TriggerError(f"{str(value)[:200]!r}: want an object of JSON")
    return value


def _json(data: bytes) -> Mapping[str, Any]:
    try:
        return _mapping(json.loads(data))
    except ValueError as error:
        raise TriggerError(f"{data[:200]!r} is no JSON: {error}") from error


def _object(data: Any) -> tuple[str, str]:
    data = _mapping(data)
    for key in ("bucket", "name"):
        if not isinstance(data.get(key), str):
            raise TriggerError(f"{key}: missing in the event's data")
    return data["bucket"], data["name"]


def _span(body: Mapping[str, Any], known: tuple[str, ...]) -> int:
    for key in body:
        if key not in known:
            raise TriggerError(f"{key}: unknown; want {', '.join(known)}")
    span = body.get("span")
    if not isinstance(span, int) or isinstance(span, bool) or span < 0:
        raise TriggerError(f"span: {span!r}: want a whole number from 0")
    return span


@contextmanager
def _temporary(what: str) -> Iterator[None]:
    """Names what was at hand when the network or the service failed in a way that passes.

    Another failure of the bucket (permissions, a spec that is not there) is the deployment's, not the message's. It
    is raised as it is: the platform then delivers again, and at last to the dead letters, so that no span is lost.
    """
    from google.api_core.exceptions import PreconditionFailed

    try:
        yield
    except PreconditionFailed as error:
        raise TemporaryFailure(f"{what}: another instance was quicker") from error
    except _passing() as error:
        raise TemporaryFailure(f"{what}: {error}") from error


def connected(variables: Mapping[str, str]) -> Triggers:
    """The triggers that environment variables describe, with the real services behind them.

    Raises:
      TriggerError: naming the variable that is missing or wrong.
    """
    from google.cloud import storage

    return Triggers(TriggerSettings.of(variables), storage.Client(), vertex_submit(variables))


def vertex_submit(variables: Mapping[str, str]) -> Submit:
    """Starts runs on Vertex AI Pipelines, as the account that HEADWORKS_ENVIRONMENT names.

    The variable holds keys of an environment (docs/environments.md) as JSON: project, region, service_account, and
    network, kms_key and labels where there are any. HEADWORKS_ENDPOINT is for tests.

    Raises:
      TriggerError: if something is wrong in it.
    """
    from pydantic import TypeAdapter, ValidationError

    from pipeline.environment import Environment

    text = _variable(variables, "HEADWORKS_ENVIRONMENT", re.compile(r"\{.*\}", re.DOTALL))
    try:
        settings = TypeAdapter(Environment).validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise TriggerError(f"HEADWORKS_ENVIRONMENT: {key}: {first['msg']}") from error
    project, region = settings.project, settings.region
    if project is None or region is None or settings.service_account is None:
        raise TriggerError("HEADWORKS_ENVIRONMENT: want project, region and service_account")

    def submit(job: Mapping[str, Any], job_id: str, parameters: Mapping[str, int | str]) -> str:
        from cloud import vertex_pipelines
        from cloud.api_errors import CloudError
        from cloud.submission_checks import parameter_values

        target = vertex_pipelines.Target(project, region, variables.get("HEADWORKS_ENDPOINT"))
        try:
            values = parameter_values(job, [f"{name}={value}" for name, value in parameters.items()])
            request = vertex_pipelines.job_request(job, settings, values, job_id)
            submitted = vertex_pipelines.submit(request, target, sleep=_rest)
        except CloudError as error:
            if isinstance(error.__cause__, _passing()):
                raise TemporaryFailure(str(error)) from error
            raise SubmissionRefused(str(error)) from error
        return f"{target.parent}/pipelineJobs/{submitted.run.run_id}"

    return submit


def _rest(seconds: float) -> None:
    """A function is paid for by the second, and the platform tries again at greater distances."""
    time.sleep(min(seconds, _LONGEST_REST_S))


def _passing() -> tuple[type[Exception], ...]:
    """Errors of the libraries that may pass by themselves."""
    from google.api_core.exceptions import RetryError, ServerError, TooManyRequests
    from google.auth.exceptions import TransportError
    from requests.exceptions import ConnectionError as ConnectionFailed
    from requests.exceptions import Timeout

    return ServerError, TooManyRequests, RetryError, TransportError, ConnectionFailed, Timeout
