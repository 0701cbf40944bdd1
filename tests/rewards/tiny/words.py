"""Tokenizers of two dozen letters, in the layouts that the hub has."""

from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import CLIPTokenizer, PreTrainedTokenizerFast

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def save_clip(folder: Path) -> int:
    """A CLIP tokenizer; returns the size of its vocabulary, whose last word ends a text."""
    words = [*LETTERS, *(f"{letter}</w>" for letter in LETTERS), "<|startoftext|>", "<|endoftext|>"]
    CLIPTokenizer({word: number for number, word in enumerate(words)}, []).save_pretrained(folder)
    return len(words)


def save_letters(folder: Path, *specials: str) -> int:
    """A tokenizer with a token for each letter; returns the size of its vocabulary. 0 is padding."""
    words = ["<pad>", "<unk>", *specials, *LETTERS]
    tokenizer = Tokenizer(models.BPE({word: number for number, word in enumerate(words)}, [], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        additional_special_tokens=list(specials),
    )
    fast.save_pretrained(folder)
    return len(words)
