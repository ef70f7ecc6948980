#!/usr/bin/env python3
"""Seconds of MMLU 5-shot against transformers in fp32, taking turns subject by subject.

    python3 tests/bench/mmlu.py MODEL_FOLDER DATA [--subjects 57] [--documents 4] [--threads 2]

Both get the same contexts. transformers answers as lm-evaluation-harness lets it: every question by
itself with its five examples, log_softmax over all positions, the four letters read off one pass,
since they are one token each. It runs with batches of 1 and of 4 questions, and the quicker of the
two in total counts; attar computes what questions of a subject share once. Each starts with one
subject that does not count. On a machine with other work to do, the ratio of processor seconds says
more than that of the clock on the wall.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import time

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

ROOT = pathlib.Path(__file__).resolve().parents[2]


def harness_round(model, tokenizer, documents, batch):
    """Wall and processor seconds, and the log-likelihoods of all targets."""
    since, processor_since = time.perf_counter(), time.process_time()
    found = []
    with torch.no_grad():
        for first in range(0, len(documents), batch):
            rows, letters = [], []
            for document in documents[first:first + batch]:
                whole = [tokenizer(document["context"] + target).input_ids
                         for target in document["targets"]]
                assert all(ids[:-1] == whole[0][:-1] for ids in whole), "a target of two tokens"
                rows.append(torch.tensor(whole[0][:-1]))
                letters.append([ids[-1] for ids in whole])
            padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)  # causal: no mask
            logits = model(padded, use_cache=False).logits.log_softmax(-1)
            for i, row in enumerate(rows):
                found += logits[i, len(row) - 1, letters[i]].tolist()
    return time.perf_counter() - since, time.process_time() - processor_since, found


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("data", type=pathlib.Path)
    parser.add_argument("--subjects", type=int, default=57)
    parser.add_argument("--documents", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()

    torch.set_num_threads(arguments.threads)
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    model = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32).eval()
    rows = (arguments.data / "mmlu_test.jsonl").read_text().strip().split("\n")
    subjects = sorted({json.loads(row)["subject"] for row in rows})
    step = max(1, len(subjects) // arguments.subjects)
    subjects = subjects[::step][:arguments.subjects]
    program = os.environ.get("ATTAR_MMLU_ROUNDS", str(ROOT / "build/bin/mmlu_rounds"))
    attar = subprocess.Popen([program, arguments.model, str(arguments.data),
                              str(arguments.documents), str(arguments.threads)],
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(what, subject):
        attar.stdin.write(f"{what} {subject}\n")
        attar.stdin.flush()
        return json.loads(attar.stdout.readline())

    names = ("attar", "batch 1", "batch 4")
    wall, processor = ({name: [] for name in names} for _ in range(2))
    worst = 0.0
    for turn, subject in enumerate([subjects[0], *subjects]):
        documents = ask("requests", subject)
        ours = ask("run", subject)
        answers = {"attar": (ours["seconds"], ours["processor_seconds"], ours["log_likelihoods"])}
        for batch in (1, 4):
            answers[f"batch {batch}"] = harness_round(model, tokenizer, documents, batch)
        if turn == 0:
            continue
        for name, (seconds, processor_seconds, found) in answers.items():
            wall[name].append(seconds)
            processor[name].append(processor_seconds)
            worst = max(worst, *(abs(a - b) for a, b in zip(found, answers["attar"][2])))
    for what, seconds in (("wall", wall), ("processor", processor)):
        total = {name: sum(values) for name, values in seconds.items()}
        best = min(("batch 1", "batch 4"), key=total.get)
        each = [t / a for a, t in zip(seconds["attar"], seconds[best])]
        print(f"{what:9} seconds of {len(subjects)} subjects: "
              + ", ".join(f"{name} {total[name]:.1f}" for name in names)
              + f"; ratio {total[best] / total['attar']:.2f}, subjects "
                f"{min(each):.2f} to {max(each):.2f}, median {statistics.median(each):.2f}")
    print(f"log-likelihoods differ by at most {worst:.1e}")
    attar.stdin.close()
    attar.wait()


if __name__ == "__main__":
    main()
