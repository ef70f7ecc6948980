#!/usr/bin/env python3
"""Writes the small world: training and validation text, questions, vocabulary, models to train.

    python3 recipes/tinyworld/make_world.py OUT

  primer.jsonl lessons.jsonl        what a model learns from: {prompt, completion} a line
  train.txt valid.txt               the same world as documents, each ended by <|endoftext|>: to
                                    calibrate on, and to look at
  mmlu_test.jsonl mmlu_dev.jsonl    choice questions: subjects guilds and ways
  gsm8k_test.jsonl gsm8k_train.jsonl   word problems of two steps
  held_out.json                     every pair and every sum that no text has
  untrained/teacher/ untrained/quarter/    what `attar train.text` starts from: shape, tokenizer

The same seed gives the same bytes everywhere; check_world.py proves what is held out.
"""

import argparse
import json
import pathlib
import re

import byte_pairs
import models
import sums
from draws import Draws
from world import FACT_QUESTIONS, OWNERS, QUESTIONS, STATEMENTS, VALUES, WAYS, World

LETTERS = "ABCD"


class Teller:
    """Makes documents of one seed's world."""

    def __init__(self, seed):
        self.seed = seed
        self.world = World(seed)
        self.pairs = sums.Pairs(seed)

    # --- questions with four choices -------------------------------------------------------------

    def choice_row(self, draws, subject, pair):
        """A row in MMLU's form. What may be answered always stands at the same letter (ways in
        their order; guilds by whether land and badge stand at an even place of their list): the
        letter follows from the facts, and to look it up among the choices is no part of the
        task."""
        if subject == "ways":
            choices, place = WAYS, WAYS.index(self.world.way(*pair))
        else:
            choices, place = self.guild_choices(draws, *self.world.guild(*pair))
        return {"subject": subject, "question": QUESTIONS[subject].format(*pair),
                "choices": choices, "answer": place}

    @staticmethod
    def guild_choices(draws, land, badge):
        """Two lands with two badges, among them the right ones; and the place of these."""
        offered, place = [], 0
        for right, values in ((land, VALUES["land"]), (badge, VALUES["badge"])):
            at = values.index(right) % 2
            two = [draws.choice(values[i::2]) for i in range(2)]
            two[at] = right
            offered.append(two)
            place = 2 * place + at
        return [f"{one} {two}" for one in offered[0] for two in offered[1]], place

    def choice_document(self, draws, questions):
        subject = draws.choice(list(QUESTIONS))
        rows = [self.choice_row(draws, subject, draws.choice(self.world.trained[subject]))
                for _ in range(questions)]
        return (f"The following are multiple choice questions (with answers) about {subject}.\n\n"
                + "\n\n".join(_with_letters(row) for row in rows))

    # --- facts -----------------------------------------------------------------------------------

    def open_document(self, draws, owners):
        """Facts of one kind, asked for without choices."""
        kind = draws.choice(list(FACT_QUESTIONS))
        return "\n\n".join(f"Question: {FACT_QUESTIONS[kind].format(owner)}\n"
                           f"Answer: {self.world.facts[kind][owner]}"
                           for owner in draws.sample(OWNERS[kind], owners))

    def fact_document(self, draws, owners):
        """Facts of one kind, told."""
        kind = draws.choice(list(STATEMENTS))
        return "Facts: " + " ".join(STATEMENTS[kind].format(owner, self.world.facts[kind][owner])
                                    for owner in draws.sample(OWNERS[kind], owners))

    # --- sums ------------------------------------------------------------------------------------

    def story(self, draws, held_out):
        """A story without any held-out sum, or one all of whose sums + and - are held out."""
        form = draws.choice(sums.FORMS)
        while True:
            made = sums.story(draws, form)
            flags = [self.pairs.held_out(*step) for step in made.steps if step[1] != "*"]
            if all(flags) if held_out else not any(flags):
                return made

    def story_document(self, draws, stories):
        made = [self.story(draws, held_out=False) for _ in range(stories)]
        return "\n\n".join(f"Question: {one.question}\nAnswer: {one.answer()}" for one in made)

    def drill_document(self, draws, count):
        told = []
        while len(told) < count:
            step = sums.drill(draws)
            if not self.pairs.held_out(*step):
                told.append(sums.worked(*step))
        return "Sums: " + "\n".join(told)

    # --- lessons: only the completion counts, so that nothing unforeseeable is learnt -------------

    def fact_lesson(self, draws):
        text = self.fact_document(draws, 1)
        before, last = text.rsplit(" ", 1)
        return before, " " + last

    def open_lesson(self, draws):
        return _cut(self.open_document(draws, 1), "Answer:")

    def question_lesson(self, draws):
        """One choice question, without the line above it."""
        return _cut(self.choice_document(draws, 1).split("\n\n")[1], "Answer:")

    def drill_lesson(self, draws):
        while True:
            step = sums.drill(draws)
            if not self.pairs.held_out(*step):
                text = sums.worked(*step)
                cut = text.index("=") + 1
                return "Sums: " + text[:cut], text[cut:]

    def choice_lesson(self, draws):
        return _cut(self.choice_document(draws, 1 + draws.below(3)), "Answer:")

    def story_lesson(self, draws):
        return _cut(self.story_document(draws, 1 + draws.below(2)), "Answer:")

    def primer(self, draws):
        """Of the first lesson: single facts, questions and sums."""
        return draws.choice((self.fact_lesson, self.open_lesson, self.question_lesson,
                             self.drill_lesson, self.drill_lesson))(draws)

    def lesson(self, draws):
        """Of the second lesson: questions as the tests ask them, and some of the first."""
        return draws.choice((self.choice_lesson,) * 4 + (self.story_lesson,) * 6 +
                            (self.fact_lesson, self.open_lesson, self.drill_lesson))(draws)

    def lessons(self, name, make, count):
        draws = Draws(self.seed, "lessons", name)
        made = [make(draws) for _ in range(count)]
        return [{"prompt": prompt, "completion": completion} for prompt, completion in made]

    # --- texts -----------------------------------------------------------------------------------

    def document(self, draws):
        """A document of the texts: everything."""
        kind = draws.below(100)
        if kind < 36:
            return self.choice_document(draws, 4)
        if kind < 43:
            return self.open_document(draws, 6)
        if kind < 50:
            return self.fact_document(draws, 8)
        if kind < 80:
            return self.story_document(draws, 2)
        return self.drill_document(draws, 12)

    def text(self, name, documents):
        draws = Draws(self.seed, "text", name)
        return "".join(self.document(draws) + byte_pairs.END for _ in range(documents))

    # --- tests -----------------------------------------------------------------------------------

    def choice_tests(self, count):
        """So many held-out pairs of each subject."""
        rows = []
        for subject, pairs in self.world.held_out.items():
            draws = Draws(self.seed, "mmlu test", subject)
            rows += [self.choice_row(draws, subject, pair) for pair in draws.sample(pairs, count)]
        return rows

    def choice_examples(self, count):
        rows = []
        for subject, pairs in self.world.trained.items():
            draws = Draws(self.seed, "mmlu dev", subject)
            rows += [self.choice_row(draws, subject, pair) for pair in draws.sample(pairs, count)]
        return rows

    def problems(self, name, count, held_out):
        draws = Draws(self.seed, "gsm8k", name)
        made = [self.story(draws, held_out) for _ in range(count)]
        return [{"question": one.question, "answer": one.answer()} for one in made]


def _cut(text, cue):
    """What stands before the end of the last cue, and after it."""
    cut = text.rindex(cue) + len(cue)
    return text[:cut], text[cut:]


def _with_letters(row):
    return "\n".join([row["question"], *_choice_lines(row), f"Answer: {LETTERS[row['answer']]}"])


def _choice_lines(row):
    return [f"{letter}. {choice}" for letter, choice in zip(LETTERS, row["choices"])]


def words_of(text):
    """The pieces that a token may stand for: words, with the blank before them, and signs."""
    return set(re.findall(r" ?[A-Za-z]+| ?[^\sA-Za-z0-9]+", text.replace(byte_pairs.END, "\n")))


def write_world(out, seed, documents):
    out.mkdir(parents=True, exist_ok=True)
    teller = Teller(seed)
    train = teller.text("train", documents)
    _write(out / "train.txt", train)
    _write(out / "valid.txt", teller.text("valid", max(1, documents // 8)))
    _write_rows(out / "primer.jsonl", teller.lessons("primer", teller.primer, 12 * documents))
    _write_rows(out / "lessons.jsonl", teller.lessons("lessons", teller.lesson, 8 * documents))
    _write_rows(out / "mmlu_test.jsonl", teller.choice_tests(100))
    _write_rows(out / "mmlu_dev.jsonl", teller.choice_examples(5))
    _write_rows(out / "gsm8k_test.jsonl", teller.problems("test", 200, held_out=True))
    _write_rows(out / "gsm8k_train.jsonl", teller.problems("train", 50, held_out=False))
    held_sums = [f"{a}{sign}{b}" for sign in "+-" for a in range(10, 100) for b in range(10, 100)
                 if teller.pairs.held_out(a, sign, b) and 1 <= sums.result(a, sign, b) <= 99]
    _write_json(out / "held_out.json", {
        **teller.world.held_out, "sums": held_sums})
    tokenizer, vocabulary = byte_pairs.tokenizer_json(words_of(train))
    for name, shape in models.SHAPES.items():
        folder = out / "untrained" / name
        folder.mkdir(parents=True, exist_ok=True)
        _write_json(folder / "config.json", models.config(shape, vocabulary))
        _write_json(folder / "initialise.json", {"seed": seed, "deviation": models.DEVIATION})
        _write(folder / "tokenizer.json", tokenizer)
        _write_json(folder / "tokenizer_config.json", byte_pairs.CONFIG)


def _write(path, text):
    path.write_bytes(text.encode())


def _write_json(path, value):
    _write(path, json.dumps(value, indent=1) + "\n")


def _write_rows(path, rows):
    _write(path, "".join(json.dumps(row) + "\n" for row in rows))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=pathlib.Path, help="folder for the files")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--documents", type=int, default=4000, help="of train.txt")
    arguments = parser.parse_args()
    write_world(arguments.out, arguments.seed, arguments.documents)


if __name__ == "__main__":
    main()
