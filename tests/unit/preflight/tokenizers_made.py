"""Makes tokenizer files for models of tests."""

from collections.abc import Sequence

from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors


def tokenizer_json(special: Sequence[str] = ("<s>", "</s>"), plain: Sequence[str] = ()) -> bytes:
    """Returns a byte-level tokenizer without merges. Each byte is a token. <s> comes first if it is a special token."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE(vocab={letter: number for number, letter in enumerate(letters)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.add_special_tokens([AddedToken(token, special=True) for token in special])
    made.add_tokens([AddedToken(token) for token in plain])
    if "<s>" in special:
        number = made.token_to_id("<s>")
        made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", number)])
    return made.to_str().encode()
