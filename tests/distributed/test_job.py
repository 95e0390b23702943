"""Label tables of boxes in shards."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest

import boxel
from boxel.cli import main
from boxel.data import example_scenes
from boxel.data.synthetic import write_scenes
from boxel.distributed import label_table
from boxel.utils.errors import BoxelError, UsageError
from boxel.utils.locks import lock_output

pandas = pytest.importorskip("pandas")
pytest.importorskip("pyarrow")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """A dataset, with a table of its boxes beside it."""
    folder = tmp_path_factory.mktemp("scenes")
    data = write_scenes(folder / "data", 8, seed=3, height=64, width=96)
    columns = {"id": "ann_id", "file_name": "image", "category": "label"}
    rows = data.to_frame().rename(columns=columns)[["image", "ann_id", "x0", "y0", "x1", "y1", "label"]]
    rows.to_parquet(folder / "boxes.parquet", index=False)
    return data, folder / "boxes.parquet"


def label(scenes, out, **settings):
    data, boxes = scenes
    settings = {"teacher": "ellipse", "shard": 8, "images": data.root} | settings
    return label_table(settings.pop("boxes", boxes), out, **settings)


def read_all(out):
    return {path.name: path.read_bytes() for path in sorted(Path(out).glob("part-*"))}


def test_shards_have_the_masks_of_a_job(scenes, tmp_path):
    done = label(scenes, tmp_path / "out")
    data = scenes[0]
    assert done.counts == {"labeled": len(data.ids)} and done.labeled == len(read_all(tmp_path / "out")) > 2
    masks = boxel.read(tmp_path / "out")
    expected = boxel.label(data.without_masks(), teacher="ellipse")
    assert masks.ids == data.ids and masks.root.resolve() == data.root.resolve()
    np.testing.assert_array_equal(masks.boxes, data.boxes)
    np.testing.assert_array_equal(masks.quality, expected.quality)
    assert [masks.segmentation(k) for k in range(len(data.ids))] == [
        expected.segmentation(k) for k in range(len(data.ids))
    ]
    assert masks.source.tolist() == ["ellipse"] * len(data.ids)
    assert masks.areas.tolist() == [masks.mask(k).sum() for k in range(len(data.ids))]


def test_columns_of_a_shard(scenes, tmp_path):
    label(scenes, tmp_path / "out")
    rows = pandas.read_parquet(tmp_path / "out" / "part-000000.parquet")
    wanted = [
        "ann_id",
        "image",
        "box",
        "size",
        "counts",
        "quality",
        "trusted",
        "source",
        "status",
        "error",
        "label",
    ]
    assert {*wanted} <= {*rows.columns}
    first = rows.iloc[0]
    assert first["image"] == scenes[0].paths[0] and first["size"].tolist() == [64, 96]
    assert first["box"].tolist() == scenes[0].boxes[0].tolist()
    assert first["status"] == "labeled" and pandas.isna(first["error"])


def test_the_same_bytes_from_several_processes_threads_and_after_any_loss(scenes, tmp_path):
    label(scenes, tmp_path / "a")
    expected = read_all(tmp_path / "a")
    label(scenes, tmp_path / "b", engine="processes", workers=2)
    label(scenes, tmp_path / "c", workers=1)
    assert read_all(tmp_path / "b") == expected == read_all(tmp_path / "c")
    (tmp_path / "a" / "part-000001.parquet").unlink()
    before = (tmp_path / "a" / "part-000000.parquet").stat().st_mtime_ns
    done = label(scenes, tmp_path / "a")
    assert (done.labeled, done.reused) == (1, len(expected) - 1)
    assert done.counts == {"labeled": len(scenes[0].ids)}
    assert read_all(tmp_path / "a") == expected
    assert (tmp_path / "a" / "part-000000.parquet").stat().st_mtime_ns == before


def test_a_killed_job_goes_on(scenes, tmp_path):
    label(scenes, tmp_path / "whole")
    words = [
        sys.executable,
        "-m",
        "boxel",
        "label",
        scenes[1],
        "--images",
        scenes[0].root,
        "--teacher",
        "ellipse",
    ]
    words += ["--out", tmp_path / "out", "--engine", "processes", "--shard", "8"]
    for wait in (0.0, 0.3):
        job = subprocess.Popen(list(map(str, words)), start_new_session=True)
        while not (tmp_path / "out" / "_job.json").exists() and job.poll() is None:
            time.sleep(0.02)
        time.sleep(wait)
        os.killpg(job.pid, signal.SIGKILL)
        job.wait()
    assert subprocess.run(list(map(str, words))).returncode == 0
    assert read_all(tmp_path / "out") == read_all(tmp_path / "whole")


def test_other_settings_boxes_and_shards_are_refused(scenes, tmp_path):
    label(scenes, tmp_path / "out")
    expected = read_all(tmp_path / "out")
    with pytest.raises(BoxelError, match=r"teachers was \[\"ellipse\"\] and is \[\"rectangle\"\]"):
        label(scenes, tmp_path / "out", teacher="rectangle")
    with pytest.raises(BoxelError, match="shard was 8 and is 9"):
        label(scenes, tmp_path / "out", shard=9)
    rows = pandas.read_parquet(scenes[1])
    rows.loc[0, "x0"] += 1
    rows.to_parquet(tmp_path / "other.parquet")
    with pytest.raises(BoxelError, match="boxes was"):
        label(scenes, tmp_path / "out", boxes=tmp_path / "other.parquet")
    assert read_all(tmp_path / "out") == expected


def test_bad_rows_have_a_status_and_cost_only_themselves(scenes, tmp_path):
    data = scenes[0]
    images = shutil.copytree(data.root, tmp_path / "images")
    (images / data.paths[0]).unlink()
    (images / data.paths[1]).write_bytes(b"no image")
    rows = pandas.read_parquet(scenes[1])
    third, *_ = np.flatnonzero(rows["image"] == data.paths[2])
    rows.loc[third, "x1"] = rows.loc[third, "x0"]
    outside = len(rows) - 1
    rows.loc[outside, ["x0", "x1"]] = [500.0, 600.0]
    rows.to_parquet(tmp_path / "boxes.parquet")
    settings = {"boxes": tmp_path / "boxes.parquet", "images": images}
    with pytest.raises(
        BoxelError, match=r"more than the share of 0.01 .* the first: .*000000.png: .* missing"
    ):
        label(scenes, tmp_path / "out", **settings)
    done = label(scenes, tmp_path / "out", max_bad=0.5, **settings)
    found = pandas.concat([pandas.read_parquet(path) for path in sorted((tmp_path / "out").glob("part-*"))])
    assert found["ann_id"].tolist() == rows["ann_id"].tolist()
    failed = found["image"].isin(data.paths[:2]).to_numpy()
    assert (found["status"][failed] == "failed").all()
    assert found["error"].iloc[0].startswith(f"{images / data.paths[0]}: the image is missing")
    assert found["status"].iloc[third] == "no-box" and found["error"].iloc[third] == "the box has no area"
    assert found["status"].iloc[outside] == "empty"
    assert done.counts["labeled"] == len(rows) - failed.sum() - 2
    assert done.counts == found["status"].value_counts().to_dict()
    assert "failed; the first: " in done.summary()


def test_another_format_keeps_all_that_it_has(scenes, tmp_path):
    data = scenes[0]
    some = data.keep_masks(range(0, len(data.ids), 2))
    boxel.write(some, tmp_path / "some.json", polygons=True)
    done = label(scenes, tmp_path / "out", boxes=tmp_path / "some.json")
    assert done.counts == {"kept": len(data.ids[::2]), "labeled": len(data.ids[1::2])}
    masks, given = boxel.read(tmp_path / "out"), boxel.read(tmp_path / "some.json", images=data.root)
    assert masks.image_ids == given.image_ids and masks.categories == given.categories
    for k in range(len(data.ids)):
        if k % 2 == 0:
            assert masks.segmentation(k) == given.segmentation(k)
    done = label(scenes, tmp_path / "out", boxes=tmp_path / "some.json")
    assert done.labeled == 0


def test_rows_of_an_image_that_lie_apart_are_sorted(scenes, tmp_path):
    rows = pandas.read_parquet(scenes[1]).sort_values("x0")
    rows.to_parquet(tmp_path / "boxes.parquet")
    label(scenes, tmp_path / "out", boxes=tmp_path / "boxes.parquet")
    found = boxel.read(tmp_path / "out")
    assert sorted(found.ids) == sorted(scenes[0].ids)
    straight = boxel.label(scenes[0].without_masks(), teacher="ellipse")
    places = {id: k for k, id in enumerate(straight.ids)}
    assert all(found.segmentation(k) == straight.segmentation(places[id]) for k, id in enumerate(found.ids))


def test_images_and_shards_at_urls(scenes, tmp_path):
    fsspec = pytest.importorskip("fsspec")
    data, boxes = scenes
    memory = fsspec.filesystem("memory")
    for name in data.paths[1:]:
        memory.pipe(f"/photos/{name}", (data.root / name).read_bytes())
    memory.pipe("/boxes.parquet", boxes.read_bytes())
    done = label_table(
        "memory://boxes.parquet",
        "memory://out",
        images="memory://photos",
        teacher="ellipse",
        shard=8,
        max_bad=0.3,
    )
    assert done.failure.startswith(f"memory://photos/{data.paths[0]}: the image is missing")
    assert done.counts["labeled"] == np.isin(data.image_index, 0, invert=True).sum()
    assert sorted(Path(name).name for name in memory.ls("/out", detail=False))[0] == "_job.json"
    for name in memory.ls("/out", detail=False):
        assert not name.endswith(".partial")
    label(scenes, tmp_path / "here")
    masks = boxel.read(tmp_path / "here")
    rows = pandas.read_parquet(memory.open("/out/part-000001.parquet"))
    places = {id: k for k, id in enumerate(masks.ids)}
    last = rows[rows["status"] == "labeled"].iloc[-1]
    assert masks.segmentation(places[last["ann_id"]])["counts"] == last["counts"]


@pytest.mark.parametrize("root", ["{}", "file://{}"])
def test_images_in_tar_files(scenes, tmp_path, root):
    data, boxes = scenes
    names = {}
    for number in range(2):
        with tarfile.open(tmp_path / f"{number}.tar", "w") as tar:
            for image in range(number, len(data), 2):
                names[data.paths[image]] = f"{number}.tar/{data.paths[image]}"
                tar.add(
                    data.root / data.paths[image], f"./{data.paths[image]}" if image else data.paths[image]
                )
            link = tarfile.TarInfo("link.png")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
            tar.addfile(link)
    rows = pandas.read_parquet(boxes)
    rows["image"] = rows["image"].map(names)
    rows.loc[0, "image"] = "1.tar/link.png"
    rows.to_parquet(tmp_path / "boxes.parquet")
    done = label(
        scenes, tmp_path / "out", boxes=tmp_path / "boxes.parquet", images=root.format(tmp_path), max_bad=0.2
    )
    assert done.counts == {"labeled": len(rows) - 1, "failed": 1}
    assert done.failure.startswith(f"{root.format(tmp_path)}/1.tar/link.png: the image is missing")


def test_a_tar_file_at_a_url_that_is_cut_is_named_once_and_costs_only_what_is_lost(scenes, tmp_path):
    data, boxes = scenes
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name in data.paths:
            tar.add(data.root / name, name)
    content, fourth = (tmp_path / "a.tar").read_bytes(), (data.root / data.paths[3]).read_bytes()
    (tmp_path / "a.tar").write_bytes(content[: content.index(fourth) + len(fourth) // 2])
    rows = pandas.read_parquet(boxes)
    rows["image"] = "a.tar/" + rows["image"]
    rows.to_parquet(tmp_path / "boxes.parquet")
    settings = {"boxes": tmp_path / "boxes.parquet", "images": f"file://{tmp_path}", "shard": 100}
    done = label(scenes, tmp_path / "out", max_bad=1.0, **settings)
    whole = int((data.image_index < 3).sum())
    assert done.counts == {"labeled": whole, "failed": len(rows) - whole}
    errors = pandas.read_parquet(tmp_path / "out" / "part-000000.parquet")["error"]
    assert {*errors[whole:]} == {
        f"file://{tmp_path}/a.tar: the tar file is cut or damaged (unexpected end of data), so 5 images cannot be "
        "read; replace it."
    }


def test_what_a_shard_cannot_have_is_refused(scenes, tmp_path, capsys):
    with pytest.raises(UsageError, match=r"there is no engine rya.*Did you mean 'ray'"):
        label(scenes, tmp_path / "out", engine="rya")
    with pytest.raises(UsageError, match="leave out `guarantee`"):
        label(scenes, tmp_path / "out", guarantee=0.8)
    with pytest.raises(UsageError, match="`overwrite` is not for shards"):
        label(scenes, tmp_path / "out", overwrite=True)
    words = ["convert", str(scenes[1]), str(tmp_path / "a.json"), "--images", "s3://bucket/photos"]
    assert main(words) == 2
    assert "images at a URL are for `boxel label --engine`" in capsys.readouterr().err
    assert main(["check", "s3://masks/a"]) == 2
    assert "s3://masks/a: datasets and images at a URL are for `boxel label" in capsys.readouterr().err
    with pytest.raises(UsageError, match="an engine writes a folder of shards"):
        label(scenes, tmp_path / "masks.json")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").touch()
    with pytest.raises(BoxelError, match=r"there are other files in it, e.g. notes.txt"):
        label(scenes, tmp_path / "full")
    assert (
        main(["label", str(scenes[1]), "--engine", "local", "--tighten", "--out", str(tmp_path / "o")]) == 2
    )
    assert "--tighten needs all masks at once" in capsys.readouterr().err


def test_two_jobs_on_one_folder(scenes, tmp_path):
    with lock_output(tmp_path / "out"), pytest.raises(BoxelError, match="another run is writing to it"):
        label(scenes, tmp_path / "out")
    assert not any((tmp_path / "out").iterdir())  # not even a record


def test_the_command(scenes, tmp_path, capsys):
    words = ["label", str(scenes[1]), "--images", str(scenes[0].root), "--teacher", "ellipse"]
    assert main([*words, "--engine", "local", "--out", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    assert f"1 shard written; {len(scenes[0].ids)} of {len(scenes[0].ids)} boxes got a mask" in out
    assert main(["convert", str(tmp_path / "out"), str(tmp_path / "masks.json")]) == 0
    assert len(json.loads((tmp_path / "masks.json").read_text())["annotations"]) == len(scenes[0].ids)
    assert main(["check", str(tmp_path / "out")]) == 0
    truth = str(scenes[0].file)
    assert main(["evaluate", str(tmp_path / "out"), truth]) == 0


def test_a_calibration_goes_along(tmp_path, scenes):
    data = example_scenes(30)
    settings = {"calibrate_on": data, "boxes": data.file, "images": data.root, "relabel": True, "shard": 40}
    label(scenes, tmp_path / "a", **settings)
    label(scenes, tmp_path / "b", engine="processes", **settings)
    assert read_all(tmp_path / "a") == read_all(tmp_path / "b")
    expected = boxel.labeling.label_data(data, calibrate_on=data, teacher="ellipse", relabel=True).data
    np.testing.assert_array_equal(boxel.read(tmp_path / "a").quality, expected.quality)


def test_a_plan_is_measured_on_a_sample_and_writes_nothing(scenes, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    data, boxes = scenes
    words = ["label", str(boxes), "--images", str(data.root), "--teacher", "ellipse", "--plan"]
    assert main([*words, "--plan-boxes", "2200", "--plan-workers", "4", "--plan-price", "3600"]) == 0
    measured, job, storage, bottleneck = capsys.readouterr().out.splitlines()
    count = len(data.ids)
    each, *stages = (float(number) for number in re.findall(r"\d+\.\d", measured))
    assert measured.startswith(f"measured: {count} boxes in 8 images, {each} ms each on one core (fetching ")
    assert sum(stages) == pytest.approx(each, abs=0.16)
    images = round(2200 * 8 / count)
    assert job.startswith(f"2,200 boxes in some {images} images on 4 cores: ")
    hours, core_hours, cost = re.search(
        r": ([\d.e-]+) hours, ([\d.e-]+) core hours, ([\d.]+) at 3600 each", job
    ).groups()
    assert float(core_hours) == pytest.approx(2200 * each / 3.6e6, rel=0.02)
    assert float(hours) == pytest.approx(float(core_hours) / 4, rel=0.01)
    assert float(cost) == pytest.approx(2200 * each / 1000, rel=0.02)
    read, unit = re.search(r"storage: ([\d.]+) (kB|MB) of images", storage).groups()
    size = sum((data.root / name).stat().st_size for name in data.paths) * 2200 / count
    assert float(read) * {"kB": 1e3, "MB": 1e6}[unit] == pytest.approx(size, rel=0.01)
    assert bottleneck == "bottleneck: decoding images and predicting masks: more cores, or a GPU"
    assert not list(tmp_path.iterdir())
