"""Whether a text is a question that must not be trained on, or nearly one.

Exact: the same words, whatever the case, the punctuation and the spaces. Near: of the word trigrams of the shorter of
the two, a share of at least `overlap` is in the other one. Numbers are words, so a test question with another number
is still near to it.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from hashlib import blake2b

GRAM = 3  # words
_WORD = re.compile(r"\w+")


class Known:
    """Questions that others may not be like.

    Args:
        texts: these questions.
        overlap: share of trigrams from which on two are near, in (0, 1]; Self-Instruct (Wang et al. 2023) has 0.7 of
            another measure, ROUGE-L.
    """

    def __init__(self, texts: Iterable[str] = (), overlap: float = 0.7) -> None:
        self._overlap = overlap
        self._exact: set[bytes] = set()
        self._sizes: list[int] = []
        self._having: defaultdict[tuple[str, ...], list[int]] = defaultdict(list)
        for text in texts:
            self.add(text)

    def add(self, text: str) -> None:
        """Takes one more question."""
        self._exact.add(words_id(text))
        grams = _grams(_words(text))
        for gram in grams:
            self._having[gram].append(len(self._sizes))
        self._sizes.append(len(grams))

    def near(self, text: str) -> bool:
        """Whether a question is a known one, or near to one."""
        if words_id(text) in self._exact:
            return True
        grams = _grams(_words(text))
        shared = Counter(place for gram in grams for place in self._having.get(gram, ()))
        return any(count >= self._overlap * min(len(grams), self._sizes[place]) for place, count in shared.items())


def words_id(text: str) -> bytes:
    """The same for texts of the same words, whatever the case, the punctuation and the spaces."""
    return blake2b(" ".join(_words(text)).encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())


def _grams(words: list[str]) -> set[tuple[str, ...]]:
    """Trigrams; of fewer words all of them together."""
    if len(words) <= GRAM:
        return {tuple(words)} if words else set()
    return {tuple(words[at : at + GRAM]) for at in range(len(words) - GRAM + 1)}
