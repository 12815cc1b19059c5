"""The model's tokenizer without transformers: its files, and the library `tokenizers`, on which transformers is built.

The ids are those of the training (tests/trainer/test_preflight_tokenizer.py compares them with transformers'). Where
transformers makes a tokenizer out of other files than tokenizer.json, there is none here, and preflight says so.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.manifest import SourceObject
from finetune_trainer.inputs.sources import read_json
from finetune_trainer.preflight.tokenizer_files import TokenizerFacts, stated_tokens
from finetune_trainer.storage.base import OpenStore

if TYPE_CHECKING:
    from tokenizers import AddedToken
    from tokenizers import Tokenizer as Backend

_LONGEST_FILE = 256 << 20


class FileTokenizer:
    """What `data.tokens.Tokenizer` asks for, of a `tokenizers.Tokenizer` and the facts of its folder."""

    def __init__(self, backend: "Backend", facts: TokenizerFacts, chat_template: str | None) -> None:
        self._backend = backend
        self.special_tokens_map: Mapping[str, Any] = facts.special_tokens
        self.bos_token = facts.special_tokens.get("bos_token")
        self.eos_token = facts.special_tokens.get("eos_token")
        self.bos_token_id = backend.token_to_id(self.bos_token) if self.bos_token else None
        self.eos_token_id = backend.token_to_id(self.eos_token) if self.eos_token else None
        self.all_special_tokens: Sequence[str] = list(facts.special_tokens.values())
        self.chat_template: Any = chat_template
        self.added_tokens_decoder: Any = backend.get_added_tokens_decoder()

    def __call__(self, text: str | list[str], **options: Any) -> Any:
        """See `data.tokens.Tokenizer`; of the options `add_special_tokens` and `return_offsets_mapping`."""
        with_offsets = options.get("return_offsets_mapping", False)
        encode = self._backend.encode_batch if with_offsets else self._backend.encode_batch_fast
        texts = [text] if isinstance(text, str) else text
        encoded = encode(texts, add_special_tokens=options.get("add_special_tokens", True))
        fields: dict[str, Any] = {"input_ids": [item.ids for item in encoded]}
        if with_offsets:
            fields["offset_mapping"] = [item.offsets for item in encoded]
        return {key: value[0] for key, value in fields.items()} if isinstance(text, str) else fields


def file_tokenizer(
    model: Sequence[SourceObject], facts: TokenizerFacts, chat_template: str | None, open_store: OpenStore
) -> FileTokenizer | None:
    """The tokenizer of a model's folder; None when it has no tokenizer.json.

    Args:
        model: the model's files.
        facts: what they say of special tokens.
        chat_template: the template that is used.
        open_store: where the files are opened.

    Raises:
        TrainerError: MODEL_INVALID, a file is damaged; or the storage's reason.
    """
    files = {item.uri.rsplit("/", 1)[-1]: item for item in model}
    if (source := files.get("tokenizer.json")) is None:
        return None
    from tokenizers import Tokenizer as Backend

    with open_store(source.location).open(source) as stream:
        content = stream.read(_LONGEST_FILE)
    try:
        backend = Backend.from_buffer(content)
    except Exception as error:
        # The library has no class of its own for it.
        raise TrainerError(
            FailureReason.MODEL_INVALID, f"{source.uri} cannot be read as a tokenizer ({error}): upload it again"
        ) from error
    del content  # tens of megabytes
    config = files.get("tokenizer_config.json")
    stated = read_json(config, open_store) if config is not None else {}
    _as_transformers(backend, facts, stated if isinstance(stated, dict) else {})
    return FileTokenizer(backend, facts, chat_template)


def _as_transformers(backend: "Backend", facts: TokenizerFacts, config: Mapping[str, Any]) -> None:
    """Changes the tokenizer as transformers does when it loads one (transformers:tokenization_utils_tokenizers.py).

    `add_bos_token` of the config is not among it: with a tokenizer.json, transformers does not read it either.
    """
    backend.no_truncation()
    backend.no_padding()
    known = {token.content for token in backend.get_added_tokens_decoder().values()}
    stated = [_added_token(item) for item in stated_tokens(config)]
    named = [_added_token({"content": text, "special": True}) for text in facts.special_tokens.values()]
    missing = {token.content: token for token in [*reversed(named), *reversed(stated)] if token.content not in known}
    backend.add_tokens(list(reversed(missing.values())))


def _added_token(item: Mapping[str, Any]) -> "AddedToken":
    from tokenizers import AddedToken

    flags = {key: bool(item[key]) for key in ("lstrip", "rstrip", "normalized", "single_word") if key in item}
    return AddedToken(str(item["content"]), special=bool(item.get("special")), **flags)
