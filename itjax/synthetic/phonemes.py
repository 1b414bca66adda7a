"""Numbers for the phonemes that espeak-ng says in English, and which of them is said when."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int32

from itjax.synthetic.voice import Phoneme

# n steps of time

# 0 is silence. All that the sentences have in all accents, the frequent ones first.
PHONEMES = (
    "", "ə", "n", "t", "ɪ", "d", "m", "ð", "ɹ", "f", "l", "v", "p", "ɐ", "s", "k", "b", "z", "a", "ʌ", "ɒ", "w", "ɛ", "aɪ",
    "i", "ʊ", "u", "eɪ", "ɜ", "dʒ", "ɔ", "ɡ", "h", "e", "θ", "ʃ", "j", "əl", "ɑ", "ɔɪ", "æ", "tʃ", "aʊ", "r", "oʊ", "eə",
    "ŋ", "ʒ", "ɚ", "əʊ", "o", "ʉ", "ᵻ", "æʊ", "aɪə", "ʌʊ", "əu", "ɾ", "ei", "a:", "əɪ", "ɛə", "ʌʉ", "oə", "t̪", "ʊə", "aa",
    "ɛɹ", "oɪ", "iə", "ɔə", "ɔːɹ", "ʌɹ", "ʲ", "əɹ", "ɑə", "aɪɚ", "ʍ", "ɑːɹ", "ɪɹ", "ʉɹ", "ʊɹ", "ʔ", "x", "ɫ",
)  # fmt: skip
_NUMBERS = {symbol: number for number, symbol in enumerate(PHONEMES)}


def number_of(symbol: str) -> int:
    """The number of a phoneme; one that is not in the table counts as its first sound, or else as schwa."""
    return _NUMBERS.get(symbol, _NUMBERS.get(symbol[:1], _NUMBERS["ə"]))


def numbers(phonemes: Sequence[Phoneme], count: int, rate: int) -> Int32[np.ndarray, " n"]:
    """The phoneme in the middle of each of `count` steps of 1/`rate` seconds; 0 where nothing is said."""
    found = np.zeros(count, np.int32)
    for symbol, start, stop in phonemes:
        found[max(0, int(np.ceil(start * rate - 0.5))) : max(0, int(np.ceil(stop * rate - 0.5)))] = number_of(symbol)
    return found
