"""Block types of GGUF against other programs: encoded byte for byte as llama.cpp's quantizers (its
library by ctypes) and the gguf package do, decoded bit for bit."""

import ctypes
import pathlib
import subprocess

import numpy
import pytest

from formats_tools import BUILD

PROGRAM = BUILD / "bin" / "encode_blocks"
pytestmark = pytest.mark.skipif(not PROGRAM.exists(), reason=f"needs {PROGRAM}: build it")

# In the order of GgmlBlock: name, ggml's number, elements, bytes.
TYPES = [("Q8_0", 8, 32, 34), ("Q4_0", 2, 32, 18), ("Q4_1", 3, 32, 20), ("Q5_0", 6, 32, 22),
         ("Q5_1", 7, 32, 24), ("IQ4_NL", 20, 32, 18), ("Q2_K", 10, 256, 84),
         ("Q3_K", 11, 256, 110), ("Q4_K", 12, 256, 144), ("Q5_K", 13, 256, 176),
         ("Q6_K", 14, 256, 210), ("IQ4_XS", 23, 256, 136)]
COLUMNS = 512


def rows_of(count):
    """[count, COLUMNS] float32: fourteen distributions in equal shares."""
    random = numpy.random.default_rng(1)
    each = -(-count // 14)
    shape = (each, COLUMNS)
    normal = random.standard_normal
    sparse = normal(shape)
    sparse[random.random(shape) < 0.8] = 0
    parts = [normal(shape) * 0.02, random.standard_t(2, shape) * 0.01,
             random.standard_cauchy(shape), random.uniform(-1, 1, shape),
             random.uniform(0.5, 1, shape), numpy.zeros(shape),
             numpy.repeat(normal((each, 1)), COLUMNS, 1), sparse,
             normal(shape) * 10.0 ** random.uniform(-36, -10, (each, 1)),
             normal(shape) * 10.0 ** random.uniform(3, 17, (each, 1)),
             normal(shape) * 10.0 ** random.uniform(-6, 3, shape),
             normal(shape) * numpy.repeat(10.0 ** random.uniform(-6, 3, (each, COLUMNS // 16)),
                                          16, 1),
             random.integers(-8, 8, shape).astype(float),
             numpy.copysign(random.integers(0, 2, shape), normal(shape))]  # both zeros
    return numpy.concatenate(parts)[:count].astype(numpy.float32)


def run(folder, index, *arguments):
    subprocess.run([str(PROGRAM), str(index), *map(str, arguments)], check=True, cwd=folder)


def encoded(folder, index, values):
    values.tofile(folder / "values")
    run(folder, index, "values", "blocks")
    return numpy.fromfile(folder / "blocks", numpy.uint8)


@pytest.fixture(scope="module")
def values():
    return rows_of(1000)


@pytest.fixture(scope="module")
def llama_cpp():
    xllamacpp = pytest.importorskip("xllamacpp")
    library = ctypes.CDLL(str(next(pathlib.Path(xllamacpp.__file__).parent.glob("*.so"))))
    chunk = library.ggml_quantize_chunk
    chunk.restype = ctypes.c_size_t
    chunk.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64,
                      ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p]

    def quantize(number, values, size, weights=None):
        out = numpy.zeros(size, numpy.uint8)
        chunk(number, values.ctypes.data, out.ctypes.data, 0, values.shape[0], values.shape[1],
              None if weights is None else weights.ctypes.data)
        return out

    return quantize


@pytest.mark.parametrize("index", range(len(TYPES)), ids=[row[0] for row in TYPES])
def test_a_thousand_rows_are_encoded_byte_for_byte_as_by_llama_cpp(tmp_path, index, values,
                                                                   llama_cpp):
    _, number, elements, size = TYPES[index]
    ours = encoded(tmp_path, index, values).reshape(-1, size)
    theirs = llama_cpp(number, values, values.size // elements * size).reshape(-1, size)
    assert not (ours != theirs).any(), f"blocks {numpy.flatnonzero((ours != theirs).any(1))[:9]}"


@pytest.mark.parametrize("index", range(len(TYPES)), ids=[row[0] for row in TYPES])
def test_the_gguf_package_encodes_the_same_where_it_can_and_decodes_the_same(tmp_path, index,
                                                                             values):
    gguf = pytest.importorskip("gguf")
    name, number, elements, size = TYPES[index]
    kind = gguf.GGMLQuantizationType(number)
    blocks = encoded(tmp_path, index, values)
    try:
        with numpy.errstate(all="ignore"):
            theirs = gguf.quantize(values, kind)
    except NotImplementedError:
        theirs = None
    if theirs is not None:
        assert (blocks.reshape(theirs.shape) == theirs).all(), name
    random = numpy.random.default_rng(2)
    noise = random.integers(0, 256, 2000 * size).astype(numpy.uint8)
    for data in (blocks, noise):
        data.tofile(tmp_path / "data")
        run(tmp_path, index, "decode", "data", "values")
        ours = numpy.fromfile(tmp_path / "values", numpy.float32)
        with numpy.errstate(all="ignore"):
            theirs = gguf.dequantize(data.reshape(1, -1), kind).reshape(-1)
        assert numpy.array_equal(ours, theirs, equal_nan=True), name


def layer_like(random):
    """400 rows as a layer's are, some heavy-tailed, and what an error in each column costs: few
    loud columns, as an importance matrix says it."""
    rows = numpy.concatenate([random.standard_normal((200, COLUMNS)) * 0.02,
                              random.standard_t(4, (200, COLUMNS)) * 0.02])
    weights = random.standard_normal(COLUMNS) ** 2 * 10.0 ** random.uniform(-2, 2, COLUMNS)
    return rows.astype(numpy.float32), weights.astype(numpy.float32)


@pytest.mark.parametrize("index", [i for i in range(len(TYPES)) if TYPES[i][0] != "Q8_0"],
                         ids=[row[0] for row in TYPES if row[0] != "Q8_0"])
def test_rounding_by_an_importance_matrix_errs_no_more_than_llama_cpps(tmp_path, index, llama_cpp):
    """The error under the weights, over 400 rows. (llama.cpp has no weighted rounding of Q8_0.)"""
    gguf = pytest.importorskip("gguf")
    program = BUILD / "bin" / "encode_weighted"
    if not program.exists():
        pytest.skip(f"needs {program}: build it")
    name, number, elements, size = TYPES[index]
    values, weights = layer_like(numpy.random.default_rng(3))
    values.tofile(tmp_path / "values")
    weights.tofile(tmp_path / "weights")
    subprocess.run([str(program), name, "values", "weights", "blocks"], check=True, cwd=tmp_path)
    ours = numpy.fromfile(tmp_path / "blocks", numpy.uint8)
    theirs = llama_cpp(number, values, values.size // elements * size, weights)

    def error(blocks):
        back = gguf.dequantize(blocks.reshape(1, -1), gguf.GGMLQuantizationType(number))
        return float(((back.reshape(values.shape).astype(float) - values) ** 2 * weights).sum())

    assert ours.size == theirs.size
    print(f"{name}: weighted error {error(ours) / error(theirs):.3f} of llama.cpp's")
    assert error(ours) <= error(theirs)
