"""The machines of a custom job of Vertex AI, as they follow from `train.strategy` and the environment's `training`.

The service knows the pools by their place: the chief, workers, parameter or reduction servers. All run one command;
TF_CONFIG, which the service sets, tells each who it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pipeline.environment import PoolMachine, TrainingJob, TuningJob
from pipeline.layers import ConfigError

Json = dict[str, Any]

IN_STEP, SERVED = "multi_worker", "parameter_server"
SEVERAL_MACHINES = (IN_STEP, SERVED)

REDUCTION_SERVER_IMAGE = "us-docker.pkg.dev/vertex-ai-restricted/training/reductionserver:latest"
"""The service's own; there is no digest that it promises to keep."""

_REDUCTION_SERVER_MACHINE = PoolMachine("n1-highcpu-16")
_ORACLE_MACHINE = PoolMachine("n1-standard-4")

_GPUS: tuple[tuple[str, Mapping[str, tuple[int, ...]]], ...] = (
    (
        r"n1-(standard|highmem|highcpu)-\d+",
        {
            "NVIDIA_TESLA_T4": (1, 2, 4),
            "NVIDIA_TESLA_P4": (1, 2, 4),
            "NVIDIA_TESLA_P100": (1, 2, 4),
            "NVIDIA_TESLA_V100": (1, 2, 4, 8),
        },
    ),
    (r"g2-standard-(4|8|12|16|32)", {"NVIDIA_L4": (1,)}),
    (r"g2-standard-24", {"NVIDIA_L4": (2,)}),
    (r"g2-standard-48", {"NVIDIA_L4": (4,)}),
    (r"g2-standard-96", {"NVIDIA_L4": (8,)}),
    *((rf"a2-highgpu-{count}g", {"NVIDIA_TESLA_A100": (count,)}) for count in (1, 2, 4, 8)),
    (r"a2-megagpu-16g", {"NVIDIA_TESLA_A100": (16,)}),
    *((rf"a2-ultragpu-{count}g", {"NVIDIA_A100_80GB": (count,)}) for count in (1, 2, 4, 8)),
    *((rf"a3-highgpu-{count}g", {"NVIDIA_H100_80GB": (count,)}) for count in (1, 2, 4, 8)),
    (r"a3-megagpu-8g", {"NVIDIA_H100_MEGA_80GB": (8,)}),
    (r"a3-ultragpu-8g", {"NVIDIA_H200_141GB": (8,)}),
    (r"a4-highgpu-8g", {"NVIDIA_B200": (8,)}),
)
"""Kinds and numbers of GPUs by machine type; only to n1 machines may one leave them out."""

_TPU_VM = re.compile(r"ct(4p-hightpu-4t|5lp-hightpu-[148]t|5p-hightpu-[124]t|6e-standard-[148]t)")
_CLOUD_TPU = "cloud-tpu"
_CLOUD_TPUS = ("TPU_V2", "TPU_V3")
_TOPOLOGY = re.compile(r"\d+x\d+(x\d+)?")


def check(training: TrainingJob, strategy: str, service_account: str | None = None) -> None:
    """Whether these machines exist and can train by that strategy.

    Args:
      training: of the environment.
      strategy: `train.strategy`.
      service_account: of the environment; a TensorBoard instance needs one.

    Raises:
      ConfigError: naming the keys, one line a fault.
    """
    _refuse([*_faults(training, strategy), *_tensorboard_faults(training, service_account)])


def check_tuning(
    training: TrainingJob,
    tuning: TuningJob | None,
    service_account: str | None = None,
    *,
    method: str = "random",
    workers: int = 1,
) -> None:
    """Whether these machines can search.

    Args:
      training: of the environment.
      tuning: of the environment; None: one machine searches.
      service_account: of the environment; a TensorBoard instance needs one.
      method: `tune.method`.
      workers: `tune.workers`.

    Raises:
      ConfigError: naming the keys, one line a fault.
    """
    faults = [*_machine_faults("training.machine", training.machine)]
    if tuning is not None and workers > 1:
        faults.append(
            f"tune.workers: {workers} processes of one machine, but the environment's tuning.workers names machines; "
            "set tune.workers to 1, or leave tuning out"
        )
    if tuning is not None and tuning.service and method == "hyperband":
        faults.append(
            "tuning.service: chooses settings and no lengths of trials, but tune.method is hyperband; want bayesian or "
            "random"
        )
    _refuse([*faults, *_tensorboard_faults(training, service_account)])


def worker_pools(
    training: TrainingJob,
    strategy: str,
    image: str,
    command: Sequence[str],
    args: Sequence[str],
    env: Mapping[str, str] | None = None,
) -> list[Json]:
    """The pools of a training, each a WorkerPoolSpec as JSON, in the service's order.

    Args:
      training: checked by `check`.
      strategy: `train.strategy`.
      image: of all machines but reduction servers.
      command: they run, and
      args: its arguments.
      env: environment variables.
    """
    container = _container(image, command, args, env or {})
    pools = [_pool(training.machine, 1, container)]
    if training.workers:
        pools.append(_pool(training.machine, training.workers, container))
    if strategy == SERVED:
        pools.append(_pool(_server_machine(training), training.parameter_servers, container))
    if training.reduction_servers:
        servers: Json = {"imageUri": training.reduction_server_image or REDUCTION_SERVER_IMAGE}
        machine = training.reduction_server_machine or _REDUCTION_SERVER_MACHINE
        pools.append(_pool(machine, training.reduction_servers, servers))
    return pools


def tuning_pools(
    training: TrainingJob,
    tuning: TuningJob | None,
    image: str,
    command: Sequence[str],
    args: Sequence[str],
    env: Mapping[str, str] | None = None,
) -> list[Json]:
    """The pools of a search: a chief that hands out trials and workers that run them, or one machine that does both."""
    container = _container(image, command, args, env or {})
    if tuning is None:
        return [_pool(training.machine, 1, container)]
    return [_pool(_ORACLE_MACHINE, 1, container), _pool(training.machine, tuning.workers, container)]


def _refuse(faults: Sequence[str]) -> None:
    if faults:
        raise ConfigError("\n".join(faults))


def _faults(training: TrainingJob, strategy: str) -> Iterator[str]:
    servers = {"parameter_servers": SERVED, "reduction_servers": IN_STEP}
    for key, wanted in servers.items():
        count = getattr(training, key)
        if count and strategy != wanted:
            yield f"training.{key}: {count}, but train.strategy is {strategy}; want 0, or strategy {wanted}"
    if training.workers and strategy not in SEVERAL_MACHINES:
        yield (
            f"training.workers: {training.workers}, but train.strategy is {strategy}, which trains on one machine; "
            f"want 0, or strategy {' or '.join(SEVERAL_MACHINES)}"
        )
    if not training.workers and strategy in SEVERAL_MACHINES:
        yield f"training.workers: 0, but train.strategy is {strategy}; want 1 or more beside the chief"
    if strategy == SERVED and not training.parameter_servers:
        yield f"training.parameter_servers: 0, but train.strategy is {strategy}; want 1 or more"
    yield from _machine_faults("training.machine", training.machine)
    yield from _device_faults(training, strategy)
    if training.parameter_servers:
        yield from _server_faults(training)
    if training.reduction_server_machine and training.reduction_server_machine.accelerator:
        yield "training.reduction_server_machine.accelerator: reduction servers add up on processors; leave it out"


def _device_faults(training: TrainingJob, strategy: str) -> Iterator[str]:
    """Whether the strategy is one for the devices of the machine."""
    machine = training.machine
    if _is_tpu(machine) != (strategy == "tpu"):
        wanted = "strategy tpu" if _is_tpu(machine) else "a machine with TPUs, such as ct5lp-hightpu-4t"
        yield f"training.machine: {_named(machine)}, but train.strategy is {strategy}; want {wanted}"
    elif strategy == "mirrored" and not machine.accelerator:
        yield f"training.machine.accelerator: missing; {machine.type} alone has no GPU for strategy mirrored"
    elif strategy == "none" and machine.accelerator and machine.accelerators > 1:
        yield f"training.machine.accelerators: {machine.accelerators}, but strategy none uses one; want 1, or mirrored"
    if training.reduction_servers and not (machine.accelerator or "").startswith("NVIDIA_"):
        yield (
            f"training.reduction_servers: {training.reduction_servers}, but {machine.type} has no GPUs whose gradients "
            "they could add up; want 0, or training.machine.accelerator"
        )


def _server_faults(training: TrainingJob) -> Iterator[str]:
    given = training.parameter_server_machine
    if given is None:
        if training.machine.accelerator and not _is_detachable(training.machine):
            yield (
                f"training.parameter_server_machine: missing, and {training.machine.type} comes with its accelerators; "
                "name a machine without, such as n1-highmem-8"
            )
    elif given.accelerator:
        yield (
            f"training.parameter_server_machine.accelerator: {given.accelerator}; parameter servers hold weights and "
            "do not compute; leave it out"
        )
    else:
        yield from _machine_faults("training.parameter_server_machine", given)


def _machine_faults(key: str, machine: PoolMachine) -> Iterator[str]:
    """Whether there is such a machine with such accelerators."""
    topology = machine.tpu_topology
    if _TPU_VM.fullmatch(machine.type):
        if machine.accelerator:
            yield f"{key}.accelerator: {machine.accelerator}, but {machine.type} says its TPUs itself; leave it out"
        if not topology or not _TOPOLOGY.fullmatch(topology):
            yield f"{key}.tpu_topology: {topology}; {machine.type} wants one, such as 2x2"
        return
    if topology:
        yield f"{key}.tpu_topology: {topology}, but {machine.type} has no TPU v4 or later; leave it out"
    if (machine.type == _CLOUD_TPU) != (machine.accelerator in _CLOUD_TPUS):
        yield (
            f"{key}: {_named(machine)}; machine {_CLOUD_TPU} goes with accelerator {' or '.join(_CLOUD_TPUS)}, and "
            "with no other"
        )
    elif machine.type != _CLOUD_TPU:
        yield from _gpu_faults(key, machine)


def _gpu_faults(key: str, machine: PoolMachine) -> Iterator[str]:
    known = next((gpus for pattern, gpus in _GPUS if re.fullmatch(pattern, machine.type)), {})
    if machine.accelerator is None:
        if known and not _is_detachable(machine):
            [(kind, [count])] = known.items()
            yield f"{key}.accelerator: missing; {machine.type} comes with {count} x {kind}, which has to be said"
    elif machine.accelerator not in known:
        wanted = f"want {' or '.join(known)}" if known else "such machines take no GPU; see n1, g2, a2 and a3"
        yield f"{key}.accelerator: {machine.accelerator} does not go with {machine.type}; {wanted}"
    elif machine.accelerators not in known[machine.accelerator]:
        counts = " or ".join(str(count) for count in known[machine.accelerator])
        yield f"{key}.accelerators: {machine.accelerators} x {machine.accelerator} on {machine.type}; want {counts}"


def _tensorboard_faults(training: TrainingJob, service_account: str | None) -> Iterator[str]:
    if training.tensorboard and not service_account:
        yield "training.tensorboard: needs service_account, which writes the logs; set it"


def _is_tpu(machine: PoolMachine) -> bool:
    return bool(_TPU_VM.fullmatch(machine.type)) or machine.type == _CLOUD_TPU


def _is_detachable(machine: PoolMachine) -> bool:
    """Whether the machine is one without its accelerators, too."""
    return machine.type.startswith("n1-")


def _named(machine: PoolMachine) -> str:
    return f"{machine.type} with {machine.accelerator}" if machine.accelerator else machine.type


def _server_machine(training: TrainingJob) -> PoolMachine:
    return training.parameter_server_machine or replace(training.machine, accelerator=None, accelerators=1)


def _container(image: str, command: Sequence[str], args: Sequence[str], env: Mapping[str, str]) -> Json:
    container: Json = {"imageUri": image, "command": list(command), "args": list(args)}
    if env:
        container["env"] = [{"name": name, "value": value} for name, value in sorted(env.items())]
    return container


def _pool(machine: PoolMachine, count: int, container: Json) -> Json:
    spec: Json = {"machineType": machine.type}
    if machine.accelerator:
        spec |= {"acceleratorType": machine.accelerator, "acceleratorCount": machine.accelerators}
    if machine.tpu_topology:
        spec["tpuTopology"] = machine.tpu_topology
    return {
        "machineSpec": spec,
        "replicaCount": count,
        "diskSpec": {"bootDiskType": machine.disk_type, "bootDiskSizeGb": machine.disk_gb},
        "containerSpec": container,
    }
