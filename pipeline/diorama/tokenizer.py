"""Trains the tokenizer: byte-level BPE with CLIP's conventions, so that any text falls into known pieces.

Learned from captions of the world and from general English (the manual pages that come with Python), so that words
which the world does not know become a few pieces rather than letters.
"""

import json
from collections.abc import Iterator
from pydoc_data.topics import topics

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTokenizer

from pipeline.diorama.networks import TEXT_LENGTH
from pipeline.diorama.world import sample_scene

START, END = "<|startoftext|>", "<|endoftext|>"
_VOCABULARY = 3000
_CAPTIONS = 40_000
# CLIP's splitting of text into words: contractions, letters, single digits, the rest.
_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def train_tokenizer() -> CLIPTokenizer:
    """A tokenizer of about 3,000 pieces; the same on every run. Takes seconds."""
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token=None))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY, initial_alphabet=alphabet, end_of_word_suffix="</w>", show_progress=False
    )
    tokenizer.train_from_iterator(_texts(), trainer)
    learned = tokenizer.get_vocab()
    # CLIP's order of ids: bytes, bytes that end a word, merged pieces, the two marks last (the end has the highest id,
    # which older pooling code relies on).
    letters = sorted(alphabet)
    pieces = letters + [letter + "</w>" for letter in letters]
    known = set(pieces)
    pieces += [piece for piece, _ in sorted(learned.items(), key=lambda item: item[1]) if piece not in known]
    vocab = {piece: i for i, piece in enumerate([*pieces, START, END])}
    merges = [tuple(merge) for merge in _merges(tokenizer)]
    return CLIPTokenizer(
        vocab=vocab, merges=merges, bos_token=START, eos_token=END, unk_token=END, pad_token=END,
        model_max_length=TEXT_LENGTH,
    )  # fmt: skip


def _merges(tokenizer: Tokenizer) -> list[list[str]]:
    merges: list[list[str]] = json.loads(tokenizer.to_str())["model"]["merges"]
    return merges


def _texts() -> Iterator[str]:
    for seed in range(_CAPTIONS):
        yield sample_scene(seed).caption
    for _, text in sorted(topics.items()):
        yield text
