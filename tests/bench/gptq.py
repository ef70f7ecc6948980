#!/usr/bin/env python3
"""What a block of quantize.gptq costs beside its forward passes and Hessian products at the rate of
float32 products that `attar doctor` measures here, before and after, on as many threads.

    python3 tests/bench/gptq.py MODEL --text calib.txt [--sequences 32] [--length 512]
                                [--threads 2] [--blocks 2] [--towards-dense 0.5]

The run is ended after so many blocks, which all cost the same. Seconds by the clock: with other
work beside, both they and the rate say little.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import tempfile
import time

from memory import PROGRAM, finished_blocks, status

def product_rate(threads):
    """Float operations a second."""
    doctor = subprocess.run([PROGRAM, "doctor", "--threads", str(threads), "--output", "json"],
                            capture_output=True, text=True, check=True)
    return json.loads(doctor.stdout)["gemm_gflops"] * 1e9


def operations(config, tokens, length, dense):
    """Of one block: (forward passes, Hessian products)."""
    hidden, ffn = config["hidden_size"], config["intermediate_size"]
    heads = config["num_attention_heads"]
    head = config.get("head_dim") or hidden // heads
    q, kv = heads * head, config.get("num_key_value_heads", heads) * head
    weights = hidden * (2 * q + 2 * kv + 3 * ffn)
    forward = tokens * (2 * weights + 2 * q * length)
    squares = 2 * hidden**2 + q**2 + ffn**2
    # H is symmetric, the products with the unchanged model's inputs are not.
    return (forward * (2 if dense else 1), tokens * squares * (3 if dense else 1))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--text", required=True)
    parser.add_argument("--sequences", type=int, default=32)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--blocks", type=int, default=2)
    parser.add_argument("--towards-dense", type=float, default=0.5)
    arguments = parser.parse_args()
    config = json.loads((arguments.model / "config.json").read_text())
    rates = [product_rate(arguments.threads)]
    recipe = {"version": 1, "seed": 7, "model": str(arguments.model.resolve()),
              "calibration": {"text": str(pathlib.Path(arguments.text).resolve()),
                              "sequences": arguments.sequences, "length": arguments.length,
                              "token_weights": "uniform"},
              "passes": [{"quantize.gptq": {"bits": 4, "group_size": 64,
                                            "towards_dense": arguments.towards_dense}}]}
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        (folder / "recipe.yaml").write_text(json.dumps(recipe))
        process = subprocess.Popen([PROGRAM, "run", folder / "recipe.yaml", "--out", folder / "out",
                                    "--threads", str(arguments.threads)],
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        marks, peak = [], 0  # when a block was there
        while process.poll() is None and len(marks) <= arguments.blocks:
            if found := status(process):
                peak = max(peak, found[0])
            if not marks and list(folder.glob("out*/run.jsonl")):
                marks.append(time.monotonic())
            if marks and finished_blocks(folder) >= len(marks):
                marks.append(time.monotonic())
            time.sleep(0.05)
        process.terminate()
        process.wait()
    rates.append(product_rate(arguments.threads))
    rate = sum(rates) / len(rates)
    forward, products = operations(config, arguments.sequences * arguments.length,
                                   arguments.length, arguments.towards_dense > 0)
    least = (forward + products) / rate
    took = statistics.median(after - before for before, after in zip(marks, marks[1:]))
    print(f"a block: {took:.1f} s; {(forward + products) / 1e12:.2f} TFLOP at "
          f"{' and '.join(f'{r / 1e9:.0f}' for r in rates)} GFLOP/s: {least:.1f} s; "
          f"ratio {took / least:.2f}")
    print(f"peak {peak / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
