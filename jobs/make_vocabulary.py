"""Make the vocabulary that ships with Lacuna, ``pipeline/concepts/vocabulary.txt``.

Of the most frequent words of English those by which pictures are described, the most frequent first: nouns one of whose
first two senses is a thing, a being, an event or a colour (not "idea"), and adjectives. Names of persons and places
and what WordNet calls offensive are left out. WORDNET is the folder with ``index.adj``, /usr/share/wordnet
where Debian's package wordnet-base is installed. The frequencies are those of the package wordfreq, to be installed.

    python jobs/make_vocabulary.py /usr/share/wordnet [-n 20000] [-o FILE]
"""

import argparse
import re
import sys
from pathlib import Path

from pipeline.concepts.dictionary import Sense, dictionary
from pipeline.concepts.everyday import FILE

# Physical entity, event, social group, gathering, colour, shape.
VISIBLE = ("n00001930", "n00029378", "n07950920", "n07975026", "n04956594", "n00027807")
OFFENSIVE = re.compile(
    r"obscene|offensive|slur|vulgar|derogatory|disparaging|\bsexual|\bsex\b|prostitut|genital|penis|vagina"
)
NOTICE = """\
# Words that describe pictures, the most frequent in English first (jobs/make_vocabulary.py).
# Order: wordfreq (Robyn Speer), whose data are under CC BY-SA 4.0, as this file is:
# https://creativecommons.org/licenses/by-sa/4.0/. Choice: WordNet 3.0, Copyright 2006 by Princeton University.
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("wordnet", metavar="WORDNET", type=Path)
    parser.add_argument("-n", "--words", type=int, default=20_000)
    parser.add_argument("-o", "--output", metavar="FILE", type=Path, default=FILE)
    args = parser.parse_args()
    try:
        from wordfreq import top_n_list
    except ModuleNotFoundError:
        print("make_vocabulary: needs wordfreq: pip install wordfreq", file=sys.stderr)
        return 2
    adjectives = of_index(args.wordnet / "index.adj")
    words = [word for word in top_n_list("en", 400_000, ascii_only=True) if describes(word, adjectives)][: args.words]
    args.output.write_text(NOTICE + "".join(f"{word}\n" for word in words))
    print(f"{args.output}: {len(words):,} words")
    return 0


def describes(word: str, adjectives: frozenset[str]) -> bool:
    """Tell whether *word* is one by which a picture may be described."""
    if not re.fullmatch(r"[a-z]{3,}", word):
        return False
    book = dictionary()
    senses = book.senses(word)
    if any(OFFENSIVE.search(sense.gloss) for sense in senses[:3]):
        return False
    return word in adjectives or any(visible(sense) for sense in senses[:2])


def visible(sense: Sense) -> bool:
    book = dictionary()
    return any(book.is_kind(sense, book.sense(id)) for id in VISIBLE)


def of_index(path: Path) -> frozenset[str]:
    """Return the words of an index file of WordNet, wndb(5WN)."""
    lines = path.read_text(encoding="latin1").splitlines()
    return frozenset(line.split()[0] for line in lines if not line.startswith(" "))


if __name__ == "__main__":
    sys.exit(main())
