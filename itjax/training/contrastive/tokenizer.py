"""The tokenizer of the drawn world's prompts, in the format of UMT5's: a unigram model with byte fallback.

Its pieces are the whole words of drawn prompts and of the negative prompt, single characters, and bytes, so that any text
can be written. The score of a word is the logarithm of its share, which is the maximum of the likelihood. The trainer of the
library `tokenizers` is not used: its result differs from call to call, and it splits the few words there are.
"""

import math
import re
import string
from collections import Counter
from collections.abc import Iterable

import numpy as np
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from itjax.conditioning.prompt import NEGATIVE_PROMPT
from itjax.synthetic import scene

SPECIAL = ("<pad>", "</s>", "<unk>")  # as in UMT5's: padding is 0, the end of a text is 1
SPACE = "▁"  # Metaspace's
CHARACTERS = SPACE + string.ascii_lowercase + string.digits + string.punctuation
PENALTY = 4.0  # by which a character, or a byte, is less likely than the rarest word: words are not spelled
SEED, SCENES = 15, 1500  # of the prompts that are counted


def drawn_prompts(count: int, persons: int) -> list[str]:
    """Prompts of random drawn scenes of the training split."""
    rngs = (np.random.default_rng((SEED, persons, number)) for number in range(count))
    return [scene.scene(rng, 1, persons, float(persons)).prompt for rng in rngs]


def drawn_tokenizer() -> Tokenizer:
    """The tokenizer of the drawn world: the same in every call."""
    prompts = [prompt for persons in (1, 2) for prompt in drawn_prompts(SCENES // persons, persons)]
    return tokenizer_of([*prompts, NEGATIVE_PROMPT])


def tokenizer_of(prompts: Iterable[str]) -> Tokenizer:
    """A tokenizer whose pieces are the words of the prompts, characters and bytes. All in lower case."""
    normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    words = Counter(word for prompt in prompts for word in re.findall(r"\w+|[^\w\s]", normalizer.normalize_str(prompt)))
    known = {(SPACE if word[0].isalnum() else "") + word: count for word, count in sorted(words.items())}
    total = sum(known.values())
    scores = {piece: math.log(count / total) for piece, count in known.items()}
    rare = min(scores.values()) - PENALTY
    spelled = {character: rare for character in CHARACTERS if character not in scores}
    of_bytes = {f"<0x{byte:02X}>": 2 * rare for byte in range(256)}
    pieces = [*((name, 0.0) for name in SPECIAL), *(scores | spelled | of_bytes).items()]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=SPECIAL.index("<unk>"), byte_fallback=True))
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing("$A </s>", "$A </s> $B </s>", [("</s>", SPECIAL.index("</s>"))])
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    return tokenizer
