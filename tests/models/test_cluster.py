"""Clusters of real processes: how they begin, how they end, and that nothing is left of them."""

import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from models.cluster import ClusterError, Shape, run

SHOW = "import os; print(os.environ['TF_CONFIG'])"


def ran(program: str, shape: Shape, *, restarts: int = 0) -> tuple[list[tuple[str, str]], int]:
    """What the tasks printed, with their names, and how many were started again."""
    said: list[tuple[str, str]] = []
    used = run([sys.executable, "-c", program], shape, lambda *line: said.append(line), restarts=restarts)
    return said, used


def is_running(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_every_task_has_the_same_cluster_and_a_place_of_its_own_in_it() -> None:
    said, _ = ran(SHOW, Shape(2))
    configs = {name: json.loads(line) for name, line in said}
    assert sorted(configs) == ["worker 0", "worker 1"]
    assert configs["worker 0"]["cluster"] == configs["worker 1"]["cluster"]
    assert [configs[f"worker {n}"]["task"] for n in (0, 1)] == [
        {"type": "worker", "index": n} for n in (0, 1)
    ]
    addresses = configs["worker 0"]["cluster"]["worker"]
    assert len(set(addresses)) == 2
    assert all(address.startswith("127.0.0.1:") for address in addresses)


def test_with_parameter_servers_the_chief_alone_says_when_the_work_is_done() -> None:
    serve = (
        "import json, os, time; print(os.getpid(), flush=True)\n"
        "json.loads(os.environ['TF_CONFIG'])['task']['type'] == 'chief' or time.sleep(60)"
    )
    said, _ = ran(serve, Shape(2, parameter_servers=1))
    assert sorted(name for name, _ in said) == ["chief 0", "ps 0", "worker 0", "worker 1"]
    assert not any(is_running(int(process)) for _, process in said)


def test_a_task_that_fails_is_named_with_its_last_words_and_ends_the_others() -> None:
    program = (
        "import json, os, sys, time; print(os.getpid(), flush=True)\n"
        "if json.loads(os.environ['TF_CONFIG'])['task']['index'] == 1:\n"
        "    time.sleep(0.5); sys.exit('the disk is full')\n"
        "time.sleep(60)"
    )
    said: list[tuple[str, str]] = []
    with pytest.raises(
        ClusterError, match=r"worker 1 exited with 1; its last lines:\n.*\n  the disk is full"
    ):
        run([sys.executable, "-c", program], Shape(2), lambda *line: said.append(line), restarts=3)
    processes = [int(line) for _, line in said if line.isdigit()]
    assert len(processes) == 2
    assert not any(is_running(process) for process in processes)


DIES_ONCE = """
import json, os, pathlib, signal, time
task = json.loads(os.environ["TF_CONFIG"])["task"]
print("started", flush=True)
flag = pathlib.Path({flag!r})
if task == {{"type": "worker", "index": 1}} and not flag.exists():
    flag.touch()
    time.sleep(0.3)
    os.kill(os.getpid(), signal.SIGKILL)
time.sleep(1.5 if task["type"] in ("worker", "chief") else 60)
"""


@pytest.mark.parametrize(
    ("shape", "starts"),
    [
        (Shape(2), {"worker 0": 2, "worker 1": 2}),
        (Shape(2, parameter_servers=1), {"chief 0": 1, "ps 0": 1, "worker 0": 1, "worker 1": 2}),
    ],
    ids=["all of synchronous workers", "the worker alone of a chief's"],
)
def test_a_killed_worker_is_started_again(tmp_path: Path, shape: Shape, starts: dict[str, int]) -> None:
    said, used = ran(DIES_ONCE.format(flag=str(tmp_path / "died")), shape, restarts=1)
    assert used == 1
    begun = [name for name, line in said if line == "started"]
    assert {name: begun.count(name) for name in begun} == starts
    assert any("worker 1 was killed by SIGKILL" in line for name, line in said if name == "cluster")


def test_restarts_come_to_an_end() -> None:
    with pytest.raises(ClusterError, match="was killed by SIGKILL after 1 restarts"):
        ran("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", Shape(1), restarts=1)


def test_a_command_that_is_not_there_is_named() -> None:
    with pytest.raises(ClusterError, match="no-such-program: cannot be started"):
        run(["no-such-program"], Shape(1), lambda *_: None)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's signal at a parent's death is Linux's")
def test_no_task_outlives_the_one_that_started_it() -> None:
    starter = (
        "from models.cluster import Shape, run; import sys\n"
        "run([sys.executable, '-c', 'import os, time; print(os.getpid(), flush=True); time.sleep(60)'], Shape(2),"
        " lambda _, line: print(line, flush=True))"
    )
    import subprocess

    with subprocess.Popen([sys.executable, "-c", starter], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        tasks = [int(process.stdout.readline()) for _ in range(2)]
        os.kill(process.pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while any(is_running(task) for task in tasks) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(is_running(task) for task in tasks)
