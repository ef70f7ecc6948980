"""Grade-school sums, as drills and as little stories with a worked answer.

Numbers are 1 to 99, and a sum is worked as in school, tens and ones apart: 37+25=50+12=62,
62-14=50-2=48. A tenth of the pairs of numbers of two digits, neither round, is held out: no sum of
such a pair is in the training text, and every addition and subtraction that a test problem asks for
is of such a pair.
"""

import hashlib

from world import PEOPLE

OBJECTS = "apples beans coins eggs nuts pears plums stones".split()


class Pairs:
    """Which sums are held out. a + b and b + a are one sum; a - b and b - a are two."""

    def __init__(self, seed, one_in=10):
        self._seed = seed
        self._one_in = one_in

    def held_out(self, a, sign, b):
        if sign not in "+-" or a < 10 or b < 10 or a % 10 == 0 or b % 10 == 0:
            return False
        if sign == "+":
            a, b = sorted((a, b))
        digest = hashlib.sha256(f"{self._seed} {a} {sign} {b}".encode()).digest()
        return int.from_bytes(digest[:4], "little") % self._one_in == 0


def result(a, sign, b):
    return {"+": a + b, "-": a - b, "*": a * b}[sign]


def worked(a, sign, b):
    """The sum in one line, with the tens and the ones apart where there are both."""
    line = f"{a}{sign}{b}="
    if sign != "*":
        ones = result(a % 10, sign, b % 10)
        tens = result(a, sign, b) - ones
        if tens != 0 and ones != 0:
            line += f"{tens}{'+' if ones > 0 else '-'}{abs(ones)}="
    return line + str(result(a, sign, b))


def drill(draws):
    """One sum (a, sign, b) with a result in [1, 99]."""
    sign = draws.choice("++--*")
    if sign == "*":
        return draws.between(2, 9), sign, draws.between(2, 9)
    if sign == "+":
        total = draws.between(12, 99)
        a = draws.between(1, total - 1)
        return a, sign, total - a
    a = draws.between(11, 99)
    return a, sign, draws.between(1, a - 1)


class Story:
    """A question in words, and the steps (a, sign, b) that answer it."""

    def __init__(self, question, steps):
        self.question = question
        self.steps = steps

    def fits(self):
        return all(1 <= result(*step) <= 99 and step[2] >= 1 for step in self.steps)

    def answer(self):
        lines = [worked(*step) for step in self.steps]
        return "\n".join(lines + [f"#### {result(*self.steps[-1])}"])


def story(draws, form):
    """A story of two steps in one of FORMS, all of its numbers in [1, 99]."""
    while True:
        made = form(draws)
        if made.fits():
            return made


def _given_and_sold(draws):
    one, two = draws.sample(PEOPLE, 2)
    a, b, c = (draws.between(2, 90) for _ in range(3))
    what = draws.choice(OBJECTS)
    return Story(f"{one} has {a} {what}. {two} gives {one} {b} {what}. Then {one} sells {c} {what}. "
                 f"How many {what} does {one} have now?",
                 [(a, "+", b), (a + b, "-", c)])


def _sold_twice(draws):
    one, two = draws.sample(PEOPLE, 2)
    a, b, c = draws.between(20, 99), draws.between(2, 80), draws.between(2, 80)
    what = draws.choice(OBJECTS)
    return Story(f"{one} has {a} {what}. {one} sells {b} {what} and gives {c} {what} to {two}. "
                 f"How many {what} does {one} have now?",
                 [(a, "-", b), (a - b, "-", c)])


def _more_than(draws):
    one, two = draws.sample(PEOPLE, 2)
    a, b = draws.between(2, 48), draws.between(2, 90)
    what = draws.choice(OBJECTS)
    return Story(f"{one} has {a} {what}. {two} has {b} {what} more than {one}. "
                 f"How many {what} do {one} and {two} have together?",
                 [(a, "+", b), (a, "+", a + b)])


def _bags_and_more(draws):
    one, two = draws.sample(PEOPLE, 2)
    a, b, c = draws.between(2, 9), draws.between(2, 9), draws.between(2, 90)
    what = draws.choice(OBJECTS)
    return Story(f"{one} has {a} bags with {b} {what} in each bag. {two} gives {one} {c} {what}. "
                 f"How many {what} does {one} have now?",
                 [(a, "*", b), (a * b, "+", c)])


def _bags_and_less(draws):
    one = draws.choice(PEOPLE)
    a, b, c = draws.between(2, 9), draws.between(2, 9), draws.between(2, 80)
    what = draws.choice(OBJECTS)
    return Story(f"{one} has {a} bags with {b} {what} in each bag. Then {one} sells {c} {what}. "
                 f"How many {what} does {one} have now?",
                 [(a, "*", b), (a * b, "-", c)])


FORMS = (_given_and_sold, _sold_twice, _more_than, _bags_and_more, _bags_and_less)
