"""A wide block on 2 × 2 virtual devices says and learns what the same block on one device does."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def measured():
    arguments = [
        "--inputs",
        "12",
        "--width",
        "64",
        "--outputs",
        "6",
        "--rows",
        "32",
        "--steps",
        "4",
        "--json",
    ]
    # A process of its own: TensorFlow's devices can be divided only before it has used one.
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.mesh", *arguments],
        cwd=ROOT,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def test_outputs_gradients_and_trained_weights_are_those_of_the_whole_block(measured):
    assert measured["output_error"] < 1e-5
    assert measured["gradient_error"] < 1e-5
    assert measured["weight_error"] < 1e-5


def test_no_device_holds_more_than_its_part(measured):
    kernels, hidden_bias, last_bias = 4 * (12 * 64 + 64 * 6), 4 * 64, 4 * 6
    assert measured["bytes_whole"] == kernels + hidden_bias + last_bias
    assert measured["bytes_by_device"] == [(kernels + hidden_bias) // 2 + last_bias] * 4


def test_a_width_that_cannot_be_split_evenly_is_refused():
    code = "from models.mesh import *; ShardedBlock(Weights.random(4, 7, 2), cpu_mesh(2, 2))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert "ValueError: axis 1 of shape (4, 7) cannot be split evenly over the 2 devices" in done.stderr
