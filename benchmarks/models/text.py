"""Real sentences with human ratings, and the tokenizer of the sentence encoder.

C. J. Hutto and E. Gilbert, "VADER: A Parsimonious Rule-based Model for Sentiment Analysis of Social Media Text", ICWSM 2014:
sentences of film reviews, newspaper editorials, tweets and product reviews, each rated by twenty people or more. They are
inside the source distribution of vaderSentiment 3.3.2 (MIT), and not in what pip installs from it.
"""

from __future__ import annotations

import io
import tarfile
from dataclasses import dataclass

import torch

from benchmarks.models.encoder import pad
from benchmarks.models.packages import SENTENCES, require

__all__ = ["DOMAINS", "Sentence", "load_sentences", "pad", "split", "tokenize"]

DOMAINS = {  # the data's own names, and what they are
    "amazonReviewSnippets": "product",
    "movieReviewSnippets": "film",
    "nytEditorialSnippets": "editorial",
    "tweets": "tweet",
}
LONGEST = 256  # tokens; the sentence encoder was trained for no more
SEED = 0


@dataclass(frozen=True)
class Sentence:
    """One rated sentence.

    Attributes:
        domain: One of the values of `DOMAINS`.
        document: The review or article it is from, where the data tell it; else the sentence's own number.
        rating: Mean of the human ratings, -4 (very negative) to 4.
        text: As it stands in the data.
    """

    domain: str
    document: str
    rating: float
    text: str


def load_sentences() -> list[Sentence]:
    """Every sentence once, domain by domain, in the data's order.

    Texts that differ in case alone count as one: the tokenizer lowers them.

    Raises:
        CaseUnavailableError: The data were not downloaded.
    """
    require("minilm")
    with tarfile.open(SENTENCES) as outer:
        inner = outer.extractfile("vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz")
        assert inner is not None
        packed = inner.read()
    seen: dict[str, Sentence] = {}
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        for file, domain in DOMAINS.items():
            lines = archive.extractfile(f"hutto_ICWSM_2014/{file}_GroundTruth.txt")
            assert lines is not None
            for line in lines.read().decode("utf-8").splitlines():
                sentence = _sentence(domain, line)
                seen.setdefault(sentence.text.lower(), sentence)
    return list(seen.values())


def _sentence(domain: str, line: str) -> Sentence:
    """Of a line `number TAB rating TAB text`, where number is `document_sentence` or a sentence's own."""
    number, rating, text = line.split("\t", 2)
    return Sentence(domain, f"{domain} {number.partition('_')[0]}", float(rating), text.strip())


def split(sentences: list[Sentence], training: int) -> tuple[list[Sentence], list[Sentence]]:
    """A seeded training set of about that many sentences, and the others, each in a seeded order; a document is on one side."""
    documents = sorted({s.document for s in sentences})
    generator = torch.Generator().manual_seed(SEED)
    place = {documents[i]: n for n, i in enumerate(torch.randperm(len(documents), generator=generator).tolist())}
    shuffled = [sentences[i] for i in torch.randperm(len(sentences), generator=generator).tolist()]
    last = sorted(place[s.document] for s in sentences)[training - 1]
    return [s for s in shuffled if place[s.document] <= last], [s for s in shuffled if place[s.document] > last]


def tokenize(texts: list[str]) -> list[list[int]]:
    """Token ids of each text, with the marks at start and end, cut at `LONGEST`."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(require("minilm") / "model/tokenizer.json"))
    tokenizer.no_padding()  # the file asks for 128 tokens, whatever the text
    tokenizer.enable_truncation(LONGEST)
    return [encoding.ids for encoding in tokenizer.encode_batch(texts)]
