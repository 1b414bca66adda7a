"""Random sentences: few words, many sounds.

No two splits share a part of a sentence: a subject, a verb with what belongs to it, an object, an ending, a phrase.
"""

from typing import NamedTuple

import numpy as np

from itjax.synthetic.splits import Split


class Parts(NamedTuple):
    """What sentences are made of; `phrases` are complete utterances, with sounds that are rare in the parts."""

    subjects: tuple[str, ...]
    verbs: tuple[str, ...]
    objects: tuple[str, ...]
    endings: tuple[str, ...]
    phrases: tuple[str, ...]


PARTS: dict[Split, Parts] = {
    "train": Parts(
        subjects=(
            "my brother",
            "the old captain",
            "a young woman",
            "our neighbour",
            "the little boy",
            "her teacher",
            "the farmer",
            "somebody",
            "the blue bird",
            "a famous painter",
            "the doctor",
            "your father",
            "the quiet child",
            "this man",
            "the whole family",
            "an honest thief",
            "my cousin George",
            "the queen",
            "every student",
            "a good shoemaker",
            "the choir",
            "their youngest daughter",
            "a tired pilot",
            "a thirsty giant",
        ),
        verbs=(
            "found",
            "wanted to buy",
            "showed me",
            "always loved",
            "never saw",
            "carried",
            "painted",
            "forgot",
            "asked for",
            "gave away",
            "opened",
            "watched",
            "dreamed of",
            "threw",
            "whispered about",
            "measured",
            "chose",
            "is looking for",
            "could not enjoy",
            "put back",
            "heard",
            "washed",
            "brought us",
            "joked about",
        ),
        objects=(
            "a wooden boat",
            "the garden gate",
            "five apples",
            "a big yellow house",
            "the moon",
            "some fresh bread",
            "an umbrella",
            "the other shoe",
            "a very small box",
            "the evening paper",
            "two cups of tea",
            "a book about whales",
            "the river",
            "a map of the village",
            "warm soup",
            "the broken clock",
            "a measure of rice",
            "the azure sea",
            "thirty thick feathers",
            "the church bell",
            "a vision of the future",
            "an orange coat",
            "the choice of her life",
            "a jar of honey",
            "both mountains",
            "the noise of the engine",
        ),
        endings=(
            "yesterday morning",
            "before the storm",
            "near the bridge",
            "without a word",
            "for the first time",
            "every summer",
            "in the middle of the night",
            "on the way home",
            "because it was cheap",
            "after all these years",
            "with both hands",
            "under a full moon",
            "as usual",
            "in the wrong room",
            "beneath the stairs",
            "just for pleasure",
        ),
        phrases=(
            "oh yes",
            "how strange",
            "I do not think so",
            "thank you very much",
            "what a voice",
            "please be careful",
            "why not",
            "that is beautiful",
            "we should go",
            "maybe tomorrow",
            "look at that",
            "he is right",
            "wait a moment",
            "good evening",
            "where have you been",
            "you must be joking",
            "no",
            "of course",
            "come in",
            "keep your hat on",
            "that is enough",
            "who is there",
            "I will phone you",
        ),
    ),
    "validation": Parts(
        subjects=("the tall sailor", "a clever girl", "the mayor", "his uncle"),
        verbs=("repaired", "would rather keep", "laughed at", "shared"),
        objects=("a silver spoon", "the northern road", "fresh mushrooms", "an unusual letter", "the poor old piano"),
        endings=("last winter", "by the fire", "in a foreign town", "at the top of his voice"),
        phrases=("not at all", "so much the better", "have a look", "my pleasure", "that was close", "what now"),
    ),
    "test": Parts(
        subjects=("a strange visitor", "the baker", "my grandmother", "the judge's wife"),
        verbs=("borrowed", "remembered", "could not move", "painfully avoided"),
        objects=("a pair of gloves", "the mountain path", "purple flowers", "my favourite film"),
        endings=("at half past three", "from far away", "behind the church", "like a thief"),
        phrases=("never mind", "a moment ago", "fair enough", "above all", "who knows", "both of them"),
    ),
}


def sentence(rng: np.random.Generator, split: Split = "train") -> str:
    """A random sentence: who did what, and often when or how."""
    said = [choices[rng.integers(len(choices))] for choices in PARTS[split][:4]]
    return " ".join(said if rng.random() < 0.7 else said[:3])


def phrase(rng: np.random.Generator, split: Split = "train") -> str:
    """A random short utterance."""
    phrases = PARTS[split].phrases
    return phrases[rng.integers(len(phrases))]
