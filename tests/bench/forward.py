#!/usr/bin/env python3
"""Tokens a second of attar's forward pass against transformers in fp32, taking turns in one run.

    python3 tests/bench/forward.py MODEL_FOLDER TEXT [--sequences 16] [--length 512] [--rounds 5]

calibration: hidden states only (transformers: the model without its head).
evaluation:  the log-probability of every next token (transformers: logits, log_softmax, gather).
Prints medians and their ratio, and how far the two sums of log-probabilities lie apart. On a machine
with other work to do, the ratio of processor seconds says more than that of the clock on the wall.
"""

import argparse
import os
import pathlib
import statistics
import subprocess
import tempfile
import time

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

ROOT = pathlib.Path(__file__).resolve().parents[2]


def transformers_round(model, ids, what):
    since, processor_since = time.perf_counter(), time.process_time()
    total = 0.0
    with torch.no_grad():
        for row in ids.split(4):
            if what == "calibration":
                model.model(row, use_cache=False)
                continue
            logits = model(row, use_cache=False).logits[:, :-1].log_softmax(-1)
            total += logits.gather(2, row[:, 1:, None]).double().sum().item()
    return time.perf_counter() - since, time.process_time() - processor_since, total


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("text")
    parser.add_argument("--sequences", type=int, default=16)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()

    torch.set_num_threads(arguments.threads)
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    tokens = tokenizer(pathlib.Path(arguments.text).read_text(), add_special_tokens=False).input_ids
    count = arguments.sequences * arguments.length
    ids = torch.tensor(tokens[:count]).reshape(arguments.sequences, arguments.length)
    model = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32).eval()

    with tempfile.NamedTemporaryFile() as file:
        file.write(ids.numpy().tobytes())
        file.flush()
        program = os.environ.get("ATTAR_FORWARD_ROUNDS", str(ROOT / "build/bin/forward_rounds"))
        attar = subprocess.Popen(
            [program, arguments.model, file.name, str(arguments.sequences), str(arguments.length),
             str(arguments.threads)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

        def attar_round(what):
            attar.stdin.write(what + "\n")
            attar.stdin.flush()
            return tuple(map(float, attar.stdout.readline().split()))

        for what in ("calibration", "evaluation"):
            rounds = {"attar": [], "transformers": []}
            for turn in range(arguments.rounds + 1):
                ours = attar_round(what)
                theirs = transformers_round(model, ids, what)
                if turn > 0:  # the first warms up
                    rounds["attar"].append(ours)
                    rounds["transformers"].append(theirs)
            wall, processor = ({name: statistics.median(r[i] for r in values)
                                for name, values in rounds.items()} for i in (0, 1))
            each = sorted(t[0] / a[0] for a, t in zip(rounds["attar"], rounds["transformers"]))
            print(f"{what:12} attar {count / wall['attar']:7.0f} tokens/s, transformers "
                  f"{count / wall['transformers']:7.0f} tokens/s, ratio of medians "
                  f"{wall['transformers'] / wall['attar']:.2f} (rounds {each[0]:.2f} to "
                  f"{each[-1]:.2f}), of processor seconds "
                  f"{processor['transformers'] / processor['attar']:.2f}"
                  + (f"; sums of log-probabilities {ours[2]:.3f} and {theirs[2]:.3f}"
                     if what == "evaluation" else ""), flush=True)
        attar.stdin.close()
        attar.wait()


if __name__ == "__main__":
    main()
