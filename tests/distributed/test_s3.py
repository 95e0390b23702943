"""Label a table of boxes from and to an object store that speaks S3, on this machine."""

import pytest

from boxel.data.synthetic import write_scenes
from boxel.distributed import label_table

pandas = pytest.importorskip("pandas")
pytest.importorskip("pyarrow")
s3fs = pytest.importorskip("s3fs")
moto_server = pytest.importorskip("moto.server")


@pytest.fixture
def store(monkeypatch):
    """An empty store."""
    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://{}:{}".format(*server.get_host_and_port()))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "nothing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    s3fs.S3FileSystem.clear_instance_cache()
    yield s3fs.S3FileSystem()
    s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


def read_shards(store, out):
    return {name.rpartition("/")[2]: store.cat(name) for name in store.glob(f"{out}/part-*.parquet")}


def test_a_job_from_and_to_s3(store, tmp_path):
    data = write_scenes(tmp_path / "data", 6, seed=3, height=64, width=96)
    columns = {"id": "ann_id", "file_name": "image", "category": "label"}
    data.to_frame().rename(columns=columns).to_parquet(tmp_path / "boxes.parquet", index=False)
    for bucket in ("photos", "masks"):
        store.mkdir(bucket)
    for name in data.paths[1:]:
        store.put_file(str(data.root / name), f"photos/train/{name}")
    store.put_file(str(tmp_path / "boxes.parquet"), "photos/boxes.parquet")
    settings = {"images": "s3://photos/train", "teacher": "ellipse", "shard": 5, "max_bad": 0.5}
    done = label_table("s3://photos/boxes.parquet", "s3://masks/a", **settings)
    assert done.counts["labeled"] == (data.image_index > 0).sum()
    assert done.failure.startswith(f"s3://photos/train/{data.paths[0]}: the image is missing")
    shards = read_shards(store, "masks/a")
    assert len(shards) == done.labeled > 2
    here = label_table(tmp_path / "boxes.parquet", tmp_path / "here", **settings)
    assert here.counts == done.counts
    assert {path.name: path.read_bytes() for path in (tmp_path / "here").glob("part-*")} == shards
    store.rm("masks/a/part-000001.parquet")
    again = label_table(
        "s3://photos/boxes.parquet", "s3://masks/a", engine="processes", workers=2, **settings
    )
    assert (again.labeled, again.reused) == (1, len(shards) - 1)
    store.invalidate_cache()
    assert read_shards(store, "masks/a") == shards
