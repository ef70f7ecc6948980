#!/usr/bin/env python3
"""The passes of pipeline.yaml in its order and in two others, each run from the same teacher.

    python3 recipes/tinyworld/orders.py OUT [--program build/bin/attar] [--threads N]

Prints a table: the accuracy of what each order leaves, in 4 bits, and its KL to the teacher on text
that nobody trained on. Passes keep their options; only their places change. A run that
lies in OUT already is not done again.
"""

import argparse
import json
import pathlib
import subprocess

import yaml  # of the packages that `make test` installs

HERE = pathlib.Path(__file__).resolve().parent
# By name; the passes behind them stay where they are.
ORDERS = {
    "as in the recipe": ["prune.depth", "prune.width", "distill"],
    "width before depth": ["prune.width", "prune.depth", "distill"],
    "distilled before the last cut": ["prune.depth", "distill", "prune.width"],
}


def name_of(step):
    return next(iter(step))


def ordered(passes, names):
    """The passes with those called `names` in that order, at the places where they stand."""
    moved = {name_of(step): step for step in passes if name_of(step) in names}
    rest = iter(names)
    return [moved[next(rest)] if name_of(step) in names else step for step in passes]


def measure(arguments, recipe, number, names):
    out = arguments.out / str(number)
    passes = json.dumps(ordered(recipe["passes"], names))
    text = {"divergence": {"text": str(HERE / "world/valid.txt"), "length": 192, "windows": 64}}
    evals = json.dumps([{name: {**options, "path": str(HERE / options["path"])}}
                        for step in recipe["eval"] if (name := name_of(step)) in ("mmlu", "gsm8k")
                        for options in [step[name]]] + [text])
    command = [arguments.program, "run", HERE / "pipeline.yaml", "--out", out,
               f"passes={passes}", f"eval={evals}", "eval_after_every_pass=false",
               "export=[{format: compressed-tensors, path: w4}]"]
    if arguments.threads:
        command += ["--threads", arguments.threads]
    subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL)
    found = json.loads((out / "results.json").read_text())
    return (found["results"]["mmlu"]["acc,none"],
            found["results"]["gsm8k"]["exact_match,strict-match"],
            found["attar"]["texts"][0]["kl_mean"]["value"])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=pathlib.Path, help="folder for the runs")
    parser.add_argument("--program", default=str(HERE.parents[1] / "build/bin/attar"))
    parser.add_argument("--threads", type=int, default=0)
    arguments = parser.parse_args()
    recipe = yaml.safe_load((HERE / "pipeline.yaml").read_text())
    arguments.out.mkdir(parents=True, exist_ok=True)
    print("| order | choices | word problems | KL, valid.txt |\n|---|---|---|---|")
    for number, (title, names) in enumerate(ORDERS.items()):
        choices, problems, divergence = measure(arguments, recipe, number, names)
        print(f"| {title}: {' -> '.join(names)} | {choices:.3f} | {problems:.3f} "
              f"| {divergence:.4f} |", flush=True)


if __name__ == "__main__":
    main()
