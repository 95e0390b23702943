"""CVAT for images 1.1: one XML file for all images, which lie in ``images/`` beside it; and CVAT for video 1.1.

The format: https://docs.cvat.ai/docs/manual/advanced/xml_format/. Points, lines, cuboids and skeletons enclose nothing
that is known and are left out; an ellipse becomes a polygon, a rotated box the box around it (see `rotated`). A mask is
a list of runs along the rows of its box, of which the first is background.
"""

from __future__ import annotations

import contextlib
import math
import re
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import defusedxml.ElementTree
import msgspec

from boxel.data.annotations import Annotations, Category
from boxel.data.formats.builder import Builder
from boxel.data.formats.cvat_tracks import (
    MAX_FRAMES,
    VideoTask,
    choose_names,
    find_folder,
    find_last,
    iter_shapes,
    name_frame_file,
    read_tasks,
)
from boxel.data.formats.cvat_writer import FILE, ID_ATTRIBUTE, KNOWN, element, image_tags, shape_fields
from boxel.data.formats.cvat_writer import OPTIONS as OPTIONS
from boxel.data.formats.cvat_writer import write as write
from boxel.data.formats.extras import encode_extras, get_dict
from boxel.data.formats.geometry import (
    ellipse_points,
    enclose,
    encode_visible,
    find_code_box,
    rotate_box,
    to_polygons,
)
from boxel.data.formats.identity import Held, Ids
from boxel.data.formats.layout import file_stems
from boxel.data.formats.names import ImageFinder, find_file, folder_beside, stay_inside
from boxel.data.formats.rotated import CORNERS
from boxel.data.formats.row_runs import decode_rows
from boxel.data.formats.xml_files import find_root, open_xml, to_pixels
from boxel.data.image_names import find_stem
from boxel.data.images import MAX_PIXELS
from boxel.utils.errors import BoxelError, one_line
from boxel.utils.frames import is_video, name_frame

_LEFT_OUT = ("polyline", "points", "cuboid", "skeleton")
_OTHER_LABELS = ("tag", "points", "polyline", "cuboid", "skeleton")
"""Types of labels that no object has."""
_OF_TRACKS = frozenset({"frame", "outside"})
"""Attributes of the shapes of tracks that are known from where they are read to."""


def recognize(path: Path) -> bool:
    """Return whether this is a CVAT file, or a folder of one."""
    return _find_file(path) is not None


def _find_file(path: Path) -> Path | None:
    return find_file(path, FILE, lambda file: find_root(file) == "annotations")


def read(path: Path, images: Path | None = None) -> Annotations:
    """Read a CVAT XML file, image by image, so that a large one needs little memory.

    What boxel does not use is kept in the extras: ``occluded``, ``z_order``, ``group_id``, ``attributes``, under
    ``cvat`` all else that a shape has, and the tags of an image. Of a video, all frames of its task are images, e.g.
    ``clip.mp4#000123``, and each shape of a track is an object with its ``track_id``; see `cvat_tracks`.

    Args:
        path: The file, or its folder.
        images: Folder of the images or of the video, if it is not ``images/`` or the folder of the file; or the video.
    """
    file = _find_file(path) or path
    if file.is_dir():
        raise BoxelError(f"{path}: there is no CVAT dataset; it should be a folder with {FILE}.")
    video = images.name if images and is_video(images) else ""
    root = (images.parent if video else images) if images else folder_beside(file, "images")
    rows = Builder()
    ids = Ids(file.parent, rows)
    reader = _Reader(file, root, rows)
    reader.read()
    if reader.tracks and not reader.frames:
        root = root if images else find_folder(root, file.parent, reader.tasks)
        reader.finder = ImageFinder(root)
        reader.add_tracks(video)
    stems = file_stems(rows.paths)
    rows.find_images(reader.finder, file)
    numbers = [int(id) for id in rows.image_ids if re.fullmatch(r"\d{1,18}", str(id))]
    is_numbered = len(set(numbers)) == len(stems)  # those of a project begin again with each task
    rows.image_ids = [*numbers] if is_numbered else [*stems]
    rows.ids = [f"{stems[i]}:{number}" for i, number in zip(rows.image_index, rows.ids, strict=True)]
    first = {id: row for row, id in reversed(reader.ids.items())}  # a copy of an object has its id, too
    for id, row in first.items():
        rows.ids[row] = id
    data = rows.build(root, reader.categories(), file)
    return ids.restore(data, stems, Held(_hold_object, _hold_image), by_id=bool(reader.ids))


def _hold_object(extras: dict[str, Any], source: str | None) -> dict[str, Any]:
    """Return what the XML holds of the extras of an object."""
    text = "".join(element("shape", shape_fields(extras, source), extras))
    return _shape_extras(ElementTree.fromstring(text))


def _hold_image(extras: dict[str, Any], source: str | None) -> dict[str, Any]:
    """Return what the XML holds of the extras of an image."""
    tags = [ElementTree.fromstring("".join(element("tag", *parts))) for parts in image_tags(extras)]
    return {"tags": list(map(_read_tag, tags))} if tags else {}


class _Reader:
    """Reads one file into rows."""

    def __init__(self, file: Path, root: Path, rows: Builder) -> None:
        self.file, self.rows = file, rows
        self.finder = ImageFinder(root)
        self.labels: dict[str, int] = {}
        self.label_extras: list[bytes | None] = []
        self.frames: list[str] = []
        self.left_out = Counter[str]()
        self.ids: dict[int, str] = {}  # by row, if the shape states it
        self.tasks: dict[str, VideoTask] = {}
        self.tracks: list[ElementTree.Element] = []

    def categories(self) -> list[Category]:
        pairs = zip(self.labels, self.label_extras, strict=True)
        return [Category(k, name, extras=extras) for k, (name, extras) in enumerate(pairs, start=1)]

    def read(self) -> None:
        try:
            for element in _elements(self.file):
                if element.tag == "meta":
                    self._read_meta(element)
                elif element.tag == "image":
                    self._read_image(element)
                elif element.tag == "track":
                    self.tracks.append(element)
        except (BoxelError, OSError):
            raise
        except Exception as error:  # expat, defusedxml and codecs each have their own errors
            if not self.frames and not self.tracks:
                raise BoxelError(
                    f"{self.file}: cannot be read as CVAT's XML ({one_line(error)}); check that it is complete."
                ) from error
            track = self.tracks[-1].get("id") if self.tracks else ""
            rest = f"images after {self.frames[-1]}" if self.frames else f"tracks after {track}"
            what = f"cannot be read to its end ({one_line(error)}); the {rest} are left out."
            self.rows.report("bad-file", self.file, what)
        if self.tracks and self.frames:
            self.left_out["track"] = len(self.tracks)
        self._report_left_out()

    def add_tracks(self, video: str) -> None:
        """Append the frames of the tasks, and the shapes of the tracks in them."""
        if (last := find_last(self.tasks, self.tracks)) > MAX_FRAMES:
            raise BoxelError(
                f"{self.file}: it has frame {last:,}, beyond the {MAX_FRAMES:,} that boxel reads; correct "
                "the number, or cut the video."
            )
        images: dict[str, int] = {}
        names = {id: choose_names(task, self.finder, video) for id, task in self.tasks.items()}

        def find_image(id: str, frame: int) -> int:
            path = name_frame(name, frame) if (name := names.get(id, "")) else name_frame_file(frame)
            if path not in images:
                images[path] = self.rows.add_image(str(frame), path, *self.tasks.get(id, VideoTask()).size)
            return images[path]

        for id, task in self.tasks.items():
            for frame in task.frames:
                find_image(id, frame)
        for track in self.tracks:
            id = track.get("task_id") or next(iter(self.tasks), "")
            label, number = track.get("label") or "", to_pixels(track.get("id"))
            kept = {key: v for key, v in track.items() if key in ("source", "group_id")}
            for frame, shape in iter_shapes(track, self.tasks.get(id, VideoTask()).step):
                if shape.tag not in _SHAPES:
                    self.left_out[shape.tag] += 1
                    continue
                image = find_image(id, frame)
                shape.attrib.update(kept, label=label)
                size = self.rows.widths[image], self.rows.heights[image]
                self._read_shape(shape, image, number, size, {"track_id": number})
        self._report_left_out()

    def _report_left_out(self) -> None:
        for tag, count in self.left_out.items():
            noun = tag if tag.endswith("s") or count == 1 else f"{tag}s"
            what = f"{count} x {noun}: not a box, a polygon, an ellipse or a mask; left out."
            self.rows.report("not-an-object", self.file, what, count=count)

    def _read_meta(self, meta: ElementTree.Element) -> None:
        self.tasks = read_tasks(meta)
        for label in meta.iter("label"):
            name = label.findtext("name")
            # Only the parts of a skeleton have a parent.
            if name and label.find("parent") is None and label.findtext("type") not in _OTHER_LABELS:
                self._label(name, _label_extras(label))

    def _label(self, name: str, extras: bytes | None = None) -> int:
        if name not in self.labels:
            self.labels[name] = len(self.labels)
            self.label_extras.append(extras)
        return self.labels[name]

    def _read_image(self, element: ElementTree.Element) -> None:
        stated = element.get("name") or ""
        name = stay_inside(stated)
        if not name:
            what = f"image {len(self.frames)} of the list has no name; it is left out."
            self.rows.report("bad-image", self.file, what)
            return
        size = to_pixels(element.get("width")), to_pixels(element.get("height"))
        size = size if all(size) else self.finder.read_size(name)
        tags = [_read_tag(tag) for tag in element.iter("tag")]
        extras = msgspec.json.encode({"tags": tags}) if tags else None
        subset = element.get("subset", "")
        split = None if subset.lower() == "default" else subset
        index = self.rows.add_image(element.get("id") or "", name, *size, split=split, extras=extras)
        self.frames.append(stated)
        number = 0
        for shape in element:
            if shape.tag in _LEFT_OUT:
                self.left_out[shape.tag] += 1
            elif shape.tag in _SHAPES:
                number += 1
                self._read_shape(shape, index, number, size)

    def _read_shape(
        self,
        shape: ElementTree.Element,
        image: int,
        number: int,
        size: tuple[int, int],
        fields: dict[str, Any] | None = None,
    ) -> None:
        id = f"{find_stem(PurePosixPath(self.rows.paths[image]).name)}:{number}"
        try:
            name = shape.get("label")
            if not name:
                raise ValueError("it has no label")
            extras = _shape_extras(shape) | (fields or {})
            try:
                box, segmentation = _SHAPES[shape.tag](shape, size, extras)
            except (ValueError, KeyError, OverflowError) as error:
                if shape.tag != "mask":
                    raise
                left, top, width, height = _mask_sides(shape)
                box, segmentation = [left, top, left + width, top + height], None
                what = f"mask {id} cannot be read ({one_line(error)}); its box is kept."
                self.rows.report("mask-invalid", self.file, what, None, id, repair="mask left out, box kept")
            if not all(map(math.isfinite, box)):
                raise ValueError("its numbers are not finite")
        except (ValueError, TypeError, KeyError, OverflowError) as error:
            what = f"{shape.tag} {id} cannot be read ({one_line(error)}); it is left out."
            self.rows.report("bad-annotation", self.file, what, None, id)
            return
        text = None if segmentation is None else msgspec.json.encode(segmentation)
        stated = get_dict(extras, "attributes").pop(ID_ATTRIBUTE, "")
        more = encode_extras({key: v for key, v in extras.items() if v != {}})
        if stated:
            self.ids[len(self.rows.ids)] = stated
        self.rows.add(number, image, self._label(name), box, text, extras=more)


def _elements(file: Path) -> Iterator[ElementTree.Element]:
    """Yield the elements within the outermost one when they are complete, and forget each before the next."""
    with open_xml(file) as (stream, parser):
        depth = 0
        root: ElementTree.Element | None = None
        for event, element in defusedxml.ElementTree.iterparse(stream, ("start", "end"), parser):
            depth += 1 if event == "start" else -1
            if root is None:
                root = element
                if root.tag != "annotations":
                    raise BoxelError(
                        f"{file}: this is not CVAT's XML; its outermost element is <{root.tag}>."
                    )
            if event == "end" and depth == 1:
                yield element
                root.clear()


def _label_extras(label: ElementTree.Element) -> bytes | None:
    """Return what a label of the task has beside its name: color, type and the attributes that its shapes may have."""
    extras: dict[str, Any] = {key: text for key in ("color", "type") if (text := label.findtext(key))}
    attributes = [{part.tag: part.text or "" for part in item} for item in label.iter("attribute")]
    if attributes:
        extras["attributes"] = attributes
    return encode_extras(extras)


def _read_tag(tag: ElementTree.Element) -> str | dict[str, Any]:
    name = tag.get("label", "")
    attributes = _attributes(tag)
    return {"label": name, "attributes": attributes} if attributes else name


def _attributes(element: ElementTree.Element) -> dict[str, str]:
    return {item.get("name", ""): item.text or "" for item in element.findall("attribute")}


def _shape_extras(shape: ElementTree.Element) -> dict[str, Any]:
    extras: dict[str, Any] = {}
    if shape.get("occluded", "0") not in ("0", "false", "False"):
        extras["occluded"] = 1
    for key in ("z_order", "group_id"):
        with contextlib.suppress(ValueError):
            if value := int(shape.get(key, 0)):
                extras[key] = value
    if attributes := _attributes(shape):
        extras["attributes"] = attributes
    others = {key: value for key, value in shape.items() if key not in KNOWN | _OF_TRACKS}
    if others.get("source") == "manual":
        del others["source"]
    if others:
        extras["cvat"] = others
    return extras


_Shape = tuple[list[float], Any]


def _box(shape: ElementTree.Element, size: tuple[int, int], extras: dict[str, Any]) -> _Shape:
    box = [float(shape.attrib[key]) for key in ("xtl", "ytl", "xbr", "ybr")]
    degrees = float(shape.get("rotation", 0))
    if not degrees % 360:
        return box, None
    corners = rotate_box(box, degrees, ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2))
    extras[CORNERS] = corners
    return enclose(corners), None


def _polygon(shape: ElementTree.Element, size: tuple[int, int], extras: dict[str, Any]) -> _Shape:
    points = [
        [float(v) for v in pair.split(",")] for pair in shape.attrib["points"].split(";") if pair.strip()
    ]
    if len(points) < 3 or any(len(point) != 2 for point in points):
        raise ValueError("its points are not three or more pairs")
    return to_polygons([points])


def _ellipse(shape: ElementTree.Element, size: tuple[int, int], extras: dict[str, Any]) -> _Shape:
    x, y, rx, ry = (float(shape.attrib[key]) for key in ("cx", "cy", "rx", "ry"))
    return to_polygons([ellipse_points(x, y, rx, ry, float(shape.get("rotation", 0)))])


def _mask(shape: ElementTree.Element, size: tuple[int, int], extras: dict[str, Any]) -> _Shape:
    left, top, width, height = map(int, _mask_sides(shape))
    if not 0 < size[0] * size[1] <= MAX_PIXELS:
        raise ValueError("the size of its image is unknown" if not all(size) else "its image is too large")
    if not 0 < width * height <= MAX_PIXELS:
        raise ValueError("its box has no area, or is too large")
    rle = encode_visible(decode_rows(shape.attrib["rle"], height, width), left, top, size)
    return find_code_box(rle), rle


def _mask_sides(shape: ElementTree.Element) -> list[float]:
    return [float(shape.attrib[key]) for key in ("left", "top", "width", "height")]


_SHAPES: dict[str, Callable[[ElementTree.Element, tuple[int, int], dict[str, Any]], _Shape]] = {
    "box": _box,
    "polygon": _polygon,
    "ellipse": _ellipse,
    "mask": _mask,
}
