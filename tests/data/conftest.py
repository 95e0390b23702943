"""Random small datasets, to be written in any format and read again."""

import json
import struct
import tempfile
import warnings
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import strategies as st
from PIL import Image

import boxel.data
from boxel.data import Annotations, Category
from boxel.data.formats import write_as_given
from boxel.masks.rle import encode

NAMES = ["cat", "large dog", "a \"quoted\" <b> & 'c'", "日本", "007", "no", "größe"]


def as_json(value):
    return msgspec.json.encode(value) if value else None


@st.composite
def segmentations(draw, width, height):
    kind = draw(st.sampled_from(["none", "ring", "rings", "code"]))
    if kind == "none":
        return None
    if kind == "code":
        mask = np.zeros((height, width), dtype=np.uint8)
        x, y = draw(st.integers(0, width - 3)), draw(st.integers(0, height - 3))
        mask[y : y + draw(st.integers(2, 9)), x : x + draw(st.integers(2, 9))] = 1
        mask[y, x] = draw(st.integers(0, 1))
        return as_json(encode(mask))
    xs, ys = st.integers(0, 2 * width), st.integers(0, 2 * height)
    rings = []
    for _ in range(2 if kind == "rings" else 1):
        x, y = draw(xs) / 2 - 4, draw(ys) / 2 - 4
        x, y = max(min(x, width - 9), 0), max(min(y, height - 9), 0)
        rings.append([x, y, x + draw(st.integers(3, 8)), y, x + 3.5, y + draw(st.integers(3, 8))])
    return as_json(rings)


FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "attributes": st.dictionaries(
            st.sampled_from(["pose", "is wet", "n"]),
            st.sampled_from(["x<y", "", True, 3, 2.5, None, [1]]),
            min_size=1,
        ),
        "occluded": st.just(1),
        "z_order": st.integers(1, 9),
        "group_id": st.integers(1, 9),
        "track_id": st.integers(0, 5),
        "keypoints": st.just([1, 2, 2]),
    },
)


@st.composite
def random_datasets(draw, folder):
    """A dataset of a few small images, which are written into a folder."""
    count = draw(st.integers(1, 3))
    folders = draw(st.lists(st.sampled_from(["", "train/", "b c/"]), min_size=count, max_size=count))
    paths = [f"{where}{k}ä.png" for k, where in enumerate(folders)]
    sizes = draw(
        st.lists(st.tuples(st.integers(12, 40), st.integers(12, 40)), min_size=count, max_size=count)
    )
    for path, size in zip(paths, sizes, strict=True):
        (folder / path).parent.mkdir(exist_ok=True, parents=True)
        Image.new("RGB", size).save(folder / path)
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=3, unique=True))
    categories = [
        Category(
            3 * k + 1,
            name,
            draw(st.sampled_from(["", "thing"])),
            as_json(draw(st.sampled_from([{}, {"color": "#ff0000"}]))),
        )
        for k, name in enumerate(names)
    ]
    image_index = sorted(draw(st.lists(st.integers(0, count - 1), max_size=5)))
    rows = [draw(instances(*sizes[image])) for image in image_index]
    columns = {name: [row[name] for row in rows] for name in INSTANCE}
    columns |= {name: objects(columns[name]) for name in ("segmentations", "source", "extras")}
    return Annotations(
        root=folder,
        image_ids=[10 * k if draw(st.booleans()) else f"id {k}" for k in range(count)],
        paths=paths,
        widths=np.array([w for w, _ in sizes]),
        heights=np.array([h for _, h in sizes]),
        categories=tuple(categories),
        ids=[7 * k + 1 if draw(st.booleans()) else f"row {k}" for k in range(len(rows))],
        image_index=np.array(image_index, dtype=np.int32),
        labels=np.array([draw(st.integers(0, len(names) - 1)) for _ in rows], dtype=np.int32),
        image_extras=[as_json(draw(st.sampled_from([{}, {"coco_url": "http://x/y.jpg"}]))) for _ in paths],
        splits=[draw(st.sampled_from([None, "train", "val"])) for _ in paths],
        dataset_extras=as_json(draw(st.sampled_from([{}, {"info": {"year": 2026}}]))),
        **{
            name: values if name != "boxes" else np.reshape(values, (-1, 4))
            for name, values in columns.items()
        },
    )


INSTANCE = ["boxes", "segmentations", "iscrowd", "quality", "source", "trusted", "areas", "extras"]


def objects(values):
    array = np.full(len(values), None, dtype=object)
    array[:] = values
    return array


@st.composite
def instances(draw, width, height):
    segmentation = draw(segmentations(width, height))
    x, y = draw(st.floats(0, width - 6)), draw(st.floats(0, height - 6))
    box = [round(v, 2) for v in (x, y, x + draw(st.floats(2, 6)), y + draw(st.floats(2, 6)))]
    has_mask = segmentation is not None
    return {
        "boxes": box,
        "segmentations": segmentation,
        "iscrowd": has_mask and draw(st.booleans()),
        "quality": draw(st.sampled_from([np.nan, 0.25, 1.0])),
        "source": draw(st.sampled_from([None, "grabcut"])) if has_mask else None,
        "trusted": not has_mask or draw(st.booleans()),
        "areas": draw(st.sampled_from([np.nan, 12.5])),
        "extras": as_json(draw(FIELDS)),
    }


@pytest.fixture(scope="session")
def draw_random():
    """A function that draws a dataset, with its images in a folder."""
    return lambda draw, folder: draw.draw(random_datasets(folder))


@pytest.fixture(scope="session")
def convert_random():
    """A function that draws a dataset, writes it in a format and returns both it and what is read."""

    def convert(draw, format, name=""):
        with tempfile.TemporaryDirectory() as folder:
            data = draw.draw(random_datasets(Path(folder) / "images"))
            with warnings.catch_warnings(record=True):
                warnings.simplefilter("always")
                write_as_given(data, Path(folder) / f"out{name}", format)
                found = boxel.data.read(Path(folder) / f"out{name}")
            masks = [[d.mask(i) for i in range(len(d.ids))] for d in (data, found)]
        return data, found, masks

    return convert


@pytest.fixture(scope="session")
def check_same():
    """A function that compares the columns of two datasets that every extended format keeps."""

    def check(found, data, but=()):
        assert found.categories == data.categories
        for name in ("image_ids", "ids", "splits", "image_index", "labels", "iscrowd", "trusted", "source"):
            if name not in but:
                assert list(getattr(found, name)) == list(getattr(data, name)), name
        for name in ("boxes", "quality", "areas"):
            if name not in but:
                np.testing.assert_allclose(getattr(found, name), getattr(data, name), atol=1e-6, err_msg=name)
        for name in ("extras", "image_extras"):
            for mine, theirs in zip(getattr(found, name), getattr(data, name), strict=True):
                assert json.loads(mine or "{}") == json.loads(theirs or "{}"), name
        assert json.loads(found.dataset_extras or "{}") == json.loads(data.dataset_extras or "{}")

    return check


@pytest.fixture(scope="session")
def describe_losses():
    """A function that writes a crowd, an untrusted mask and a loose box, and returns the sentences on what is lost."""

    def describe(folder, format):
        Image.new("RGB", (40, 30)).save(folder / "a.png")
        ring = b"[[4,4,12,4,12,12,4,12]]"
        data = Annotations(
            root=folder,
            image_ids=[1],
            paths=["a.png"],
            widths=np.array([40]),
            heights=np.array([30]),
            categories=(Category(1, "cat"),),
            ids=[1, 2, 3],
            image_index=np.zeros(3, dtype=np.int32),
            labels=np.zeros(3, dtype=np.int32),
            boxes=np.array([[4, 4, 12, 12], [1, 4, 12, 12], [4, 4, 12, 12]], dtype=float),
            iscrowd=np.array([True, False, False]),
            segmentations=objects([ring] * 3),
            trusted=np.array([True, True, False]),
        )
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            boxel.data.write(data, folder / "out", format)
        return [str(w.message) for w in found if w.category is boxel.data.ConversionWarning]

    return describe


@pytest.fixture
def write_tiff(tmp_path):
    """A function that writes (H, W) values as a gray TIFF of some bits, in either order of bytes."""

    def write(values, bits, white_is_zero=False, order="<"):
        values = np.asarray(values)
        digits = values[..., None] >> np.arange(bits)[::-1] & 1
        rows = np.packbits(digits.reshape(len(values), -1).astype(np.uint8), axis=1)
        content = (values.astype(f"{order}u2") if bits == 16 else rows).tobytes()
        height, width = values.shape
        tags = {256: width, 257: height, 258: bits, 259: 1, 262: int(not white_is_zero), 277: 1, 278: height}
        tags |= {273: 8 + 2 + 12 * 9 + 4, 279: len(content)}
        fields = [struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in sorted(tags.items())]
        start = struct.pack(f"{order}2sHIH", b"II" if order == "<" else b"MM", 42, 8, len(fields))
        file = tmp_path / "gray.tif"
        file.write_bytes(start + b"".join(fields) + bytes(4) + content)
        return file

    return write
