"""The closed world: who there is, and every fact about them.

40 people have a home town, a trade and an instrument. A town lies in a land, a trade has a tool and
a ware. So there are three things to know of a person, and three more that follow in two steps: the
land through the town, the tool and the ware through the trade. Values are dealt evenly and by
chance, so that none follows from another.
"""

from draws import Draws

PEOPLE = (
    "Ada Alma Anna Arno Bea Bella Ben Bert Bruno Carl Cora Dana Dora Edda Ella Emil Erik Finn Greta "
    "Hans Helma Ida Ina Iris Jana Jens Karl Lena Lina Marta Max Mira Nina Nora Olga Otto Paul Rosa "
    "Tina Tom"
).split()

# The place of a word decides at which letter it is offered as a choice.
VALUES = {
    "town": "Arden Belton Corden Dalton Marton Norden Selton Walden",
    "trade": "baker carver cooper hunter miller potter tanner weaver",
    "instrument": "cello drum fiddle flute harp horn lute viola",
    "land": "Arland Borland Morland Orland",
    "tool": "chisel hammer kiln knife loom oven saw spear",
    "ware": "barrels bowls bread cloth flour leather meat spoons",
}
VALUES = {kind: words.split() for kind, words in VALUES.items()}

# What a person has, and what follows from that: kind -> the kind in between.
OWN = ("town", "trade", "instrument")
THROUGH = {"land": "town", "tool": "trade", "ware": "trade"}
KINDS = OWN + tuple(THROUGH)

# The one form in which each kind is asked for.
QUESTIONS = {
    "town": "In which town does {} live?",
    "trade": "What is the trade of {}?",
    "instrument": "Which instrument does {} play?",
    "land": "In which land does {} live?",
    "tool": "Which tool does {} use?",
    "ware": "What does {} sell?",
}

# The form in which a fact is told. What follows in two steps is never told.
STATEMENTS = {
    "town": "{} lives in {}.",
    "trade": "{} is a {}.",
    "instrument": "{} plays the {}.",
    "land": "{} lies in {}.",
    "tool": "a {} uses the {}.",
    "ware": "a {} sells {}.",
}


class World:
    """All facts, and which (person, kind) are held out: asked about in the tests alone."""

    def __init__(self, seed):
        self.facts = {}  # kind -> {owner: value}
        for kind in OWN:
            self.facts[kind] = _deal(Draws(seed, "facts", kind), PEOPLE, VALUES[kind])
        for kind, owner in THROUGH.items():
            self.facts[kind] = _deal(Draws(seed, "facts", kind), VALUES[owner], VALUES[kind])
        self.held_out = set(_deal(Draws(seed, "held out"), PEOPLE, KINDS).items())

    def answer(self, person, kind):
        if kind in OWN:
            return self.facts[kind][person]
        return self.facts[kind][self.facts[THROUGH[kind]][person]]


def _deal(draws, owners, values):
    """Each owner a value, each value equally often (as far as the counts allow)."""
    hands, rest = divmod(len(owners), len(values))
    cards = list(values) * hands + draws.sample(values, rest)
    return dict(zip(owners, draws.shuffled(cards)))
