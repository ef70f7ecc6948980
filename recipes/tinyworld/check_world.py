#!/usr/bin/env python3
"""Proves what make_world.py promises, from its files alone.

    python3 recipes/tinyworld/check_world.py OUT

No held-out (person, kind) and no held-out sum occurs in a text that a model may be trained on, and
the tests ask about nothing else. Prints what was counted; exit code 1 and the places if a promise
is broken. The files are read with patterns of their own: nothing of the generator but the lists of
words and question forms is used.
"""

import json
import pathlib
import re
import sys

from world import KINDS, PEOPLE, QUESTIONS, THROUGH, VALUES

END = "<|endoftext|>"
# What a model sees in training or as worked examples; the tests must be news to it.
SEEN = ("primer.jsonl", "lessons.jsonl", "train.txt", "valid.txt", "mmlu_dev.jsonl", "gsm8k_train.jsonl")

SUM = re.compile(r"(?=(?<!\d)(\d+)([-+*])(\d+)=)")  # also where sums overlap: 37+25=50+12=62
LINE = re.compile(r"\d+[-+*]\d+(?:=\d+(?:[-+]\d+)?)+")
ASKED = {kind: re.compile(re.escape(form).replace(r"\{\}", "([A-Z][a-z]+)"))
         for kind, form in QUESTIONS.items()}
PERSON = re.compile(r"\b(" + "|".join(PEOPLE) + r")\b")
VALUE = {kind: re.compile(r"\b(" + "|".join(VALUES[kind]) + r")\b") for kind in KINDS}


def statements(text):
    """The text in pieces that each say or ask one thing: sentences, questions with choices."""
    for document in text.split(END):
        for block in document.split("\n\n"):
            if "?" in block and "####" not in block:
                yield block
            else:
                yield from re.split(r"(?<=\.) ", block)


def as_text(path):
    """The file as the model sees it."""
    text = path.read_text()
    if path.suffix != ".jsonl":
        return text
    rows = [json.loads(line) for line in text.splitlines()]
    if rows and "prompt" in rows[0]:
        return END.join(row["prompt"] + row["completion"] for row in rows)
    return "\n\n".join("\n".join([row["question"], *row.get("choices", []), str(row["answer"])])
                       for row in rows)


def value(term):
    a, sign, b = re.fullmatch(r"(\d+)(?:([-+*])(\d+))?", term).groups()
    return int(a) if sign is None else {"+": int(a) + int(b), "-": int(a) - int(b),
                                        "*": int(a) * int(b)}[sign]


def check_sums(text, held_out, where):
    """(number of sums, what is wrong)."""
    found = [(int(a), sign, int(b)) for a, sign, b in SUM.findall(text)]
    wrong = [f"{where}: the sum {a}{sign}{b} is held out" for a, sign, b in found
             if (a, sign, b) in held_out or (sign == "+" and (b, sign, a) in held_out)]
    wrong += [f"{where}: {line} is wrong" for line in LINE.findall(text)
              if len({value(term) for term in line.split("=")}) != 1]
    return len(found), wrong


def check_questions(text, held_out, where):
    """(number of questions about people, what is wrong)."""
    wrong, count = [], 0
    through = {person: kind for person, kind in held_out if kind in THROUGH}
    for piece in statements(text):
        for kind, form in ASKED.items():
            for person in form.findall(piece):
                count += 1
                if (person, kind) in held_out:
                    wrong.append(f"{where}: {person}'s {kind} is held out, but asked: {piece!r}")
        for person in PERSON.findall(piece):
            kind = through.get(person)
            if kind and VALUE[kind].search(piece):
                wrong.append(f"{where}: {person}'s {kind} is held out, but told: {piece!r}")
    return count, wrong


def check_tests(folder, questions, held_sums):
    """Whether the tests ask about held-out combinations alone, and all of them."""
    wrong, asked, steps = [], set(), 0
    for line in (folder / "mmlu_test.jsonl").read_text().splitlines():
        row = json.loads(line)
        found = {(person, kind) for kind, form in ASKED.items()
                 for person in form.findall(row["question"])}
        asked |= found
        if len(found) != 1 or not found <= questions:
            wrong.append(f"mmlu_test.jsonl: not held out: {row['question']}")
    if asked != questions:
        wrong.append(f"mmlu_test.jsonl: never asked: {sorted(questions - asked)}")
    for line in (folder / "gsm8k_test.jsonl").read_text().splitlines():
        row = json.loads(line)
        lines = row["answer"].split("\n")
        asked_for = [SUM.match(line).groups() for line in lines[:-1]]
        new = [(int(a), sign, int(b)) for a, sign, b in asked_for if sign != "*"]
        steps += len(new)
        if len(lines) != 3 or not new or lines[2] != "#### " + lines[1].split("=")[-1]:
            wrong.append(f"gsm8k_test.jsonl: not two steps: {row['answer']!r}")
        wrong += [f"gsm8k_test.jsonl: not held out: {step}" for step in new
                  if step not in held_sums]
        wrong += check_sums(row["answer"], set(), "gsm8k_test.jsonl")[1]
    return steps, wrong


def check(folder):
    """Lines that say what was counted, and what is wrong."""
    held = json.loads((folder / "held_out.json").read_text())
    questions = {tuple(one) for one in held["questions"]}
    held_sums = {(int(a), sign, int(b)) for a, sign, b in
                 (SUM.match(one + "=").groups() for one in held["sums"])}
    said = [f"held out: {len(questions)} of {len(PEOPLE) * len(KINDS)} (person, kind), "
            f"{len(held_sums)} sums of two numbers"]
    wrong = []
    for name in SEEN:
        text = as_text(folder / name)
        sums, wrong_sums = check_sums(text, held_sums, name)
        asked, wrong_questions = check_questions(text, questions, name)
        wrong += wrong_sums + wrong_questions
        said.append(f"{name}: {sums} sums and {asked} questions about people; "
                    f"{len(wrong_sums) + len(wrong_questions)} of them held out or wrong")
    steps, wrong_tests = check_tests(folder, questions, held_sums)
    said.append(f"tests: {len(questions)} combinations and {steps} steps, all held out: "
                f"{'no' if wrong_tests else 'yes'}")
    return said, wrong + wrong_tests


def main():
    said, wrong = check(pathlib.Path(sys.argv[1]))
    print("\n".join(said))
    print("\n".join(wrong[:20]), file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
