#!/usr/bin/env python3
"""Tokens a second and peak memory of a distillation step: attar against transformers and torch.

    python3 tests/bench/distill.py MODEL_FOLDER TEXT [--batch 2] [--length 512] [--steps 3]
                                   [--rounds 2] [--cache]

Student and teacher are both MODEL_FOLDER, everything learns; float32, forward KL, AdamW, clipping.
The two take turns, each in a process of its own. --cache: attar reads the teacher's 32 largest
probabilities that an earlier run wrote down; torch still runs its teacher. The machine may have
other work to do: the ratio of processor seconds then says more than that of the clock on the wall.
"""

import argparse
import json
import os
import pathlib
import re
import resource
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
RECIPE = """version: 1
seed: 7
model: {model}
passes:
  - distill: {{text: {text}, steps: {steps}, batch: {batch}, length: {length}, shift: false,
              loss: forward_kl, warmup: 0, save_seconds: 86400{cache}}}
"""


def torch_round(arguments):
    import torch
    from torch.nn.functional import kl_div
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(arguments.threads)
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    tokens = tokenizer(pathlib.Path(arguments.text).read_text(), add_special_tokens=False).input_ids
    count = arguments.steps * arguments.batch * arguments.length
    ids = torch.tensor(tokens[:count]).reshape(arguments.steps, arguments.batch, arguments.length)
    load = lambda: AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32)
    student, teacher = load().train(), load().eval()
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1)
    since, processor = time.perf_counter(), time.process_time()
    for batch in ids:
        with torch.no_grad():
            wanted = teacher(batch, use_cache=False).logits.flatten(0, 1).log_softmax(-1)
        given = student(batch, use_cache=False).logits.flatten(0, 1).log_softmax(-1)
        loss = kl_div(given, wanted, log_target=True, reduction="batchmean")
        loss.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    seconds, processor = time.perf_counter() - since, time.process_time() - processor
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"tokens": count, "seconds": seconds, "processor": processor, "peak": peak}))


def measured(command):
    """Output and peak memory of a command."""
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    output = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        sys.exit(f"{command[0]} ended with {child.returncode}")
    return output, usage.ru_maxrss * 1024


def attar_round(arguments, folder):
    recipe = pathlib.Path(folder) / "recipe.yaml"
    cache = f", cache: {folder}/cache" if arguments.cache else ""
    options = {**vars(arguments), "cache": cache, "text": os.path.abspath(arguments.text),
               "model": os.path.abspath(arguments.model)}
    recipe.write_text(RECIPE.format(**options))
    program = os.environ.get("ATTAR_PROGRAM", str(ROOT / "build/bin/attar"))
    out = pathlib.Path(folder) / f"out{time.time_ns()}"
    _, peak = measured([program, "run", str(recipe), "--out", str(out), "--threads",
                        str(arguments.threads)])
    text = (out / "run.jsonl").read_text()
    tokens, seconds, processor = re.search(
        r"(\d+) tokens in ([\d.e+]+) seconds, ([\d.e+]+) processor", text).groups()
    return {"tokens": int(tokens), "seconds": float(seconds), "processor": float(processor),
            "peak": peak}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("text")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cache", action="store_true")
    parser.add_argument("--torch", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.torch:
        return torch_round(arguments)

    totals = {"torch": [], "attar": []}
    with tempfile.TemporaryDirectory() as folder:
        if arguments.cache:
            attar_round(arguments, folder)  # writes the teacher down
        for _ in range(arguments.rounds):
            again = [sys.executable, __file__, *sys.argv[1:], "--torch"]
            totals["torch"].append(json.loads(measured(again)[0].splitlines()[-1]))
            totals["attar"].append(attar_round(arguments, folder))
    found = {}
    for name, rounds in totals.items():
        tokens = sum(each["tokens"] for each in rounds)
        found[name] = {
            "per_second": tokens / sum(each["seconds"] for each in rounds),
            "per_processor_second": tokens / sum(each["processor"] for each in rounds),
            "peak": max(each["peak"] for each in rounds),
        }
        print(f"{name}: {found[name]['per_second']:.1f} tokens/s, "
              f"{found[name]['per_processor_second']:.1f} tokens per processor second, "
              f"peak {found[name]['peak'] / 1e6:.0f} MB")
    ratio = {key: found["attar"][key] / found["torch"][key] for key in found["attar"]}
    print(f"attar/torch: {ratio['per_second']:.2f}x tokens/s, "
          f"{ratio['per_processor_second']:.2f}x per processor second, {ratio['peak']:.2f}x memory")


if __name__ == "__main__":
    main()
