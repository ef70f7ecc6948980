#!/usr/bin/env python3
"""Proves what make_world.py promises, from its files alone.

    python3 recipes/tinyworld/check_world.py OUT

No held-out pair and no held-out sum occurs in a text that a model may be trained on, the tests ask
about nothing else, and every answer, taught or tested, follows from the facts that the texts tell.
Prints what was counted; exit code 1 and the places if a promise is broken. The files are read with
patterns of their own: nothing of the generator but the lists of words and the forms is used.
"""

import json
import pathlib
import re
import sys

from world import QUESTIONS, STATEMENTS, TOWNS, TRADES

END = "<|endoftext|>"
# What a model sees in training or as worked examples; the tests must be news to it.
SEEN = ("primer.jsonl", "lessons.jsonl", "train.txt", "valid.txt", "mmlu_dev.jsonl", "gsm8k_train.jsonl")

SUM = re.compile(r"(?=(?<!\d)(\d+)([-+*])(\d+)=)")  # also where sums overlap: 37+25=50+12=62
LINE = re.compile(r"\d+[-+*]\d+(?:=\d+(?:[-+]\d+)?)+")
TOWN = re.compile(r"\b(" + "|".join(TOWNS) + r")\b")
TRADE = re.compile(r"\b(" + "|".join(TRADES) + r")\b")


def pattern(form):
    return re.compile(re.escape(form).replace(r"\{\}", "([A-Za-z0-9]+)"))


TOLD = {kind: pattern(form) for kind, form in STATEMENTS.items()}
# The question, its four choices, and the letter where it stands.
ASKED = {subject: re.compile(pattern(form).pattern + r"\nA\. (.+)\nB\. (.+)\nC\. (.+)\nD\. (.+)"
                             r"\nAnswer:(?: ([A-D]))?")
         for subject, form in QUESTIONS.items()}


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
    return "\n\n".join(choice_text(row) if "choices" in row
                       else row["question"] + "\nAnswer: " + row["answer"] for row in rows)


def choice_text(row):
    lines = [f"{letter}. {choice}" for letter, choice in zip("ABCD", row["choices"])]
    return "\n".join([row["question"], *lines, "Answer: " + "ABCD"[row["answer"]]])


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


def facts_of(text):
    """({(kind, owner): value}, contradictions), of what is told in sentences."""
    facts, wrong = {}, []
    for kind, form in TOLD.items():
        for owner, value in form.findall(text):
            if facts.setdefault((kind, owner), value) != value:
                wrong.append(f"{owner}'s {kind} is both {facts[kind, owner]} and {value}")
    return facts, wrong


def answer(subject, one, two, facts):
    """What follows from the facts: of a trade and a town the guild, of two towns the way."""
    if subject == "guilds":
        return f"{facts['land', two]} {facts['badge', one]}"
    ahead = {kind: int(facts[kind, two]) - int(facts[kind, one]) for kind in ("north", "east")}
    return ("north" if ahead["north"] > 0 else "south") + ("east" if ahead["east"] > 0 else "west")


def check_answers(text, facts, where):
    """(number of choice questions, what is answered otherwise than the facts say)."""
    wrong, count = [], 0
    for subject, form in ASKED.items():
        for one, two, *choices, letter in form.findall(text):
            count += 1
            right = answer(subject, one, two, facts)
            if len(set(choices)) != 4 or not letter or choices["ABCD".index(letter)] != right:
                wrong.append(f"{where}: {one}, {two}: {right} is right, not {letter} of {choices}")
    return count, wrong


def pairs_in(piece):
    """Every pair that a sentence or question brings together, in both subjects."""
    towns, trades = set(TOWN.findall(piece)), set(TRADE.findall(piece))
    return ({("guilds", trade, town) for trade in trades for town in towns}
            | {("ways", one, two) for one in towns for two in towns if one != two})


def check_pairs(text, held_out, where):
    """What is held out, but brought together in a sentence or question."""
    return [f"{where}: {' and '.join(pair)} are held out, but together in {piece!r}"
            for piece in statements(text) for pair in pairs_in(piece) & held_out]


def check_tests(folder, pairs, held_sums, facts):
    """(steps of sums, what is wrong): the tests ask about what is held out, and nothing twice."""
    wrong, asked, steps = [], [], 0
    for line in (folder / "mmlu_test.jsonl").read_text().splitlines():
        text = choice_text(json.loads(line))
        found = {(subject, *match[:2]) for subject, form in ASKED.items()
                 for match in form.findall(text)}
        asked += found
        if len(found) != 1 or not found <= pairs:
            wrong.append(f"mmlu_test.jsonl: not held out: {text!r}")
        wrong += check_answers(text, facts, "mmlu_test.jsonl")[1]
    if len(asked) != len(set(asked)):
        wrong.append("mmlu_test.jsonl: asks twice")
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
    pairs = {(subject, *pair) for subject in QUESTIONS for pair in held[subject]}
    held_sums = {(int(a), sign, int(b)) for a, sign, b in
                 (SUM.match(one + "=").groups() for one in held["sums"])}
    said = ["held out: " + ", ".join(f"{len(held[subject])} pairs of {subject}"
                                     for subject in QUESTIONS)
            + f", {len(held_sums)} sums of two numbers"]
    texts = {name: as_text(folder / name) for name in SEEN}
    facts, wrong = facts_of("\n".join(texts.values()))
    for name, text in texts.items():
        sums, wrong_sums = check_sums(text, held_sums, name)
        asked, wrong_answers = check_answers(text, facts, name)
        broken = wrong_sums + wrong_answers + check_pairs(text, pairs, name)
        wrong += broken
        said.append(f"{name}: {sums} sums and {asked} choice questions; "
                    f"{len(broken)} of them held out or wrong")
    steps, wrong_tests = check_tests(folder, pairs, held_sums, facts)
    said.append(f"tests: pairs and {steps} steps, all held out, all answers as the facts say: "
                f"{'no' if wrong_tests else 'yes'}")
    return said, wrong + wrong_tests


def main():
    said, wrong = check(pathlib.Path(sys.argv[1]))
    print("\n".join(said))
    print("\n".join(wrong[:20]), file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
