#!/usr/bin/env python3
"""attar beside the reference methods run by their own packages: the same model, the same text, one
after the other on the same threads, both judged by `attar compare`.

    peers.py sparse  MODEL CALIBRATION TEXT    2:4: Wanda and SparseGPT against llmcompressor
    peers.py lowrank MODEL CALIBRATION TEXT    lowrank.svd against plain and whitened SVD (SVD-LLM)
    peers.py lora    MODEL TRAINING [TEXT]     train.lora against PEFT and a torch loop; judged on
                                               what follows the training windows, or on TEXT

`--python` names the Python that has tests/bench/requirements-peers.txt. CALIBRATION and TRAINING are
cut to exactly the windows that are used, so that both sides see the same tokens. Seconds are of the
method alone (attar: the passes of the run), processor seconds and peak memory of the whole process
that reads the model and writes the folder. `--rows REGEX` picks rows; `--set KEY=VALUE` changes an
option of attar's pass.
"""

import argparse
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

import yaml

HERE = pathlib.Path(__file__).resolve().parent
PROGRAM = os.environ.get("ATTAR_PROGRAM", str(HERE.parents[1] / "build/bin/attar"))


def measured(command):
    """Output, and what the process took."""
    since = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    output = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        sys.exit(f"{' '.join(command)} ended with {child.returncode}")
    return output, {"wall": time.perf_counter() - since, "peak": usage.ru_maxrss * 1024,
                    "processor": usage.ru_utime + usage.ru_stime}


def cut_text(arguments, text, tokens, folder):
    """Two files: the beginning of the text that holds `tokens` tokens and a few more, the rest."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    whole = pathlib.Path(text).read_text()
    marks = tokenizer(whole, add_special_tokens=False, return_offsets_mapping=True).offset_mapping
    end = tokens + arguments.length // 2
    if len(marks) < end:
        sys.exit(f"{text} holds {len(marks)} tokens, {end} are needed; ask for fewer")
    place = marks[end][0] if end < len(marks) else len(whole)
    (folder / "text.txt").write_text(whole[:place])
    (folder / "rest.txt").write_text(whole[place:])
    return folder / "text.txt", folder / "rest.txt"


def by_attar(arguments, pass_name, options, text, out):
    own = {k: yaml.safe_load(v) for k, v in (each.split("=", 1) for each in arguments.set)}
    recipe = {"version": 1, "seed": arguments.seed, "model": os.path.abspath(arguments.model),
              "passes": [{pass_name: {**options, **own}}],
              "export": [{"format": "huggingface", "path": "hf", "type": arguments.type}]}
    if pass_name != "train.lora":
        recipe["calibration"] = {"text": str(text), "sequences": arguments.sequences,
                                 "length": arguments.length}
    file = out.with_suffix(".yaml")
    file.write_text(yaml.safe_dump(recipe))
    _, taken = measured([PROGRAM, "run", str(file), "--out", str(out), "--threads",
                         str(arguments.threads)])
    events = [json.loads(line) for line in (out / "run.jsonl").read_text().splitlines()]
    taken["seconds"] = sum(e["seconds"] for e in events
                           if e["event"] == "phase_done" and e["phase"].startswith("passes"))
    return {**taken, "folder": out / "hf", "log": (out / "run.jsonl").read_text()}


def by_peer(arguments, method, options, text, out):
    options = {"model": os.path.abspath(arguments.model), "text": str(text), "out": str(out),
               "threads": arguments.threads, "length": arguments.length, **options}
    output, taken = measured([arguments.python, str(HERE / "peer_methods.py"), method,
                              json.dumps(options)])
    return {**taken, "folder": out, **json.loads(output.splitlines()[-1])}


def judged(arguments, text, folder):
    output = subprocess.run(
        [PROGRAM, "compare", arguments.model, str(folder), "--text", text, "--length", "1024",
         "--windows", str(arguments.windows), "-o", "json", "--threads", str(arguments.threads)],
        check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(output)


# --- what is compared: rows of (name, maker, method, options) ----------------------------------


def sparse_rows(arguments):
    peer = {"sequences": arguments.sequences}
    ours = {"pattern": "2:4"}
    for method in ("wanda", "sparsegpt"):
        yield f"llmcompressor {method}", by_peer, method, peer
        yield f"attar {method}", by_attar, "prune.sparse", {"method": method, **ours}
    yield "attar sparsegpt, the sweep alone", by_attar, "prune.sparse", {
        "refits": 0, "towards_dense": 0, **ours}


def lowrank_rows(arguments):
    peer = {"sequences": arguments.sequences, "keep": arguments.keep}
    yield "plain SVD", by_peer, "svd", peer
    yield "SVD-LLM, whitened", by_peer, "whitened", peer
    yield "SVD-LLM, whitened and updated", by_peer, "updated", peer
    yield "attar, uniform ranks", by_attar, "lowrank.svd", {"keep": arguments.keep,
                                                           "allocation": "uniform", "align": 1}
    yield "attar", by_attar, "lowrank.svd", {"keep": arguments.keep}


def lora_rows(arguments):
    shared = {"steps": arguments.steps, "batch": arguments.batch, "rank": arguments.rank,
              "alpha": 2 * arguments.rank, "warmup": 0.05}
    yield "PEFT", by_peer, "lora", {**shared, "rate": arguments.rate, "seed": arguments.seed}
    yield "attar", by_attar, "train.lora", {
        **shared, "text": "TEXT", "length": arguments.length, "learning_rate": arguments.rate,
        "merge": True, "shift": False, "end_of_text": False}


ROWS = {"sparse": sparse_rows, "lowrank": lowrank_rows, "lora": lora_rows}


def size_of(arguments, made):
    """Share of the Linear weights, or number of trained parameters, as the method counts it."""
    if "size" in made:
        return f"{made['size']:.4f}" if made["size"] < 2 else str(made["size"])
    counted = re.search(r"(\d+) of (\d+) parameters stay", made["log"])
    if counted:
        return f"{int(counted[1]) / int(counted[2]):.4f}"
    return "0.5000" if arguments.kind == "sparse" else ""


def parsed():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(dest="kind", required=True)
    for kind in ROWS:
        own = kinds.add_parser(kind)
        own.add_argument("model")
        own.add_argument("text", help="to calibrate on, or to learn from")
        own.add_argument("judge", help="text to be judged on", nargs="?" if kind == "lora" else None)
        own.add_argument("--python", default=sys.executable)
        own.add_argument("--length", type=int, default=512)
        own.add_argument("--windows", type=int, default=8, help="of 1024 tokens, to be judged on")
        own.add_argument("--threads", type=int, default=1)
        own.add_argument("--seed", type=int, default=7)
        own.add_argument("--rows", default="", metavar="REGEX")
        own.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
        own.add_argument("--keep-folders", metavar="DIR", help="leave what was written there")
        own.set_defaults(type="f32" if kind == "lora" else "f16")
        if kind == "lora":
            own.add_argument("--rank", type=int, default=8)
            own.add_argument("--rate", type=float, default=5e-4)
            own.add_argument("--steps", type=int, default=32)
            own.add_argument("--batch", type=int, default=4)
        else:
            own.add_argument("--sequences", type=int, default=64)
        if kind == "lowrank":
            own.add_argument("--keep", type=float, default=0.8, help="share of the parameters")
    return parser.parse_args()


def main():
    arguments = parsed()
    count = arguments.steps * arguments.batch if arguments.kind == "lora" else arguments.sequences
    print("| | size | KL | perplexity | top-1 | seconds | processor | peak MB |\n"
          "|---|---|---|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(arguments.keep_folders or temporary)
        folder.mkdir(parents=True, exist_ok=True)
        text, rest = cut_text(arguments, arguments.text, count * arguments.length, folder)
        before = None
        for name, maker, method, options in ROWS[arguments.kind](arguments):
            if not re.search(arguments.rows, name):
                continue
            options = {k: str(text) if v == "TEXT" else v for k, v in options.items()}
            out = folder / re.sub(r"\W+", "-", name)
            made = maker(arguments, method, options, text, out)
            found = judged(arguments, arguments.judge or str(rest), made["folder"])
            before = found["perplexity_before"]["value"]
            print(f"| {name} | {size_of(arguments, made)} | {found['kl_mean']['value']:.4f} | "
                  f"{found['perplexity_after']['value']:.2f} | {found['top1']['value']:.4f} | "
                  f"{made['seconds']:.0f} | {made['processor']:.0f} | {made['peak'] / 1e6:.0f} |",
                  flush=True)
    if before:
        print(f"perplexity before: {before:.2f}")


if __name__ == "__main__":
    main()
