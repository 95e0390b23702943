"""Frames of videos as images: exact in any order, whatever is wrong with the file."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from boxel.data import read, write
from boxel.data.formats.names import ImageFinder
from boxel.data.images import ImageError, describe_missing, image_size, read_image
from boxel.data.sources import find_images
from boxel.data.video import list_frames, scan_video
from boxel.utils.errors import BoxelError
from boxel.utils.frames import split_frame, stored_in
from boxel.viz.output import mirror_names


def paint(number: int, height: int = 48, width: int = 64) -> np.ndarray:
    """A frame that shows its number in bits: 8 bright or dark columns on noise, which no codec confuses."""
    noise = np.random.default_rng(number).integers(0, 40, (height, width, 3), dtype=np.uint8)
    for bit in range(8):
        noise[:, bit * 8 : bit * 8 + 8] += np.uint8(200 * (number >> bit & 1))
    return noise


def number_in(pixels: np.ndarray) -> int:
    columns = pixels.mean(axis=(0, 2)).reshape(8, 8).mean(axis=1)
    return int(sum(1 << bit for bit in range(8) if columns[bit] > 120))


def make_video(path: Path, count: int, codec: str, rate: float = 10.0) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*codec), rate, (64, 48))
    for number in range(count):
        writer.write(paint(number))
    writer.release()
    return path


@pytest.fixture(scope="module", params=[("a.mp4", "mp4v"), ("b.webm", "VP80"), ("c.avi", "MJPG")])
def clip(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video of 200 frames."""
    name, codec = request.param
    return make_video(tmp_path_factory.mktemp("clip") / name, 200, codec)


def test_a_frame_is_the_same_in_any_order(clip: Path) -> None:
    video = scan_video(clip)
    assert (video.size, video.rate, len(video.times), video.problem) == ((64, 48), 10.0, 200, "")
    assert video.times[[0, 1, 199]] == pytest.approx([0, 0.1, 19.9])
    for number in (0, 1, 2, 5, 5, 4, 199, 0, 120, 121, 55, 190, 189, 7):
        assert number_in(read_image(f"{clip}#{number:06d}")) == number
    numbers = np.random.default_rng(0).permutation(200)[:40].tolist()
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda number: number_in(read_image(f"{clip}#{number}")), numbers))
    assert found == numbers
    assert image_size(f"{clip}#000007") == (64, 48)


def test_a_frame_after_the_last_is_an_error(clip: Path) -> None:
    with pytest.raises(
        ImageError, match=r"#000200: the image is truncated \(the video ends after 200 frames\)"
    ):
        read_image(f"{clip}#000200")
    missing = clip.with_name("no.mp4")
    with pytest.raises(ImageError, match="is missing"):
        read_image(f"{missing}#000000")
    assert describe_missing([Path(f"{clip}#000000"), Path(f"{missing}#000000")]).startswith(
        f"images are missing (1 of 2), the first is {missing}#000000"
    )


def test_names_of_frames() -> None:
    assert split_frame("a/b.MP4#000007") == ("a/b.MP4", 7) and split_frame("a.mp4") is None
    assert split_frame("photo#1.jpg") is None and split_frame("a.mp4#x") is None
    assert stored_in("a.mp4#000001") == "a.mp4" and stored_in("a#1.png") == "a#1.png"
    assert mirror_names(["v/a.mp4#000001", "v/a.mp4#000002"]) == ["v/a_000001.jpg", "v/a_000002.jpg"]


def test_folders_mix_images_and_videos(tmp_path: Path) -> None:
    make_video(tmp_path / "b.mp4", 5, "mp4v")
    for name in ("a.png", "c.png"):
        Image.fromarray(paint(1)).save(tmp_path / name)
    names = [path.name for path in find_images(tmp_path)]
    assert names == ["a.png", *(f"b.mp4#00000{k}" for k in range(5)), "c.png"]
    assert [path.name for path in find_images(tmp_path / "b.mp4", every=2)] == [
        f"b.mp4#00000{k}" for k in (0, 2, 4)
    ]
    (tmp_path / "list.txt").write_text("b.mp4#000003\n")
    assert find_images(tmp_path / "list.txt") == [tmp_path / "b.mp4#000003"]


def test_a_video_that_is_cut_keeps_what_is_before(tmp_path: Path) -> None:
    whole = make_video(tmp_path / "whole.avi", 60, "MJPG").read_bytes()
    (tmp_path / "cut.avi").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.mp4").write_text("not a video")
    (tmp_path / "whole.avi").unlink()
    problems: list[str] = []
    found = find_images(tmp_path, problems.append)
    assert 20 < len(found) < 40 and {path.name[:7] for path in found} == {"cut.avi"}
    assert [number_in(read_image(path)) for path in found] == list(range(len(found)))
    last = (len(found) - 1) / 10
    assert problems == [
        f"{tmp_path}/cut.avi: its header states 60 frames, and {len(found)} can be decoded: it is cut or damaged "
        f"after {last:.2f} s; the frames before that are used.",
        f"skipped: {tmp_path}/text.mp4: the video cannot be opened: it is not a video, of an unknown kind, or cut "
        "before its index.",
    ]
    with pytest.raises(BoxelError, match=r"^.*/text\.mp4: the video cannot be opened"):
        find_images(tmp_path / "text.mp4")


def test_a_video_that_is_damaged_inside_ends_there(tmp_path: Path) -> None:
    file = make_video(tmp_path / "a.mp4", 60, "mp4v")
    content = bytearray(file.read_bytes())
    half = len(content) // 2
    content[half : half + 8000] = bytes(8000)
    file.write_bytes(content)
    frames, problem = list_frames(file)
    assert 10 < len(frames) < 50 and "its header states 60 frames" in problem


def test_a_video_is_found_as_an_image_is(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    make_video(tmp_path / "sub" / "Clip.MP4", 2, "mp4v")
    finder = ImageFinder(tmp_path)
    assert finder.find("C:\\data\\clip.mp4#000001") == "sub/Clip.MP4#000001"
    assert finder.find("other.mp4#000001") is None and finder.is_empty


def test_frames_become_images_of_a_folder(tmp_path: Path) -> None:
    make_video(tmp_path / "clip.mp4", 9, "mp4v")
    rows = [{"id": k, "file_name": f"clip.mp4#00000{k}", "width": 64, "height": 48} for k in (3, 8)]
    boxes = [
        {"id": k, "image_id": k, "category_id": 1, "bbox": [8, 8, 16, 16], "track_id": 5} for k in (3, 8)
    ]
    content = {"images": rows, "annotations": boxes, "categories": [{"id": 1, "name": "cat"}]}
    (tmp_path / "boxes.json").write_bytes(json.dumps(content).encode())
    data = read(tmp_path / "boxes.json")
    assert [number_in(read_image(data.image_path(image))) for image in range(2)] == [3, 8]
    write(data, tmp_path / "yolo", format="yolo")
    copies = sorted((tmp_path / "yolo").rglob("*.jpg"))
    assert [path.name for path in copies] == ["clip_000003.jpg", "clip_000008.jpg"]
    assert [number_in(read_image(path)) for path in copies] == [3, 8]
