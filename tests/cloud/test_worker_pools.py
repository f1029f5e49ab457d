"""Pools follow from the strategy, in the service's order; machines that cannot train by it are refused by key."""

from __future__ import annotations

import pytest

from cloud import worker_pools
from cloud.worker_pools import REDUCTION_SERVER_IMAGE
from pipeline.environment import PoolMachine, TrainingJob, TuningJob
from pipeline.layers import ConfigError

IMAGE = "europe-west1-docker.pkg.dev/my-project/images/headworks@sha256:" + "0" * 64
COMMAND, ARGS = ["python", "-m", "pipeline.container"], ["--executor_class_path", "a.b.C"]
CPU = PoolMachine("n1-standard-8")
T4 = PoolMachine("n1-standard-8", "NVIDIA_TESLA_T4", 2, disk_gb=200, disk_type="pd-standard")
TPU = PoolMachine("ct5lp-hightpu-4t", tpu_topology="2x2")
BOARD = "projects/1/locations/europe-west1/tensorboards/7"


def machines(pools):
    return [(pool["machineSpec"]["machineType"], pool["replicaCount"]) for pool in pools]


def pools(training, strategy):
    worker_pools.check(training, strategy)
    return worker_pools.worker_pools(training, strategy, IMAGE, COMMAND, ARGS, {"B": "2", "A": "1"})


def test_one_machine_is_a_chief_alone_with_its_accelerators_and_its_disk():
    assert pools(TrainingJob(T4), "mirrored") == [
        {
            "machineSpec": {
                "machineType": "n1-standard-8",
                "acceleratorType": "NVIDIA_TESLA_T4",
                "acceleratorCount": 2,
            },
            "replicaCount": 1,
            "diskSpec": {"bootDiskType": "pd-standard", "bootDiskSizeGb": 200},
            "containerSpec": {
                "imageUri": IMAGE,
                "command": COMMAND,
                "args": ARGS,
                "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
            },
        }
    ]


def test_workers_stand_second_and_parameter_servers_third_without_the_chiefs_accelerators():
    found = pools(TrainingJob(T4, workers=3, parameter_servers=2), "parameter_server")
    assert machines(found) == [("n1-standard-8", 1), ("n1-standard-8", 3), ("n1-standard-8", 2)]
    assert ["acceleratorType" in pool["machineSpec"] for pool in found] == [True, True, False]
    assert all(pool["containerSpec"]["command"] == COMMAND for pool in found)


def test_reduction_servers_stand_third_with_an_image_and_a_command_of_their_own():
    *ours, third = pools(TrainingJob(T4, workers=3, reduction_servers=4), "multi_worker")
    assert machines(ours) == [("n1-standard-8", 1), ("n1-standard-8", 3)]
    assert machines([third]) == [("n1-highcpu-16", 4)]
    assert third["containerSpec"] == {"imageUri": REDUCTION_SERVER_IMAGE}


def test_a_tpu_machine_says_its_topology():
    [pool] = pools(TrainingJob(TPU), "tpu")
    assert pool["machineSpec"] == {"machineType": "ct5lp-hightpu-4t", "tpuTopology": "2x2"}


def test_a_search_has_a_small_chief_that_hands_out_trials_and_workers_that_run_them():
    found = worker_pools.tuning_pools(TrainingJob(T4, workers=9), TuningJob(workers=4), IMAGE, COMMAND, ARGS)
    assert machines(found) == [("n1-standard-4", 1), ("n1-standard-8", 4)]
    assert ["acceleratorType" in pool["machineSpec"] for pool in found] == [False, True]
    alone = worker_pools.tuning_pools(TrainingJob(T4, workers=9), None, IMAGE, COMMAND, ARGS)
    assert machines(alone) == [("n1-standard-8", 1)]


@pytest.mark.parametrize(
    ("training", "strategy", "said"),
    [
        (TrainingJob(CPU, workers=2), "none", "training.workers: 2, but train.strategy is none"),
        (TrainingJob(CPU), "multi_worker", "training.workers: 0, but train.strategy is multi_worker"),
        (TrainingJob(CPU, workers=1), "parameter_server", "training.parameter_servers: 0"),
        (TrainingJob(CPU, 1, parameter_servers=1), "multi_worker", "training.parameter_servers: 1, but"),
        (
            TrainingJob(T4, 1, 1, reduction_servers=1),
            "parameter_server",
            "training.reduction_servers: 1, but",
        ),
        (TrainingJob(CPU, 1, reduction_servers=1), "multi_worker", "n1-standard-8 has no GPUs"),
        (TrainingJob(CPU), "mirrored", "training.machine.accelerator: missing"),
        (TrainingJob(T4), "none", "training.machine.accelerators: 2, but strategy none uses one"),
        (TrainingJob(T4), "tpu", "want a machine with TPUs"),
        (TrainingJob(TPU), "auto", "training.machine: ct5lp-hightpu-4t, but train.strategy is auto"),
        (TrainingJob(PoolMachine("ct5lp-hightpu-4t")), "tpu", "training.machine.tpu_topology: None"),
        (TrainingJob(PoolMachine("n1-standard-8", tpu_topology="2x2")), "auto", "tpu_topology: 2x2, but"),
        (TrainingJob(PoolMachine("n1-standard-8", "TPU_V3")), "tpu", "machine cloud-tpu goes with"),
        (TrainingJob(PoolMachine("n2-standard-8", "NVIDIA_L4")), "auto", "take no GPU"),
        (TrainingJob(PoolMachine("g2-standard-8", "NVIDIA_TESLA_T4")), "auto", "want NVIDIA_L4"),
        (
            TrainingJob(PoolMachine("g2-standard-24", "NVIDIA_L4")),
            "auto",
            "accelerators: 1 x NVIDIA_L4.*; want 2",
        ),
        (TrainingJob(PoolMachine("a2-highgpu-8g")), "auto", "comes with 8 x NVIDIA_TESLA_A100"),
        (
            TrainingJob(PoolMachine("g2-standard-8", "NVIDIA_L4"), 1, 1),
            "parameter_server",
            "training.parameter_server_machine: missing",
        ),
        (
            TrainingJob(CPU, 1, 1, parameter_server_machine=T4),
            "parameter_server",
            "training.parameter_server_machine.accelerator: NVIDIA_TESLA_T4",
        ),
        (TrainingJob(CPU, tensorboard=BOARD), "none", "training.tensorboard: needs service_account"),
    ],
)
def test_what_cannot_train_is_refused_by_its_key(training, strategy, said):
    with pytest.raises(ConfigError, match=said):
        worker_pools.check(training, strategy)


def test_every_fault_has_a_line():
    training = TrainingJob(CPU, workers=1, parameter_servers=1, tensorboard=BOARD)
    with pytest.raises(ConfigError) as raised:
        worker_pools.check(training, "none")
    assert len(str(raised.value).splitlines()) == 3
    worker_pools.check(
        TrainingJob(CPU, tensorboard=BOARD), "none", "trainer@my-project.iam.gserviceaccount.com"
    )


@pytest.mark.parametrize(
    ("tuning", "method", "workers", "said"),
    [
        (TuningJob(), "random", 4, "tune.workers: 4 processes of one machine"),
        (TuningJob(service=True), "hyperband", 1, "tuning.service: .*tune.method is hyperband"),
    ],
)
def test_a_search_that_cannot_be_is_refused_by_its_key(tuning, method, workers, said):
    with pytest.raises(ConfigError, match=said):
        worker_pools.check_tuning(TrainingJob(CPU), tuning, method=method, workers=workers)
    worker_pools.check_tuning(TrainingJob(CPU), None, method=method, workers=workers)
