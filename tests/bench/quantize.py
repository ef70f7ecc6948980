"""Seconds that a model takes into a quantized GGUF file: attar export beside llama.cpp's quantizer
(llama_model_quantize of llama-cpp-python), in turns, each in a process of its own.

    quantize.py MODEL.gguf [--types Q8_0 Q4_0 Q4_K_M] [--threads 1 2] [--rounds 3] [--python PYTHON]

MODEL holds F32, F16 or BF16. PYTHON is one that imports llama_cpp. Also told: whether both files hold
the same types, and in how many tensors the same bytes."""

import argparse
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
FILE_TYPES = {"Q4_0": 2, "Q4_1": 3, "Q8_0": 7, "Q5_0": 8, "Q5_1": 9, "Q2_K": 10, "Q3_K_S": 11,
              "Q3_K_M": 12, "Q3_K_L": 13, "Q4_K_S": 14, "Q4_K_M": 15, "Q5_K_S": 16, "Q5_K_M": 17,
              "Q6_K": 18, "IQ4_NL": 25, "IQ4_XS": 30}
THEIRS = """
import sys, time, llama_cpp
parameters = llama_cpp.llama_model_quantize_default_params()
parameters.ftype, parameters.nthread = int(sys.argv[3]), int(sys.argv[4])
start = time.perf_counter()
code = llama_cpp.llama_model_quantize(sys.argv[1].encode(), sys.argv[2].encode(), parameters)
assert code == 0, code
print("SECONDS", time.perf_counter() - start)
"""


def ours(model, out, kind, threads):
    environment = dict(os.environ, OMP_WAIT_POLICY="PASSIVE")
    start = time.perf_counter()
    subprocess.run([str(ROOT / "build/bin/attar"), "export", str(model), "--out", str(out),
                    "--format", "gguf", "--type", kind, "--threads", str(threads), "--replace"],
                   check=True, capture_output=True, env=environment)
    return time.perf_counter() - start


def theirs(python, model, out, kind, threads):
    done = subprocess.run([python, "-c", THEIRS, str(model), str(out), str(FILE_TYPES[kind]),
                           str(threads)], check=True, capture_output=True, text=True)
    return float([line for line in done.stdout.splitlines()
                  if line.startswith("SECONDS")][-1].split()[1])


def compare(first, second):
    import gguf
    a, b = ({tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
            for path in (first, second))
    kinds = all(a[name].tensor_type == b[name].tensor_type for name in b) and a.keys() == b.keys()
    same = sum(a[name].data.tobytes() == b[name].data.tobytes() for name in b if name in a)
    return f"types {'the same' if kinds else 'DIFFER'}, {same} of {len(b)} tensors the same bytes"


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--types", nargs="+", default=["Q8_0", "Q4_0", "Q4_K_M"],
                        choices=FILE_TYPES)
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--python", default=sys.executable)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        mine, peers = pathlib.Path(folder) / "ours.gguf", pathlib.Path(folder) / "theirs.gguf"
        for kind in given.types:
            for threads in given.threads:
                pairs = [(ours(given.model, mine, kind, threads),
                          theirs(given.python, given.model, peers, kind, threads))
                         for _ in range(given.rounds)]
                a, b = (statistics.median(column) for column in zip(*pairs))
                ratio = statistics.median(their / our for our, their in pairs)
                print(f"{kind} threads {threads}: attar {a:.2f} s, llama.cpp {b:.2f} s, "
                      f"ratio {ratio:.2f}; load {os.getloadavg()[0]:.1f}", flush=True)
            print("  " + compare(mine, peers), flush=True)


if __name__ == "__main__":
    main()
