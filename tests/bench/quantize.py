"""Seconds that a model takes into a quantized GGUF file: attar export beside llama.cpp's quantizer
(llama_model_quantize of llama-cpp-python), in turns, each in a process of its own.

    quantize.py MODEL.gguf [--types Q8_0 Q4_0 Q4_K_M] [--threads 1 2] [--rounds 3] [--python PYTHON]
                [--folder FOLDER]

MODEL holds F32, F16 or BF16. PYTHON is one that imports llama_cpp. Files are written into FOLDER
(default: a temporary one); attar waits until its file is on the disk, llama.cpp does not, so a
folder in memory (/dev/shm) shows what the quantizers do.

Of attar the whole process is counted; of llama.cpp the call alone, without starting Python and
loading the library. What attar takes to start (attar --version, mostly loading LibTorch) is
measured beside it and ratios are given with it and without it. Ratios are of medians, by the clock
and in processor seconds. Peaks are VmHWM, mapped files included. Also told: whether both files hold
the same types, and in how many tensors the same bytes."""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
ATTAR = os.environ.get("ATTAR_PROGRAM", str(ROOT / "build/bin/attar"))
FILE_TYPES = {"Q4_0": 2, "Q4_1": 3, "Q8_0": 7, "Q5_0": 8, "Q5_1": 9, "Q2_K": 10, "Q3_K_S": 11,
              "Q3_K_M": 12, "Q3_K_L": 13, "Q4_K_S": 14, "Q4_K_M": 15, "Q5_K_S": 16, "Q5_K_M": 17,
              "Q6_K": 18, "IQ4_NL": 25, "IQ4_XS": 30}
THEIRS = """
import json, resource, sys, time, llama_cpp
parameters = llama_cpp.llama_model_quantize_default_params()
parameters.ftype, parameters.nthread = int(sys.argv[3]), int(sys.argv[4])
def processor():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
start, used = time.perf_counter(), processor()
code = llama_cpp.llama_model_quantize(sys.argv[1].encode(), sys.argv[2].encode(), parameters)
assert code == 0, code
print("TOOK", json.dumps([time.perf_counter() - start, processor() - used,
                          resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3]))
"""


def measured(command):
    """Seconds by the clock, processor seconds and peak megabytes of a process."""
    environment = dict(os.environ, OMP_WAIT_POLICY="PASSIVE")
    start = time.perf_counter()
    with tempfile.TemporaryFile() as said:
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=said, env=environment)
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        assert child.returncode == 0, said.read().decode()
    return time.perf_counter() - start, used.ru_utime + used.ru_stime, used.ru_maxrss / 1e3


def ours(model, out, kind, threads):
    return measured([ATTAR, "export", str(model), "--out", str(out), "--format", "gguf", "--type",
                     kind, "--threads", str(threads), "--replace"])


def theirs(python, model, out, kind, threads):
    done = subprocess.run([python, "-c", THEIRS, str(model), str(out), str(FILE_TYPES[kind]),
                           str(threads)], check=True, capture_output=True, text=True)
    return json.loads([line for line in done.stdout.splitlines()
                       if line.startswith("TOOK")][-1][5:])


def compare(first, second):
    import gguf
    a, b = ({tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
            for path in (first, second))
    kinds = all(a[name].tensor_type == b[name].tensor_type for name in b) and a.keys() == b.keys()
    same = sum(a[name].data.tobytes() == b[name].data.tobytes() for name in b if name in a)
    return f"types {'the same' if kinds else 'DIFFER'}, {same} of {len(b)} tensors the same bytes"


def medians(rounds):
    return [statistics.median(column) for column in zip(*rounds)]


def turns(given, folder, kind, threads):
    mine, peers = folder / "ours.gguf", folder / "theirs.gguf"
    starts, a, b = [], [], []
    for _ in range(given.rounds):
        starts.append(measured([ATTAR, "--version"]))
        a.append(ours(given.model, mine, kind, threads))
        b.append(theirs(given.python, given.model, peers, kind, threads))
    start, our, their = medians(starts), medians(a), medians(b)
    print(f"{kind} threads {threads}: attar {our[0]:.2f} s, {our[1]:.2f} processor seconds (start "
          f"{start[0]:.2f}, {start[1]:.2f}), {our[2]:.0f} MB; llama.cpp {their[0]:.2f} s, "
          f"{their[1]:.2f}, {their[2]:.0f} MB; ratios clock {their[0] / our[0]:.2f}, processor "
          f"{their[1] / our[1]:.2f}, without the start {their[0] / (our[0] - start[0]):.2f}, "
          f"{their[1] / (our[1] - start[1]):.2f}; load {os.getloadavg()[0]:.1f}", flush=True)
    return mine, peers


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--types", nargs="+", default=["Q8_0", "Q4_0", "Q4_K_M"],
                        choices=FILE_TYPES)
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--folder", default=None)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        for kind in given.types:
            for threads in given.threads:
                files = turns(given, pathlib.Path(folder), kind, threads)
            # In a process of its own: children would count their peak from what this one maps.
            done = subprocess.run([sys.executable, __file__, "--compare", *map(str, files)],
                                  check=True, capture_output=True, text=True)
            print("  " + done.stdout.strip(), flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--compare"]:
        print(compare(*sys.argv[2:]))
    else:
        main()
