#!/usr/bin/env python3
"""Decoding and prefill in turns with llama.cpp on the same file: medians and their ratios.

    python3 tests/bench/speed.py MODEL.gguf [--threads 1 2] [--rounds 5] [--prompt 512] [--tokens 64]
        [--llama-python /path/to/python/with/llama-cpp-python]

On a machine with other work to do, the ratio of processor seconds says more than that of the clock
on the wall, and so does the best round: both are printed.
"""

import argparse
import os
import pathlib
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]


class Program:
    def __init__(self, command):
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.DEVNULL, text=True)
        self.bytes = int(self.process.stdout.readline().split()[1])

    def ask(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return tuple(map(float, self.process.stdout.readline().split()))

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def compare(arguments, threads):
    rounds_program = os.environ.get("ATTAR_SPEED_ROUNDS", str(ROOT / "build/bin/speed_rounds"))
    ours = Program([rounds_program, arguments.model, str(threads)])
    theirs = Program([arguments.llama_python, str(ROOT / "tests/bench/llama_rounds.py"),
                      arguments.model, str(threads)])
    probes = []
    for what, count in (("decode", arguments.tokens), ("prefill", arguments.prompt)):
        rounds = {"attar": [], "llama.cpp": []}
        for turn in range(arguments.rounds + 1):
            mine, other = ours.ask(f"{what} {count}"), theirs.ask(f"{what} {count}")
            probe = ours.ask("probe")[0] if what == "decode" else 0
            if turn == 0:  # warms up
                continue
            rounds["attar"].append(mine)
            rounds["llama.cpp"].append(other)
            probes += [probe] if probe else []
        wall, processor = ({name: statistics.median(r[i] for r in values)
                            for name, values in rounds.items()} for i in (0, 1))
        best = {name: min(r[0] for r in values) for name, values in rounds.items()}
        print(f"{threads} thread(s) {what:7} attar {count / wall['attar']:8.1f} tokens/s, llama.cpp "
              f"{count / wall['llama.cpp']:8.1f}: {wall['llama.cpp'] / wall['attar']:.2f} times; best "
              f"rounds {count / best['attar']:.1f} and {count / best['llama.cpp']:.1f}: "
              f"{best['llama.cpp'] / best['attar']:.2f}; a processor second "
              f"{processor['llama.cpp'] / processor['attar']:.2f}", flush=True)
        if what == "decode":
            rate = count / wall["attar"] * ours.bytes
            print(f"{threads} thread(s) decode  {ours.bytes / 1e6:.1f} MB of weights a token: "
                  f"{rate / 1e9:.2f} GB/s, {100 * rate / statistics.median(probes):.0f} % of the "
                  f"{statistics.median(probes) / 1e9:.2f} GB/s read in turns", flush=True)
    ours.close()
    theirs.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--llama-python", default=sys.executable)
    arguments = parser.parse_args()
    for threads in arguments.threads:
        compare(arguments, threads)


if __name__ == "__main__":
    main()
