"""Random numbers that are the same in every version of Python: SplitMix64, keyed by name."""

import hashlib

_MASK = (1 << 64) - 1


class Draws:
    """One stream of draws. Streams of different keys have nothing to do with each other."""

    def __init__(self, *key):
        text = "\0".join(str(part) for part in key)
        self._state = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")

    def bits(self):
        """64 random bits."""
        self._state = (self._state + 0x9E3779B97F4A7C15) & _MASK
        z = self._state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
        return z ^ (z >> 31)

    def below(self, count):
        """A whole number in [0, count); count is far below 2^64, so the bias is nothing."""
        return (self.bits() * count) >> 64

    def between(self, first, last):
        """A whole number in [first, last]."""
        return first + self.below(last - first + 1)

    def unit(self):
        """A float in (0, 1]."""
        return ((self.bits() >> 11) + 1) * 2.0**-53

    def choice(self, items):
        return items[self.below(len(items))]

    def shuffled(self, items):
        """A list with the items in random order (Fisher-Yates)."""
        items = list(items)
        for i in range(len(items) - 1, 0, -1):
            j = self.below(i + 1)
            items[i], items[j] = items[j], items[i]
        return items

    def sample(self, items, count):
        return self.shuffled(items)[:count]
