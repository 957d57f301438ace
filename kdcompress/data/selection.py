"""Seeded choices of images, by the hash of their identifiers.

Nothing here depends on a random number generator, on the order of files on a disk or on a library's version: the same
identifiers and seed give the same choice everywhere, and a folder and a tar with the same tree give the same one.
"""

from collections import Counter
from collections.abc import Sequence
from hashlib import sha256


def seeded_order(ids: Sequence[str], seed: int, purpose: str) -> list[int]:
    """Positions of `ids` in an order that looks random and depends on the identifiers, seed and purpose alone.

    >>> [["a", "b", "c"][i] for i in seeded_order(["a", "b", "c"], 0, "docs")]
    ['b', 'a', 'c']
    >>> [["c", "a", "b"][i] for i in seeded_order(["c", "a", "b"], 0, "docs")]
    ['b', 'a', 'c']
    """

    def rank(i: int) -> tuple[bytes, str]:
        # A file may have a name that is no UTF-8, which Python spells with lone surrogates.
        return sha256(f"{purpose}:{seed}:{ids[i]}".encode("utf-8", "surrogatepass")).digest(), ids[i]

    return sorted(range(len(ids)), key=rank)


def balanced_positions(ids: Sequence[str], labels: Sequence[int], count: int, seed: int) -> list[int]:
    """`count` positions with as nearly as possible the same number of every class, ascending.

    The first image of every class in seeded order, then the second, and so on: a class that runs out leaves its share
    to the others.

    >>> balanced_positions(["a/0", "a/1", "a/2", "a/3", "b/0"], [0, 0, 0, 0, 1], 3, seed=0)
    [0, 1, 4]
    """
    ranked = _ranked_within_class(ids, labels, seed, "train-images")
    return sorted(i for _, i in sorted(ranked, key=lambda pair: pair[0])[:count])


def holdout_positions(ids: Sequence[str], labels: Sequence[int], count: int, seed: int) -> list[int]:
    """Up to `count` positions with each class in proportion, ascending.

    Every class keeps at least one image: where all have only one, nothing is held out.

    >>> holdout_positions(["a/0", "a/1", "a/2", "a/3", "b/0"], [0, 0, 0, 0, 1], 2, seed=0)
    [1, 2]
    """
    sizes = Counter(labels)
    ranked = _ranked_within_class(ids, labels, seed, "holdout")
    # Webster's apportionment: image number r of a class of size s comes after (r + 1/2) / s of the data.
    share = [((rank + 0.5) / sizes[labels[i]], i) for rank, i in ranked if rank < sizes[labels[i]] - 1]
    return sorted(i for _, i in sorted(share, key=lambda pair: pair[0])[:count])


def _ranked_within_class(ids: Sequence[str], labels: Sequence[int], seed: int, purpose: str) -> list[tuple[int, int]]:
    """(rank within its class, position) for every image in seeded order; a stable sort keeps that order in ties."""
    seen: Counter[int] = Counter()
    ranked = []
    for position in seeded_order(ids, seed, purpose):
        ranked.append((seen[labels[position]], position))
        seen[labels[position]] += 1
    return ranked
