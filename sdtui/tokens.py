"""How many tokens a prompt is for the loaded model, counted with `tokenizers` alone: no torch, no transformers.

CLIP's tokenizer is rebuilt from `vocab.json` and `merges.txt` as transformers 5 builds `CLIPTokenizer` (Radford et al. 2021,
section 2.4: lower-cased byte-level BPE); a folder with only `tokenizer.json` is read as it is.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_SPLIT: Final = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"

MAX_FILE_BYTES: Final = 64 << 20
"""The largest tokenizers in use, with a quarter of a million words, have 30 MB."""


class TokenizerError(Exception):
    """A tokenizer folder that cannot be used; the text names it and says what is wrong."""


class TokenCounter:
    """Counts as the model does: the marks for start and end are tokens too."""

    def __init__(self, tokenizer: Tokenizer, max_tokens: int) -> None:
        self._tokenizer = tokenizer
        self.max_tokens = max_tokens

    @classmethod
    def load(cls, folder: Path, max_tokens: int | None = None) -> TokenCounter:
        """The counter for a tokenizer folder. `max_tokens` defaults to what its configuration says, else 77.

        Raises `TokenizerError`.
        """
        try:
            config = _read_json(folder / "tokenizer_config.json") if (folder / "tokenizer_config.json").exists() else {}
            tokenizer = _build(folder, config)
        except Exception as error:  # `tokenizers` raises plain Exception for a bad file
            raise TokenizerError(f"{folder} holds no tokenizer that can be read: {error}") from error
        stated = config.get("model_max_length")
        return cls(tokenizer, max_tokens or (stated if isinstance(stated, int) and 0 < stated < 100_000 else 77))

    def count(self, text: str) -> int:
        """Tokens of `text`, the marks for start and end included; not limited to `max_tokens`."""
        return len(self._tokenizer.encode(text).ids)

    def unread(self, text: str) -> str:
        """The end of `text` that the model does not see, empty when all of it is read."""
        encoding = self._tokenizer.encode(text)
        if len(encoding.ids) <= self.max_tokens:
            return ""
        start: int = encoding.offsets[self.max_tokens - 1][0]  # the last place is the end mark's
        return text[start:].strip()


def _read(path: Path) -> str:
    """The text of a model's file. Raises `OSError`, and `ValueError` for one that is too large to be a tokenizer's."""
    with path.open("rb") as file:
        content = file.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise ValueError(f"{path.name} is larger than {MAX_FILE_BYTES:,} bytes")
    return content.decode("utf-8")


def _read_json(path: Path) -> dict[str, Any]:
    import json  # late, as everything here that the first frame can do without

    content = json.loads(_read(path))
    if not isinstance(content, dict):
        raise ValueError(f"{path.name} is no JSON object")
    return content


def _build(folder: Path, config: dict[str, Any]) -> Tokenizer:
    from tokenizers import Tokenizer

    vocab, merges, whole = folder / "vocab.json", folder / "merges.txt", folder / "tokenizer.json"
    if vocab.exists() and merges.exists() and str(config.get("tokenizer_class", "CLIP")).startswith("CLIP"):
        return _build_clip(_read_json(vocab), _read_merges(merges), config)
    if whole.exists():
        tokenizer = Tokenizer.from_str(_read(whole))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return tokenizer
    raise ValueError("neither tokenizer.json nor vocab.json with merges.txt is there")


def _read_merges(path: Path) -> list[tuple[str, str]]:
    lines = _read(path).splitlines()
    pairs = (line.split() for line in lines if line and not line.startswith("#version"))
    return [(pair[0], pair[1]) for pair in pairs if len(pair) == 2]


def _special(config: dict[str, Any], name: str, default: str) -> str:
    token = config.get(name, default)
    return str(token.get("content", default)) if isinstance(token, dict) else str(token or default)


def _build_clip(vocab: dict[str, int], merges: list[tuple[str, str]], config: dict[str, Any]) -> Tokenizer:
    from tokenizers import AddedToken, Regex, Tokenizer, normalizers, pre_tokenizers, processors
    from tokenizers.models import BPE

    start, end = _special(config, "bos_token", "<|startoftext|>"), _special(config, "eos_token", "<|endoftext|>")
    unknown = _special(config, "unk_token", end)
    model = BPE(
        vocab=vocab, merges=merges, continuing_subword_prefix="", end_of_word_suffix="</w>", fuse_unk=False, unk_token=unknown
    )
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(_SPLIT), behavior="removed", invert=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in dict.fromkeys((start, end))])
    tokenizer.post_processor = processors.RobertaProcessing((end, vocab[end]), (start, vocab[start]), False, False)
    return tokenizer
