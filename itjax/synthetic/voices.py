"""espeak-ng's English voices: an accent and a variant (a speaker's formants and pitch), by split.

Left out are the variants that whisper, croak, tremble or sound like machines. Variants with about the same formants
(steph and steph2, belinda and linda) are in the same split.
"""

from itjax.synthetic.splits import Split

ACCENTS = (  # "en" is British
    "en-us", "en-us-nyc", "en", "en-gb-scotland", "en-gb-x-rp", "en-gb-x-gbclan", "en-gb-x-gbcwmd", "en-029",
)  # fmt: skip
WOMEN: dict[Split, tuple[str, ...]] = {
    "train": ("f1", "f3", "f4", "Andrea", "anika", "aunty", "grandma", "shelby", "steph", "steph2", "steph3"),
    "validation": ("belinda", "linda"),
    "test": ("f2", "f5", "Alicia", "Annie"),
}
MEN: dict[Split, tuple[str, ...]] = {
    "train": (
        "m1", "m2", "m3", "m4", "m5", "m8", "Alex", "Andy", "Denis", "Diogo", "Gene", "Gene2", "Henrique", "Hugo",
        "Jacky", "Lee", "Mario", "Michael", "Mike", "mike2", "adam", "antonio", "benjamin", "boris", "david", "ed",
        "edward", "edward2", "grandpa", "gustave", "ian", "iven", "iven2", "iven3", "iven4", "john", "kaukovalta",
        "klatt", "klatt2", "klatt3", "klatt4", "klatt5", "klatt6", "marcelo", "michel", "miguel", "norbert", "paul",
        "pedro", "sandro", "travis", "victor",
    ),
    "validation": ("m6", "Reed", "quincy", "rob", "robert"),
    "test": ("m7", "max", "RicishayMax", "RicishayMax2", "RicishayMax3", "Marco", "Nguyen"),
}  # fmt: skip


def variants(split: Split, woman: bool) -> tuple[str, ...]:
    """The variants of a split that sound like women, or like men."""
    return (WOMEN if woman else MEN)[split]


def split_of_variant(variant: str) -> Split | None:
    """The split of a variant, None if it is in none."""
    return next((split for table in (WOMEN, MEN) for split, names in table.items() if variant in names), None)
