"""Reading CVAT for video: tracks, keyframes, interpolation, and the frames that they belong to."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

import boxel.data
from boxel.data.images import read_image

META = """<meta><task><id>5</id><size>4</size><mode>interpolation</mode><start_frame>0</start_frame>
<stop_frame>{stop}</stop_frame><frame_filter>{step}</frame_filter><labels><label><name>cat</name></label></labels>
<original_size><width>64</width><height>48</height></original_size><source>clip.mp4</source></task></meta>"""


def shape(frame: int, left: float, more: str = "", outside: int = 0, keyframe: int = 1) -> str:
    numbers = f'xtl="{left}" ytl="5" xbr="{left + 10}" ybr="25"'
    return (
        f'<box frame="{frame}" {numbers} outside="{outside}" occluded="0" keyframe="{keyframe}">{more}</box>'
    )


def make(folder: Path, tracks: str, stop: int = 3, step: str = "", count: int = 4) -> Path:
    meta = META.format(stop=stop, step=step)
    (folder / "annotations.xml").write_text(
        f"<annotations><version>1.1</version>{meta}{tracks}</annotations>"
    )
    writer = cv2.VideoWriter(
        str(folder / "clip.mp4"), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"mp4v"), 10.0, (64, 48)
    )
    for number in range(count):
        writer.write(np.full((48, 64, 3), 20 + 40 * number, np.uint8))
    writer.release()
    return folder


def test_shapes_of_tracks_are_objects_of_frames(tmp_path: Path) -> None:
    pose = '<attribute name="pose">lying</attribute>'
    first = "".join([shape(0, 1), shape(1, 2, keyframe=0), shape(2, 3, pose), shape(3, 4, outside=1)])
    polygon = '<polygon frame="2" points="1,1;9,1;9,9" outside="0" occluded="1" keyframe="1"/>'
    tracks = f'<track id="3" label="cat" source="manual" group_id="2">{first}</track>'
    tracks += f'<track id="4" label="dog" source="auto">{polygon}<points frame="2" points="1,1"/></track>'
    data = boxel.data.read(make(tmp_path, tracks))
    assert boxel.data.recognize(tmp_path) == "cvat" and data.root == tmp_path
    assert data.paths == [f"clip.mp4#00000{k}" for k in range(4)] and data.image_ids == [0, 1, 2, 3]
    assert data.widths.tolist() == [64] * 4 and data.heights.tolist() == [48] * 4
    assert data.image_index.tolist() == [0, 1, 2, 2] and data.boxes[:3, 0].tolist() == [1, 2, 3]
    assert [c.name for c in data.categories] == ["cat", "dog"] and data.labels.tolist() == [0, 0, 0, 1]
    assert data.ids == ["clip_000000:3", "clip_000001:3", "clip_000002:3", "clip_000002:4"]
    extras = [json.loads(text) for text in data.extras]
    assert extras[1] == {"track_id": 3, "group_id": 2, "cvat": {"keyframe": "0"}}
    assert extras[2]["attributes"] == {"pose": "lying"}
    assert extras[3] == {"track_id": 4, "occluded": 1, "cvat": {"keyframe": "1", "source": "auto"}}
    assert data.segmentation(3) == [[1, 1, 9, 1, 9, 9]]
    assert [issue.message.rpartition(": ")[2] for issue in data.issues] == [
        "not a box, a polygon, an ellipse or a mask; left out."
    ]
    assert abs(int(read_image(data.image_path(2)).mean()) - 100) < 8


def test_boxes_between_keyframes_are_interpolated(tmp_path: Path) -> None:
    track = "".join([shape(0, 0), shape(4, 8), shape(6, 9, outside=1), shape(8, 20)])
    data = boxel.data.read(make(tmp_path, f'<track id="0" label="cat">{track}</track>', stop=9))
    assert len(data) == 10
    at = {int(image): float(box[0]) for image, box in zip(data.image_index, data.boxes, strict=True)}
    assert at == {0: 0, 1: 2, 2: 4, 3: 6, 4: 8, 5: 8.5, 8: 20}  # out of the image in 6 and 7; it ends with 8
    assert json.loads(data.extras[1])["cvat"] == {"keyframe": "0"}


def test_frames_follow_the_step_of_the_task(tmp_path: Path) -> None:
    track = "".join([shape(0, 0), shape(10, 8)])
    folder = make(tmp_path, f'<track id="0" label="cat">{track}</track>', stop=10, step="step=5")
    data = boxel.data.read(folder)
    assert data.paths == ["clip.mp4#000000", "clip.mp4#000005", "clip.mp4#000010"]
    assert data.boxes[:, 0].tolist() == [0, 4, 8]


def test_the_video_may_be_elsewhere_or_its_frames_be_files(tmp_path: Path) -> None:
    folder = make(tmp_path, f'<track id="0" label="cat">{shape(1, 5)}</track>')
    (tmp_path / "videos").mkdir()
    (tmp_path / "clip.mp4").rename(tmp_path / "videos" / "renamed.mp4")
    data = boxel.data.read(folder, images=tmp_path / "videos" / "renamed.mp4")
    assert data.paths[1] == "renamed.mp4#000001" and data.image_path(1).parent == tmp_path / "videos"
    (tmp_path / "images").mkdir()
    for number in range(4):
        Image.new("RGB", (64, 48)).save(tmp_path / "images" / f"frame_{number:06d}.png")
    data = boxel.data.read(folder)
    assert data.paths == [f"frame_00000{k}.png" for k in range(4)] and data.image_path(1).is_file()
    boxel.data.write(data, tmp_path / "again", "cvat")
    with pytest.warns(boxel.data.ConversionWarning, match="YOLO has no place for"):
        boxel.data.write(data, tmp_path / "yolo", "yolo")
    found = boxel.data.read(tmp_path / "again")
    assert json.loads(found.extras[0])["track_id"] == 0 and found.ids == data.ids


def test_a_file_that_is_cut_keeps_the_tracks_before(tmp_path: Path) -> None:
    tracks = "".join(f'<track id="{k}" label="cat">{shape(1, k)}</track>' for k in range(3))
    file = make(tmp_path, tracks) / "annotations.xml"
    text = file.read_text()
    file.write_text(text[: text.index('<track id="2"') + 30])
    data = boxel.data.read(tmp_path)
    assert len(data.labels) == 2 and "the tracks after 1 are left out" in data.issues[0].message


@pytest.mark.parametrize("number", ["frame_index", "frame_id", "frame"])
def test_images_of_coco_come_from_their_video(tmp_path: Path, number: str) -> None:
    make(tmp_path, "")
    (tmp_path / "annotations.xml").unlink()
    images = [{"id": k + 1, "file_name": f"clip/{k}.jpg", "video_id": 9, number: k} for k in range(4)]
    box = {"id": 1, "image_id": 3, "category_id": 1, "bbox": [1, 2, 8, 8], "track_id": 6}
    content = {"videos": [{"id": 9, "name": "clip.mp4"}], "images": images, "annotations": [box]}
    file = tmp_path / "boxes.json"
    file.write_text(json.dumps(content | {"categories": [{"id": 1, "name": "cat"}]}))
    data = boxel.data.read(file)
    assert data.paths == [f"clip.mp4#00000{k}" for k in range(4)]
    assert json.loads(data.extras[0]) == {"track_id": 6} and json.loads(data.image_extras[2])["video_id"] == 9
    (tmp_path / "clip").mkdir()
    Image.new("RGB", (64, 48)).save(tmp_path / "clip" / "0.jpg")
    assert boxel.data.read(file).paths[0] == "clip/0.jpg"
