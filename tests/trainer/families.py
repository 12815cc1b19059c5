"""Small but real tokenizers with the special tokens of the model families that have a built-in chat template."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """The special tokens of a model family."""

    bos: str | None
    eos: str
    added: tuple[str, ...] = ()


FAMILIES = {
    "llama-2": Family(bos="<s>", eos="</s>"),
    "llama-3": Family(
        bos="<|begin_of_text|>", eos="<|eot_id|>", added=("<|start_header_id|>", "<|end_header_id|>", "<|end_of_text|>")
    ),
    "chatml": Family(bos="<|im_start|>", eos="<|im_end|>"),
    "mistral": Family(bos="<s>", eos="</s>"),
    "gemma": Family(bos="<bos>", eos="<eos>", added=("<start_of_turn>", "<end_of_turn>")),
    "qwen": Family(bos=None, eos="<|im_end|>", added=("<|im_start|>", "<|endoftext|>")),
    "phi": Family(bos="<s>", eos="<|endoftext|>", added=("<|system|>", "<|user|>", "<|assistant|>", "<|end|>")),
}


def family_tokenizer(name: str, tiny_model: Path) -> Any:
    """Returns the tiny model's byte-pair tokenizer with a family's special tokens and without a chat template."""
    from transformers import PreTrainedTokenizerFast

    family = FAMILIES[name]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(tiny_model / "tokenizer.json"), bos_token=family.bos, eos_token=family.eos
    )
    tokenizer.add_special_tokens({"additional_special_tokens": list(family.added)})
    return tokenizer


def llama_2_tokenizer() -> Any:
    """Returns a tokenizer like that of Llama 2.

    It is SentencePiece's: a blank comes before every piece of text, and rare characters are bytes.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    inner.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    special = ["<unk>", "<s>", "</s>"]
    plain = [f"<0x{byte:02X}>" for byte in range(256)]
    # Word by word, because SentencePiece merges nothing across blanks.
    corpus = [
        "[INST]",
        "Name",
        "the",
        "capital",
        "of",
        "France.",
        "[/INST]",
        "Paris",
        "is",
        "the",
        "capital.",
        "<<SYS>>",
        "Be",
        "kind.",
        "<</SYS>>",
    ]
    inner.train_from_iterator(
        corpus, trainers.BpeTrainer(vocab_size=400, special_tokens=special + plain, show_progress=False)
    )
    inner.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", inner.token_to_id("<s>"))]
    )
    inner.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in special])
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
