"""The closed world: what there is, and every fact about it.

24 towns, each in a land and at a number of miles to the north and to the east; 24 trades, each with
a badge. From these follow the guild that takes a trade from a town (the town's land and the trade's
badge) and the way from one town to another (which lies farther north, which farther east). Values
are dealt evenly and by chance, so that none follows from another.
"""

import hashlib

from draws import Draws

# Who the stories with sums are about.
PEOPLE = (
    "Ada Alma Anna Arno Bea Bella Ben Bert Bruno Carl Cora Dana Dora Edda Ella Emil Erik Finn Greta "
    "Hans Helma Ida Ina Iris Jana Jens Karl Lena Lina Marta Max Mira Nina Nora Olga Otto Paul Rosa "
    "Tina Tom"
).split()

TOWNS = (
    "Arden Belton Corden Dalton Elmsby Farnley Gorton Hadley Ilkham Jarrow Kelby Lorton Marton "
    "Norden Oakley Penrith Quorn Rugby Selton Thorpe Upton Varley Walden Yarm"
).split()
TRADES = (
    "baker binder brewer carver cooper cutter dyer fuller glazier hatter hunter joiner mason miller "
    "miner painter potter saddler smith tailor tanner turner weaver wright"
).split()

# Of lands and badges, the place of a word decides at which letter it is offered as a choice.
VALUES = {
    "land": "Arland Borland Morland Orland".split(),
    "badge": "bear deer fox wolf".split(),
    "north": [str(miles) for miles in range(1, 5)],
    "east": [str(miles) for miles in range(1, 5)],
}
OWNERS = {"land": TOWNS, "badge": TRADES, "north": TOWNS, "east": TOWNS}
WAYS = "northeast northwest southeast southwest".split()

# The one form in which each kind of fact is told, and in which it is asked for.
STATEMENTS = {
    "land": "{} lies in {}.",
    "badge": "a {} wears the {}.",
    "north": "{} lies north by {}.",
    "east": "{} lies east by {}.",
}
FACT_QUESTIONS = {
    "land": "In which land lies {}?",
    "badge": "What does a {} wear?",
    "north": "How far north lies {}?",
    "east": "How far east lies {}?",
}
# What two things together answer: subject -> the one form in which it is asked.
QUESTIONS = {
    "guilds": "Which guild takes a {} from {}?",
    "ways": "Which way leads from {} to {}?",
}


class World:
    """All facts, and which pairs are held out: asked about in the tests alone."""

    def __init__(self, seed, one_in=3):
        self._seed, self._one_in = seed, one_in
        self.facts = {kind: _deal(Draws(seed, "facts", kind), owners, VALUES[kind])
                      for kind, owners in OWNERS.items()}
        self.pairs = {
            "guilds": [(trade, town) for trade in TRADES for town in TOWNS],
            "ways": [(one, two) for one in TOWNS for two in TOWNS
                     if all(self.facts[kind][one] != self.facts[kind][two]
                            for kind in ("north", "east"))],
        }
        self.held_out = {subject: [pair for pair in pairs if self._is_held_out(subject, pair)]
                         for subject, pairs in self.pairs.items()}
        self.trained = {subject: [pair for pair in pairs if not self._is_held_out(subject, pair)]
                        for subject, pairs in self.pairs.items()}

    def _is_held_out(self, subject, pair):
        """A way and the way back are held out together."""
        if subject == "ways":
            pair = sorted(pair)
        digest = hashlib.sha256(" ".join([str(self._seed), subject, *pair]).encode()).digest()
        return int.from_bytes(digest[:4], "little") % self._one_in == 0

    def guild(self, trade, town):
        """(land, badge)."""
        return self.facts["land"][town], self.facts["badge"][trade]

    def way(self, one, two):
        north, east = ({town: int(miles) for town, miles in self.facts[kind].items()}
                       for kind in ("north", "east"))
        return (("north" if north[two] > north[one] else "south")
                + ("east" if east[two] > east[one] else "west"))


def _deal(draws, owners, values):
    """Each owner a value, each value equally often (as far as the counts allow)."""
    hands, rest = divmod(len(owners), len(values))
    cards = list(values) * hands + draws.sample(values, rest)
    return dict(zip(owners, draws.shuffled(cards)))
