#!/usr/bin/env python3
"""Seconds of MMLU 5-shot against transformers in fp32, taking turns subject by subject.

    python3 tests/bench/mmlu.py MODEL_FOLDER DATA [--subjects 57] [--documents 4] [--threads 2]

Both get the same contexts. transformers answers as lm-evaluation-harness lets it: every question by
itself with its five examples, log_softmax over all positions, the four letters read off one pass,
since they are one token each. It runs with batches of 1 or of 4 questions, whichever is quicker on a
first subject, which does not count; attar computes what questions of a subject share once. On a
machine with other work to do, the ratio of processor seconds says more than that of the clock on the
wall.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
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

    def turn_of(subject, batches):
        documents, ours = ask("requests", subject), ask("run", subject)
        answers = {"attar": (ours["seconds"], ours["processor_seconds"], ours["log_likelihoods"])}
        for batch in batches:
            answers[f"batch {batch}"] = harness_round(model, tokenizer, documents, batch)
        return answers

    # The batch that the peer is faster with, found on a first turn that does not count.
    warm = turn_of(subjects[0], (1, 4))
    batch = 1 if warm["batch 1"][0] < warm["batch 4"][0] else 4
    peer, worst, wall, processor = f"batch {batch}", 0.0, [], []
    for done, subject in enumerate(subjects, 1):
        answers = turn_of(subject, (batch,))
        wall.append((answers["attar"][0], answers[peer][0]))
        processor.append((answers["attar"][1], answers[peer][1]))
        worst = max(worst, *(abs(a - b) for a, b in zip(answers[peer][2], answers["attar"][2])))
        print(f"{done} of {len(subjects)} subjects: " + ", ".join(
            f"{sum(theirs for _, theirs in pairs) / sum(own for own, _ in pairs):.2f} times the {what}"
            for what, pairs in (("speed", wall), ("work of a processor second", processor))),
            file=sys.stderr)
    for what, pairs in (("wall", wall), ("processor", processor)):
        own, theirs = (sum(column) for column in zip(*pairs))
        each = [theirs / own for own, theirs in pairs]
        print(f"{what:9} seconds of {len(subjects)} subjects: attar {own:.1f}, transformers in a "
              f"{peer} {theirs:.1f}; ratio {theirs / own:.2f}, subjects {min(each):.2f} to "
              f"{max(each):.2f}, median {statistics.median(each):.2f}")
    print(f"log-likelihoods differ by at most {worst:.1e}")
    attar.stdin.close()
    attar.wait()


if __name__ == "__main__":
    main()
