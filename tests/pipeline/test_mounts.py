"""Buckets as folders."""

import pytest

from pipeline.mounts import MOUNTS, MountError, is_remote, local_path, require_mounted, uri_of


@pytest.mark.parametrize(
    ("uri", "path"),
    [("gs://b/a/x", "/gcs/b/a/x"), ("minio://b/a", "/minio/b/a"), ("s3://b/a", "/s3/b/a")],
)
def test_a_uri_becomes_a_path_and_that_path_the_uri_again(uri, path):
    assert is_remote(uri)
    assert local_path(uri) == path
    assert uri_of(path) == uri


def test_a_path_outside_of_all_mounts_stays_as_it_is():
    for path in ("/data/gcs/x", "/gcsfuse/x", "relative", ""):
        assert not is_remote(path)
        assert local_path(path) == uri_of(path) == require_mounted(path) == path


def test_a_bucket_that_is_not_there_is_named(tmp_path, monkeypatch):
    with pytest.raises(MountError, match=r"^gs://no-such/a/b: the bucket is not mounted at /gcs/no-such; "):
        require_mounted("gs://no-such/a/b")
    monkeypatch.setitem(MOUNTS, "gs://", f"{tmp_path}/")
    (tmp_path / "there").mkdir()
    assert require_mounted("gs://there/a") == f"{tmp_path}/there/a"
