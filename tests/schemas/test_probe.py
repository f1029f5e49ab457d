import numpy as np

from schemas.probe import Probe, pack, unpack


def test_a_probe_is_read_back_as_it_was_written(tmp_path):
    probe = Probe(
        (b"one\x00", b"", b"\x00three"),
        {
            "fare_scaled": np.array([[1.5], [0.0], [-2.0]], np.float32),
            "company_id": np.array([[1], [0], [2]]),
        },
        np.array([[0.25, 0.75], [1.0, 0.0], [0.5, 0.5]]),
    )
    probe.write(tmp_path / "run")
    stored = Probe.read(tmp_path / "run")
    assert stored.examples == probe.examples
    assert set(stored.columns) == set(probe.columns)
    for name, values in probe.columns.items():
        np.testing.assert_array_equal(stored.columns[name], values)
        assert stored.columns[name].dtype == values.dtype
    np.testing.assert_array_equal(stored.scores, probe.scores)


def test_a_probe_can_be_cut():
    probe = Probe((b"1", b"2", b"3"), {"a": np.arange(3.0)[:, None]}, np.ones((3, 1)))
    assert len(probe.first(2)) == 2
    assert probe.first(2).examples == (b"1", b"2")
    assert probe.first(9).columns["a"].shape == (3, 1)


def test_nothing_can_be_packed():
    assert unpack(*pack([])) == ()
