"""Documents → the language that most of their words are of, where that is plain.

    guess_language(["Der Minister sagte, dass die Regierung nicht …"])      # "de"

By function words, which make up a third of any running text, and differ between languages.
"""

import re
from collections import Counter
from collections.abc import Iterable
from itertools import islice

SAMPLED = 200  # documents, from the first on
CHARACTERS = 500  # of each of them
LEAST_SHARE = 0.05  # of the words; less is no running text of that language
CLEARLY = 1.5  # times as many as of the language that comes next

# ISO 639-1 → its most frequent function words.
FUNCTION_WORDS = {
    "da": "og i at det en den er som på de med af ikke der til et har var jeg vi",
    "de": "der die und das in zu den ist nicht von mit sich des auf für ein eine dem es dass wird",
    "en": "the of and to in a is that it was for on are with as be this by at not from",
    "es": "de la que el en y los se del las por un para con no una su al es lo",
    "fr": "de la le et les des en un du une que est pour qui dans par au sur pas il",
    "it": "di che il la e in un per non una del con si le da i della alla sono come",
    "nl": "de het een van en in is dat op te zijn voor met niet die aan er om ook bij",
    "pl": "w i na z się do nie to że jest o po jak od za przez co ale oraz dla",
    "pt": "de a o que e do da em um para com não uma os no se na por mais as",
    "sv": "och i att det som en på är av för med den till inte har de ett om var jag",
    "tr": "ve bir bu da de için ile çok olarak daha o gibi ne kadar olan ama var sonra en her",
    "ru": "и в не на что с по как это он к из у за от но о для его же",
}  # fmt: skip
SETS = {code: frozenset(words.split()) for code, words in FUNCTION_WORDS.items()}
WORD = re.compile(r"[^\W\d_]+")


def guess_language(texts: Iterable[str]) -> str | None:
    """The ISO 639-1 code of the language; None where no one of `FUNCTION_WORDS` is plain."""
    found, words = Counter[str](), 0
    for text in islice(texts, SAMPLED):
        for word in WORD.findall(text[:CHARACTERS].lower()):
            words += 1
            found.update(code for code, own in SETS.items() if word in own)
    (best, most), (_, next_most) = [*found.most_common(2), ("", 0), ("", 0)][:2]
    is_plain = most >= LEAST_SHARE * max(words, 1) and most >= CLEARLY * next_most
    return best if best and is_plain else None
