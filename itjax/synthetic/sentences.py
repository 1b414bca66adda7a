"""Random sentences: few words, many sounds. Held-out sentences use words of their own."""

import numpy as np

SUBJECTS = (
    "my brother", "the old captain", "a young woman", "our neighbour", "the little boy", "her teacher", "the farmer",
    "somebody", "the blue bird", "a famous painter", "the doctor", "your father", "the quiet child", "this man",
)  # fmt: skip
VERBS = (
    "found", "wanted to buy", "showed me", "always loved", "never saw", "carried", "painted", "forgot", "asked for",
    "gave away", "opened", "watched", "dreamed of", "threw", "whispered about", "measured",
)  # fmt: skip
OBJECTS = (
    "a wooden boat", "the garden gate", "five apples", "a big yellow house", "the moon", "some fresh bread", "an umbrella",
    "the other shoe", "a very small box", "the evening paper", "two cups of tea", "a book about whales", "the river",
    "a map of the village", "warm soup", "the broken clock",
)  # fmt: skip
ENDINGS = (
    "yesterday morning", "before the storm", "near the bridge", "without a word", "for the first time", "every summer",
    "in the middle of the night", "on the way home", "because it was cheap", "after all these years", "with both hands",
)  # fmt: skip
# complete utterances, with sounds that are rare in the parts above
PHRASES = (
    "oh yes", "how strange", "I do not think so", "thank you very much", "what a voice", "please be careful", "why not",
    "that is beautiful", "we should go", "maybe tomorrow", "look at that", "he is right", "wait a moment", "good evening",
)  # fmt: skip
# absent from all training sentences; held-out sentences use only these
HELD_OUT_SUBJECTS = ("a strange visitor", "the baker", "my grandmother", "the judge")
HELD_OUT_VERBS = ("borrowed", "remembered", "could not move", "painfully avoided")
HELD_OUT_OBJECTS = ("a pair of gloves", "the mountain path", "purple flowers", "my favourite film")
HELD_OUT_PHRASES = ("never mind", "a moment ago", "fair enough", "above all", "who knows", "both of them")
HELD_OUT_ENDINGS = ("at half past three", "from far away", "behind the church", "like a thief")


def sentence(rng: np.random.Generator, held_out: bool = False) -> str:
    """A random sentence: who did what, and often when or how."""
    pick = lambda choices: choices[rng.integers(len(choices))]
    parts: tuple[tuple[str, ...], ...]
    if held_out:
        parts = (HELD_OUT_SUBJECTS, HELD_OUT_VERBS, HELD_OUT_OBJECTS, HELD_OUT_ENDINGS)
    else:
        parts = (SUBJECTS, VERBS, OBJECTS, ENDINGS)
    said = [pick(part) for part in parts]
    return " ".join(said if rng.random() < 0.7 else said[:3])


def phrase(rng: np.random.Generator, held_out: bool = False) -> str:
    """A random short utterance."""
    phrases = HELD_OUT_PHRASES if held_out else PHRASES
    return phrases[rng.integers(len(phrases))]
