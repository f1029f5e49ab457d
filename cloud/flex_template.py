"""Flex Templates: a command as a job that others launch on Dataflow with parameters, without this project at hand.

The spec that stands on Cloud Storage is made from the command's own options, so that it cannot say other than they do.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from cloud.dataflow import DataflowError, DataflowSettings, SubmittedJob, client_settings, explained, job_name

if TYPE_CHECKING:
    from google.cloud import dataflow_v1beta3

_BETWEEN = ","
_NUMBER = r"^-?[0-9]+(\.[0-9]+)?$"
_WHOLE_NUMBER = r"^-?[0-9]+$"
_TRUTH = "^(true|false)$"
_SPEC = re.compile(r"gs://[^/]+/.+\.json")


def container_spec(
    command: click.Command,
    settings: DataflowSettings,
    *,
    streaming: bool = False,
    kinds: Mapping[str, str] | None = None,
    hidden: Sequence[str] = (),
) -> dataflow_v1beta3.ContainerSpec:
    """What the service knows of a template: image, parameters with what they may be, and the workers by default.

    Args:
      command: whose arguments and options become parameters: a name with underscores, its help text, its choices and
        kind of number as a regular expression. One that may be repeated takes values with commas between.
      settings: image, and the workers unless a launch says otherwise.
      streaming: whether the job reads without end.
      kinds: names of `ParameterType` by parameter, such as `PUBSUB_SUBSCRIPTION`; the console then helps to fill it in.
      hidden: parameters that are not for those who launch.

    Raises:
      DataflowError: if `kinds` or `hidden` names no parameter.
    """
    from google.cloud import dataflow_v1beta3 as api

    known = {one.name for one in _parameters(command)}
    for name in (*(kinds or {}), *hidden):
        if name not in known:
            raise DataflowError(
                f"{name} is no parameter of {command.name}; it has {', '.join(sorted(known))}"
            )
    context = click.Context(command)
    return api.ContainerSpec(
        image=settings.image,
        sdk_info=api.SDKInfo(language=api.SDKInfo.Language.PYTHON),
        metadata=api.TemplateMetadata(
            name=f"headworks {command.name}",
            description=command.get_short_help_str(limit=400),
            streaming=streaming,
            parameters=[
                _metadata(one, context, (kinds or {}).get(one.name or ""))
                for one in _parameters(command)
                if one.name not in hidden
            ],
        ),
        default_environment=_environment(settings, streaming),
    )


def to_json(spec: dataflow_v1beta3.ContainerSpec) -> str:
    """The spec as it stands on Cloud Storage."""
    kind = type(spec)
    text = kind.to_json(spec, use_integers_for_enums=False, including_default_value_fields=False)
    return json.dumps(json.loads(text), indent=2) + "\n"


def launch(
    spec: dataflow_v1beta3.ContainerSpec,
    place: str,
    settings: DataflowSettings,
    job_id: str,
    parameters: Mapping[str, str],
) -> SubmittedJob:
    """Launches a template's job; Dataflow starts its container, which then submits the pipeline.

    Args:
      spec: against which the parameters are checked.
      place: where the spec stands: `gs://BUCKET/….json`.
      settings: where the job runs.
      job_id: names the job: while it runs, no other one of the same id is taken.
      parameters: by name.

    Raises:
      DataflowError: if a parameter is unknown, missing or not of its form, or the service does not take the job.
    """
    from google.cloud import dataflow_v1beta3 as api

    if not _SPEC.fullmatch(place):
        raise DataflowError(f"{place}: want the place of the spec, gs://BUCKET/PATH.json")
    _check(spec, parameters)
    name = job_name(job_id)
    request = api.LaunchFlexTemplateRequest(
        project_id=settings.project,
        location=settings.region,
        launch_parameter=api.LaunchFlexTemplateParameter(
            job_name=name,
            container_spec_gcs_path=place,
            parameters=dict(parameters),
            environment=_environment(settings, spec.metadata.streaming),
        ),
    )
    with explained(f"job {name} in {settings} was not started"):
        client = api.FlexTemplatesServiceClient(**client_settings(settings))
        launched = client.launch_flex_template(request)
    return SubmittedJob(settings, name, launched.job.id)


def command_line(command: click.Command, parameters: Mapping[str, str]) -> list[str]:
    """The command's arguments for a template's parameters, as the container gets them.

    Raises:
      DataflowError: if one is unknown.
    """
    known = {str(one.name): one for one in _parameters(command)}
    unknown = sorted(parameters.keys() - known.keys())
    if unknown:
        raise DataflowError(f"{unknown[0]} is no parameter of {command.name}; it has {', '.join(known)}")
    options, arguments = [], []
    for name, value in parameters.items():
        one = known[name]
        values = value.split(_BETWEEN) if _is_repeated(one) else [value]
        if isinstance(one, click.Argument):
            arguments += values
        elif one.is_flag:  # type: ignore[attr-defined]
            options += [one.opts[-1]] if value == "true" else []
        else:
            options += [f"{one.opts[-1]}={each}" for each in values]
    return [*options, *(["--", *arguments] if arguments else [])]


def _parameters(command: click.Command) -> Iterator[click.Parameter]:
    return (one for one in command.params if one.expose_value and one.name != "help")


def _is_repeated(one: click.Parameter) -> bool:
    return bool(getattr(one, "multiple", False)) or one.nargs == -1


def _metadata(
    one: click.Parameter, context: click.Context, kind: str | None
) -> dataflow_v1beta3.ParameterMetadata:
    from google.cloud import dataflow_v1beta3 as api

    found, regex, choices = _form(one)
    name = str(one.name)
    help_ = getattr(one, "help", None) or name.replace("_", " ").capitalize()
    default = one.get_default(context, call=False)
    is_plain = isinstance(default, str | int | float) and not isinstance(default, bool)
    return api.ParameterMetadata(
        name=name,
        label=name.replace("_", " ").capitalize(),
        help_text=f"{help_.rstrip('.')}. Several with commas between." if _is_repeated(one) else help_,
        is_optional=not one.required,
        regexes=[regex] if regex else [],
        param_type=api.ParameterType[kind or found],
        enum_options=[api.ParameterMetadataEnumOption(value=value, label=value) for value in choices],
        default_value=str(default) if is_plain else "",
    )


def _form(one: click.Parameter) -> tuple[str, str | None, Sequence[str]]:
    """Kind, regular expression and choices of a parameter's values."""
    type_ = one.type
    if getattr(one, "is_flag", False):
        return "BOOLEAN", _TRUTH, ()
    if isinstance(type_, click.Choice):
        choices = [str(choice) for choice in type_.choices]
        return "ENUM", f"^({'|'.join(map(re.escape, choices))})$", choices
    if isinstance(type_, click.types.IntParamType):
        return "NUMBER", _WHOLE_NUMBER, ()
    if isinstance(type_, click.types.FloatParamType):
        return "NUMBER", _NUMBER, ()
    return "TEXT", None, ()


def _environment(
    settings: DataflowSettings, streaming: bool
) -> dataflow_v1beta3.FlexTemplateRuntimeEnvironment:
    from google.cloud import dataflow_v1beta3 as api

    addresses = api.WorkerIPAddressConfiguration
    environment = api.FlexTemplateRuntimeEnvironment(
        num_workers=settings.min_workers,
        max_workers=settings.max_workers,
        machine_type=settings.machine_type,
        service_account_email=settings.service_account,
        temp_location=settings.temp,
        staging_location=settings.staging,
        sdk_container_image=settings.image,
        additional_experiments=["use_runner_v2"],
        additional_user_labels=dict(settings.labels),
        ip_configuration=addresses.WORKER_IP_PRIVATE if settings.private_ips else addresses.WORKER_IP_PUBLIC,
        enable_streaming_engine=streaming,
    )
    if settings.subnetwork is not None:
        environment.subnetwork = settings.subnetwork
    return environment


def _check(spec: dataflow_v1beta3.ContainerSpec, parameters: Mapping[str, Any]) -> None:
    known = {one.name: one for one in spec.metadata.parameters}
    for name, value in parameters.items():
        if name not in known:
            raise DataflowError(f"{name} is no parameter of the template; it has {', '.join(known)}")
        for regex in known[name].regexes:
            if not re.search(regex, value):
                raise DataflowError(f"{name} {value!r}: want what matches {regex} ({known[name].help_text})")
    missing = [name for name, one in known.items() if not one.is_optional and name not in parameters]
    if missing:
        raise DataflowError(f"{missing[0]} is missing: {known[missing[0]].help_text}")
