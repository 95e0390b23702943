"""MATLAB files, whole and damaged."""

import contextlib
import io
import zlib

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
    with contextlib.suppress(ValueError, zlib.error, RecursionError, OverflowError):
        read_mat(folder / "a.mat", "GTinst")
