"""The tokenizer: CLIP's format, every string, one token a known word."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import CLIPTokenizer

from sdtui.scratch.captions import caption
from sdtui.scratch.scenes import sample_scene
from sdtui.scratch.text import Tokens
from sdtui.scratch.tokenizer import END, START, learn_merges, vocabulary, write_tokenizer


@pytest.fixture(scope="module")
def captions():
    rng = random.Random(0)
    return [caption(sample_scene(rng), rng) for _ in range(3000)]


@pytest.fixture(scope="module")
def folder(captions, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(learn_merges(captions), folder)
    return folder


def test_every_word_of_the_captions_is_one_token(folder, captions):
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    words = {word for said in captions for word in said.replace(",", "").split()}
    assert [word for word in words if len(tokenizer.tokenize(word)) != 1] == []


def test_start_and_end_are_the_last_two_tokens_as_in_clip(folder, captions):
    tokens = vocabulary(learn_merges(captions))
    assert tokens[START] == len(tokens) - 2 and tokens[END] == len(tokens) - 1
    ids = Tokens(folder).ids(["a red cat"])[0].tolist()
    assert ids[0] == tokens[START] and ids[4:] == [tokens[END]] * 73


@given(st.text(min_size=1, max_size=40))
def test_every_string_is_encoded_without_unknown_tokens(shared_tokenizer, text):
    ids = shared_tokenizer(text)["input_ids"]
    assert shared_tokenizer.unk_token_id not in ids[1:-1] or END in text


@pytest.fixture(scope="module")
def shared_tokenizer(folder):
    return CLIPTokenizer.from_pretrained(folder)


def test_what_was_encoded_is_decoded_again(shared_tokenizer):
    for text in ("a red cat on the left in the desert", "zwölf boxkämpfer", "猫 7"):
        ids = shared_tokenizer(text)["input_ids"]
        assert shared_tokenizer.decode(ids, skip_special_tokens=True).strip() == text


def test_the_saved_tokenizer_json_counts_the_same_tokens_without_transformers(shared_tokenizer, tmp_path):
    shared_tokenizer.save_pretrained(tmp_path)
    light = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    text = "A Red Cat, in the desert!"
    assert light.encode(text).ids == shared_tokenizer(text)["input_ids"]
