"""A byte-level BPE tokenizer in CLIP's file format, learnt from the captions.

Byte-level: every string can be encoded, known words cost one token. The files are those of CLIP (Radford et al. 2021, section
2.4; BPE: Sennrich et al. 2016), so transformers' CLIPTokenizer reads them.
"""

import json
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

START, END = "<|startoftext|>", "<|endoftext|>"
MAX_LENGTH = 77
WORD_END = "</w>"
# CLIP's own splitting rule: contractions, words, single digits, runs of punctuation.
SPLIT = Regex(r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+")


def learn_merges(captions: Iterable[str], max_vocabulary: int = 1024) -> list[tuple[str, str]]:
    """The BPE merges of the captions' words, most frequent pair first."""
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix=WORD_END))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(SPLIT, behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(vocab_size=max_vocabulary, end_of_word_suffix=WORD_END, show_progress=False)
    tokenizer.train_from_iterator(captions, trainer)
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    return [(left, right) for left, right in merges]


def vocabulary(merges: list[tuple[str, str]]) -> dict[str, int]:
    """Token to id in CLIP's order: 256 bytes, the same at a word's end, one a merge, start, end."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*letters, *(letter + WORD_END for letter in letters)]
    tokens += [left + right for left, right in merges]
    tokens += [START, END]
    return {token: index for index, token in enumerate(dict.fromkeys(tokens))}


def write_tokenizer(merges: list[tuple[str, str]], folder: Path) -> None:
    """Write vocab.json, merges.txt and tokenizer_config.json into the folder, as CLIPTokenizer reads them."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary(merges), ensure_ascii=False), encoding="utf-8")
    lines = ["#version: 0.2", *(f"{left} {right}" for left, right in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    config = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": MAX_LENGTH,
        "bos_token": START,
        "eos_token": END,
        "pad_token": END,
        "unk_token": END,
        "do_lower_case": True,
        "add_prefix_space": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
