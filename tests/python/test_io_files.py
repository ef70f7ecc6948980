"""Files of the safetensors, gguf and h5py packages read alike, and what attar writes they read.

Drives build/bin/copy_container (ATTAR_BUILD_DIR names the build folder), which reads a file and
writes all of it again.
"""

import os
import pathlib
import struct
import subprocess

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = ROOT / os.environ.get("ATTAR_BUILD_DIR", "build") / "bin" / "copy_container"
SHARED_MODELS = ROOT.parent / "shared" / "data" / "models"

pytestmark = pytest.mark.skipif(not PROGRAM.exists(), reason=f"needs {PROGRAM}: build copy_container")


def copy(kind, source, target):
    return subprocess.run([PROGRAM, kind, source, target], capture_output=True, text=True)


def copied(kind, source, target):
    result = copy(kind, source, target)
    assert result.returncode == 0, result.stderr
    return target


def torch_tensors():
    torch = pytest.importorskip("torch")
    generator = torch.Generator().manual_seed(3)
    plain = torch.randn(5, 7, generator=generator)
    types = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn,
             torch.float8_e5m2, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8,
             torch.uint16, torch.uint32, torch.uint64, torch.bool]
    tensors = {f"t.{str(kind)[6:]}": (plain * 9).abs().to(kind) for kind in types}
    tensors |= {"scalar": torch.tensor(2.5), "empty": torch.zeros(0, 3), "z": torch.arange(3)}
    return tensors


def test_safetensors_files_are_rewritten_to_the_same_bytes(tmp_path):
    """The reference's own order and padding, so equal bytes are to be had."""
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file, save_file

    tensors = torch_tensors()
    save_file(tensors, tmp_path / "a", metadata={"format": "pt"})
    copied("safetensors", tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    loaded = load_file(tmp_path / "b")
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert loaded[name].dtype == tensor.dtype and loaded[name].shape == tensor.shape
        as_bytes = [x.reshape(-1).view(torch.uint8) for x in (loaded[name], tensor)]
        assert torch.equal(*as_bytes), name


def reference_opens(path):
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as file:
            list(file.keys())
        return True
    except (SafetensorError, ValueError, OSError):
        return False


def test_attar_refuses_what_the_reference_refuses_and_nothing_else(tmp_path):
    """Every byte of a header flipped in two ways, and every truncation by 5 bytes.

    One exception on purpose: a name that stands twice, of which the reference keeps the last.
    """
    from safetensors.numpy import save

    whole = save({"a": np.arange(4, dtype=np.float16), "b": np.arange(3, dtype=np.uint8)})
    header = 8 + struct.unpack("<Q", whole[:8])[0]
    broken = [whole[:at] + bytes([whole[at] ^ flip]) + whole[at + 1:]
              for at in range(header) for flip in (1, 64)]
    broken += [whole[:length] for length in range(0, len(whole), 5)]
    refused = 0
    for content in broken:
        (tmp_path / "m").write_bytes(content)
        result = copy("safetensors", tmp_path / "m", tmp_path / "out")
        assert result.returncode in (0, 3)
        if reference_opens(tmp_path / "m"):
            assert result.returncode == 0 or "stands twice" in result.stderr, (content, result.stderr)
        else:
            assert result.returncode == 3, content
            refused += 1
    assert refused > len(broken) // 2


def gguf_sample(path):
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_uint32("u32", 7)
    writer.add_int32("i32", -7)
    writer.add_uint64("u64", 1 << 40)
    writer.add_float32("f32", 0.5)
    writer.add_float64("f64", 0.1)
    writer.add_bool("bool", True)
    writer.add_uint8("u8", 200)
    writer.add_int16("i16", -300)
    writer.add_array("strings", ["a", "", "\u00e9\u4e2d", "long " * 50])
    writer.add_array("ints", [1, -2, 3])
    writer.add_array("floats", [0.5, -1.5])
    rows = np.random.default_rng(1).standard_normal((6, 64), dtype=np.float32)
    writer.add_tensor("f32.weight", rows)
    writer.add_tensor("f16.weight", rows.astype(np.float16))
    for kind in ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "BF16"):
        quantization = gguf.GGMLQuantizationType[kind]
        writer.add_tensor(kind, gguf.quants.quantize(rows, quantization), raw_dtype=quantization)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_gguf_files_are_rewritten_to_the_same_bytes(tmp_path):
    gguf = pytest.importorskip("gguf")
    gguf_sample(tmp_path / "a.gguf")
    copied("gguf", tmp_path / "a.gguf", tmp_path / "b.gguf")
    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()
    first, second = gguf.GGUFReader(tmp_path / "a.gguf"), gguf.GGUFReader(tmp_path / "b.gguf")
    assert list(first.fields) == list(second.fields)
    for one, other in zip(first.tensors, second.tensors, strict=True):
        assert one.name == other.name and one.tensor_type == other.tensor_type
        assert np.array_equal(one.data, other.data)


def test_block_sizes_are_those_of_the_gguf_package(tmp_path):
    """One block of each type that the package knows: attar must accept its size, or not the type."""
    gguf = pytest.importorskip("gguf")
    known = 0
    for kind, (elements, size) in gguf.constants.GGML_QUANT_SIZES.items():
        writer = gguf.GGUFWriter(tmp_path / "a.gguf", "llama")
        writer.add_tensor("t", np.zeros(size, np.uint8), raw_shape=[size], raw_dtype=kind)
        writer.add_tensor("after", np.zeros(1, np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        result = copy("gguf", tmp_path / "a.gguf", tmp_path / "b.gguf")
        if result.returncode != 0:
            assert "does not know" in result.stderr, (kind.name, result.stderr)
            continue
        known += 1
        assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes(), kind.name
    assert known >= 30


def test_hdf5_stores_are_exchanged_with_h5py(tmp_path):
    h5py = pytest.importorskip("h5py")
    values = np.random.default_rng(1).standard_normal((3, 4, 5))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = values
        file["empty"] = np.zeros((0, 2))
        file.attrs["note"] = "\u00e9 variable length"
        file.attrs["count"] = 1 << 40
        file.attrs["mean"] = 0.1
    copied("hdf5", tmp_path / "a.h5", tmp_path / "b.h5")
    with h5py.File(tmp_path / "b.h5") as file:
        assert np.array_equal(file["x"][:], values)
        assert file["empty"].shape == (0, 2)
        assert file.attrs["note"] in ("\u00e9 variable length", "\u00e9 variable length".encode())
        assert file.attrs["count"] == 1 << 40 and file.attrs["mean"] == 0.1


@pytest.mark.skipif(not SHARED_MODELS.exists(), reason="needs ../shared/data/models")
def test_real_files_are_rewritten_to_equal_tensors(tmp_path):
    from safetensors import safe_open

    files = [path for path in SHARED_MODELS.rglob("*.safetensors") if path.stat().st_size < 100e6]
    assert files
    for path in files:
        copied("safetensors", path, tmp_path / "copy")
        with safe_open(path, "pt") as source, safe_open(tmp_path / "copy", "pt") as target:
            assert set(source.keys()) == set(target.keys())
            assert all(source.get_tensor(k).equal(target.get_tensor(k)) for k in source.keys())
