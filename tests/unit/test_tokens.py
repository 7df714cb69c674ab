"""The token counter counts as the model's own tokenizer does."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from sdtui import tokens
from sdtui.tokens import TokenCounter, TokenizerError

FOLDER = Path(__file__).resolve().parents[2] / "sdtui" / "weights" / "tokenizer"
TEXTS = [
    "",
    " ",
    "a red cat in the desert",
    "A RED Cat,   in the\n\n desert!!!",
    "it's the cat's; they'll don't we've I'm you'd",
    "numbers 12345 and 3.14, 50%",
    "punctuation ... --- ((nested:1.3)) [[x]] {y} <z> [/]",
    "naïve café, smörgåsbord, Ångström, e\u0301 combining",
    "日本語 の テキスト 中文 한국어",
    "emoji 🐈‍⬛ 🎨 👩‍👩‍👧",
    "tabs\tand\r\nlines\u00a0and\u2003spaces",
    "words <|startoftext|> in <|endoftext|> between",
    "a" * 300,
    "cat " * 200,
    "\x00\x1b[31m control \x7f",
    "mixed ЁЖИК στο δάσος שלום مرحبا",
]


@pytest.fixture(scope="module")
def reference():
    """The tokenizer that the pipeline uses."""
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(str(FOLDER))


@pytest.mark.parametrize("text", TEXTS)
def test_counts_equal_clip_tokenizer(reference, text: str) -> None:
    assert TokenCounter.load(FOLDER).count(text) == len(reference(text).input_ids)


@pytest.mark.parametrize("text", TEXTS)
def test_counts_from_tokenizer_json_alone_are_the_same(tmp_path: Path, reference, text: str) -> None:
    reference.save_pretrained(str(tmp_path))
    for name in ("vocab.json", "merges.txt"):
        (tmp_path / name).unlink(missing_ok=True)
    assert TokenCounter.load(tmp_path).count(text) == len(reference(text).input_ids)


def test_an_empty_prompt_is_the_two_marks() -> None:
    assert TokenCounter.load(FOLDER).count("") == 2


def test_the_unread_end_begins_where_the_model_stops_reading() -> None:
    counter = TokenCounter.load(FOLDER)
    text = " ".join(["cat"] * 75 + ["moon", "boat"])
    assert counter.count(text) == 79
    assert counter.unread(text) == "moon boat"
    assert counter.unread("a red cat") == ""


def test_the_limit_comes_from_the_model_when_it_is_told() -> None:
    assert TokenCounter.load(FOLDER).max_tokens == 77
    assert TokenCounter.load(FOLDER, 32).max_tokens == 32


def test_a_folder_without_a_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=str(tmp_path)):
        TokenCounter.load(tmp_path)


def test_a_garbled_vocabulary_is_an_error_with_the_folder_in_it(tmp_path: Path) -> None:
    shutil.copytree(FOLDER, tmp_path / "tokenizer")
    (tmp_path / "tokenizer" / "vocab.json").write_text("[1, 2")
    with pytest.raises(TokenizerError, match="tokenizer"):
        TokenCounter.load(tmp_path / "tokenizer")


@pytest.mark.parametrize("name", ["vocab.json", "tokenizer.json", "tokenizer_config.json"])
def test_a_file_of_absurd_size_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(tokens, "MAX_FILE_BYTES", 100)
    (tmp_path / "merges.txt").write_text("a b")
    (tmp_path / name).write_text(json.dumps({"a": "b" * 200}))
    with pytest.raises(TokenizerError, match=rf"{name} is larger than 100 bytes"):
        TokenCounter.load(tmp_path)
