"""MATLAB files, whole and damaged."""

import contextlib
import io
import struct
import time
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.io import loadmat, savemat
from scipy.sparse import csc_matrix

from boxel.data.matlab import mat_shape, read_mat


def written(compressed: bool) -> bytes:
    stream = io.BytesIO()
    cells = np.array([[csc_matrix(np.eye(3))], ["text"]], dtype=object)
    fields = {"Segmentation": np.eye(4, dtype=np.uint8), "Categories": np.array([[3.0]]), "Boundaries": cells}
    savemat(stream, {"GTinst": fields, "other": np.arange(9)}, do_compression=compressed)
    return stream.getvalue()


@pytest.mark.parametrize("compressed", [False, True])
def test_a_variable_is_read(tmp_path, compressed):
    (tmp_path / "a.mat").write_bytes(written(compressed))
    struct = read_mat(tmp_path / "a.mat", "GTinst")
    assert struct["Segmentation"].dtype == np.uint8 and struct["Categories"].tolist() == [[3]]
    np.testing.assert_array_equal(struct["Segmentation"], np.eye(4))
    assert struct["Boundaries"] is None
    assert read_mat(tmp_path / "a.mat", "other").tolist() == [list(range(9))]
    assert mat_shape(tmp_path / "a.mat", "other") == (1, 9)
    with pytest.raises(ValueError, match="no variable LabelMap"):
        read_mat(tmp_path / "a.mat", "LabelMap")


@pytest.mark.parametrize("compressed", [False, True])
def test_a_cell_is_read_in_the_order_of_matlab(tmp_path, compressed):
    cell = np.empty((2, 2), dtype=object)
    cell[:] = [[np.array([[1, 2]], np.uint16), "text"], [np.zeros((1, 0)), np.eye(2)]]
    savemat(tmp_path / "a.mat", {"x": cell}, do_compression=compressed)
    first, second, third, fourth = read_mat(tmp_path / "a.mat", "x")
    assert first.tolist() == [[1, 2]] and second.shape == (1, 0) and third is None
    assert fourth.tolist() == [[1, 0], [0, 1]]


@pytest.mark.slow
@settings(derandomize=True, max_examples=300, deadline=None)
@given(st.integers(128, 700), st.binary(min_size=1, max_size=6))
def test_any_damage_of_a_cell_is_read_or_refused(folder, at, junk):
    cell = np.empty(3, dtype=object)
    cell[:] = [np.array([[1, 2]], np.uint16), np.eye(2), np.array([[7]])]
    stream = io.BytesIO()
    savemat(stream, {"x": cell})
    content = stream.getvalue()
    (folder / "c.mat").write_bytes(content[:at] + junk + content[at + len(junk) :])
    with contextlib.suppress(ValueError, zlib.error):
        read_mat(folder / "c.mat", "x")


@pytest.mark.parametrize("dtype", ["f8", "f4", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", bool])
@pytest.mark.parametrize("shape", [(3, 5), (0, 0), (1, 1), (2, 3, 4)])
def test_arrays_agree_with_scipy(tmp_path, dtype, shape):
    array = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    savemat(tmp_path / "a.mat", {"x": array}, do_compression=len(shape) > 2)
    expected = loadmat(tmp_path / "a.mat")["x"]
    found = read_mat(tmp_path / "a.mat", "x")
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)
    assert mat_shape(tmp_path / "a.mat", "x") == expected.shape


def test_a_damaged_checksum_is_an_error(tmp_path):
    content = bytearray(written(True))
    content[-3] ^= 1
    (tmp_path / "a.mat").write_bytes(content)
    with pytest.raises(zlib.error, match="incorrect data check"):
        read_mat(tmp_path / "a.mat", "other")


@pytest.mark.parametrize("kind", [b"\xa5\x00\x00\x00", b"\x0e\x00\x00\x00", b"\x13\x00\x00\x00"])
def test_an_unknown_type_is_an_error(tmp_path, kind):
    """SciPy alone crashes on some of these."""
    content = written(False)
    at = content.index(b"\x09\x00\x00\x00\x08\x00\x00\x00")  # the tag of the double in `Categories`
    (tmp_path / "a.mat").write_bytes(content[:at] + kind + content[at + 4 :])
    with pytest.raises(ValueError, match="unknown type"):
        read_mat(tmp_path / "a.mat", "GTinst")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("mat")


@pytest.mark.slow
@settings(derandomize=True, max_examples=300, deadline=None)
@given(st.booleans(), st.integers(128, 900), st.binary(min_size=1, max_size=6))
def test_any_damage_is_read_or_refused(folder, compressed, at, junk):
    content = written(compressed)
    (folder / "a.mat").write_bytes(content[:at] + junk + content[at + len(junk) :])
    with contextlib.suppress(ValueError, zlib.error):
        read_mat(folder / "a.mat", "GTinst")


HEAD = b" " * 124 + b"\x00\x01IM"


def element(kind: int, content: bytes, size: int | None = None) -> bytes:
    padding = b"" if kind == 15 else bytes(-len(content) % 8)
    return struct.pack("<II", kind, len(content) if size is None else size) + content + padding


def matrix(kind: int, shape: tuple[int, ...], name: bytes, *rest: bytes) -> bytes:
    dimensions = element(5, struct.pack(f"<{len(shape)}i", *shape))
    return element(
        14, b"".join([element(6, struct.pack("<II", kind, 0)), dimensions, element(1, name), *rest])
    )


def compressed(content: bytes) -> bytes:
    return element(15, zlib.compress(content))


def nested(depth: int) -> bytes:
    inner = matrix(9, (1, 1), b"", element(2, b"\7"))
    for _ in range(depth):
        inner = matrix(2, (1, 1), b"", element(5, struct.pack("<i", 2)), element(1, b"a\0"), inner)
    return inner


ZEROS = bytes(1 << 26)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (compressed(matrix(9, (1 << 13, 1 << 13), b"x", element(2, ZEROS))), "expands to 67,108,920 bytes"),
        (
            compressed(element(14, matrix(9, (8, 8), b"x", element(2, ZEROS))[8:], 100)),
            "longer than it states",
        ),
        (compressed(compressed(compressed(ZEROS))), "unknown type"),
        (matrix(9, (1 << 30, 1 << 30), b"x", element(2, b"\1")), "cannot reshape"),
        (matrix(9, (-1, 8), b"x", element(2, bytes(8))), "dimensions"),
        (matrix(9, (1,) * 10**6, b"x", element(2, b"\1")), "dimensions"),
        (matrix(2, (1, 1), b"x", element(5, struct.pack("<i", 1)), element(1, b"a" * 10**7)), "struct"),
        (matrix(2, (1, 1), b"x", *[element(1, b"")] * 10**6), "damaged|IndexError|index"),
        (b"".join([matrix(9, (1, 1), b"y", element(2, b"\1"))] * 5000), "no variable"),
        (
            matrix(1, (1000, 1000), b"x", *[element(14, b"")] * 10**6),
            "its cell has 100,000 of 1,000,000 items",
        ),
        (matrix(1, (2, 1), b"x", element(14, b"")), "its cell has 1 of 2 items"),
    ],
)
def test_a_malicious_file_costs_little(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.mat").write_bytes(HEAD + content)
    size = (tmp_path / "a.mat").stat().st_size
    del content
    tracemalloc.start()
    begin = time.process_time()
    try:
        with pytest.raises(ValueError, match=message):
            read_mat(tmp_path / "a.mat", "x")
        assert time.process_time() - begin < 5  # it takes 0.1 s; traced more
        assert tracemalloc.get_traced_memory()[1] < 100e6 + 2 * size
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("depth", [7, 8, 9, 5000])
def test_structs_are_read_to_some_depth(tmp_path: Path, depth: int) -> None:
    outer = [element(5, struct.pack("<i", 2)), element(1, b"a\0"), nested(depth)]
    (tmp_path / "a.mat").write_bytes(HEAD + matrix(2, (1, 1), b"x", *outer))
    if depth > 7:
        with pytest.raises(ValueError, match="struct is damaged"):
            read_mat(tmp_path / "a.mat", "x")
        return
    found = read_mat(tmp_path / "a.mat", "x")
    for _ in range(depth + 1):
        found = found["a"]
    assert found.tolist() == [[7]]


@pytest.mark.slow
@settings(derandomize=True, max_examples=300, deadline=None)
@given(st.data())
def test_random_elements_are_read_or_refused(folder: Path, data: st.DataObject) -> None:
    sizes = st.sampled_from([0, 1, 4, 7, 8, 2**31, 2**32 - 1])
    leaf = st.builds(element, st.integers(0, 20), st.binary(max_size=24), st.none() | sizes)
    small = st.builds(
        lambda n, size, rest: struct.pack("<HH", n, size) + rest,
        st.integers(0, 20),
        sizes.filter(lambda size: size < 2**16),
        st.binary(min_size=4, max_size=4),
    )
    shape = st.lists(st.integers(-2, 3) | st.just(2**31 - 1), max_size=4).map(tuple)
    inner = st.recursive(
        leaf | small,
        lambda parts: st.builds(
            lambda kind, shape, rest: matrix(kind, shape, b"GTinst", *rest),
            st.integers(0, 18),
            shape,
            st.lists(parts, max_size=4),
        ),
        max_leaves=8,
    )
    content = b"".join(data.draw(st.lists(inner | inner.map(compressed), max_size=3)))
    (folder / "b.mat").write_bytes(HEAD + content)
    for read in (read_mat, mat_shape):
        with contextlib.suppress(ValueError, zlib.error):
            read(folder / "b.mat", "GTinst")
