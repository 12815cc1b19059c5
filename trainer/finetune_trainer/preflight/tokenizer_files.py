"""What the files of a model's tokenizer say of special tokens and of the chat template, read without transformers."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.manifest import SourceObject
from finetune_trainer.inputs.sources import read_json
from finetune_trainer.storage.base import OpenStore

_LONGEST_FILE = 64 << 20
_NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_ID = re.compile("[0-9]{1,10}")
_ADDED = re.compile(r'"added_tokens"\s*:\s*(?=\[)')


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizerFacts:
    """What a tokenizer's files say of templates.

    Attributes:
        template: the model's own chat template; None when it has none.
        special_tokens: `bos_token` and the like.
        special: the special tokens, named and added.
        known: all tokens that are found whole in a text; None when no file lists them.
    """

    template: str | None
    special_tokens: Mapping[str, str] = field(default_factory=dict)
    special: frozenset[str] = frozenset()
    known: frozenset[str] | None = None


def tokenizer_facts(model: Sequence[SourceObject], open_store: OpenStore) -> TokenizerFacts:
    """Reads the tokenizer's files.

    Raises:
        TrainerError: MODEL_INVALID, a file is damaged; or the storage's reason.
    """
    files = {item.uri.rsplit("/", 1)[-1]: item for item in model}
    config = _json_object(files.get("tokenizer_config.json"), open_store)
    legacy = _json_object(files.get("special_tokens_map.json"), open_store)
    named = {name: text for name in _NAMED if (text := _text(config.get(name)) or _text(legacy.get(name)))}
    added = _added_tokens(files.get("tokenizer.json"), config, open_store)
    special = {text for text, is_special in (added or {}).items() if is_special}
    own = files.get("chat_template.jinja")
    return TokenizerFacts(
        template=_read(own, open_store) if own else _template(config.get("chat_template")),
        special_tokens=named,
        special=frozenset(special) | set(named.values()),
        known=None if added is None else frozenset(added) | set(named.values()),
    )


def _added_tokens(
    file: SourceObject | None, config: Mapping[str, Any], open_store: OpenStore
) -> dict[str, bool] | None:
    """Added tokens and whether they are special.

    The array stands at the head of tokenizer.json; the vocabulary after it, tens of megabytes, is not parsed.
    """
    listed: list[Any] = stated_tokens(config)
    if file is not None:
        text = _read(file, open_store)
        if match := _ADDED.search(text):
            try:
                listed += json.JSONDecoder().raw_decode(text, match.end())[0]
            except (ValueError, RecursionError) as error:
                raise TrainerError(FailureReason.MODEL_INVALID, f"{file.uri} is not JSON: {error}") from error
    elif not listed:
        return None
    return {
        item["content"]: bool(item.get("special"))
        for item in listed
        if isinstance(item, dict) and isinstance(item.get("content"), str)
    }


def stated_tokens(config: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The added tokens that tokenizer_config.json lists, in the order of their ids.

    Raises:
        TrainerError: MODEL_INVALID. They are of another form than transformers', which fails on them too.
    """
    stated = config.get("added_tokens_decoder") or {}
    if isinstance(stated, dict) and all(
        _ID.fullmatch(number) and isinstance(token, dict) and isinstance(token.get("content"), str)
        for number, token in stated.items()
    ):
        return [token for _, token in sorted(stated.items(), key=lambda item: int(item[0]))]
    raise TrainerError(
        FailureReason.MODEL_INVALID, "added_tokens_decoder in tokenizer_config.json is no map of ids to tokens"
    )


def _template(value: object) -> str | None:
    """`chat_template` of tokenizer_config.json: a text, or a list of named ones, of which the default counts."""
    if isinstance(value, list):
        named = [item for item in value if isinstance(item, dict) and item.get("name") == "default"]
        value = named[-1].get("template") if named else None
    return value if isinstance(value, str) and value else None


def _text(token: object) -> str | None:
    """A special token: its text, or an object with it."""
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) and token else None


def _json_object(file: SourceObject | None, open_store: OpenStore) -> dict[str, Any]:
    content = read_json(file, open_store) if file is not None else {}
    return content if isinstance(content, dict) else {}


def _read(file: SourceObject, open_store: OpenStore) -> str:
    with open_store(file.location).open(file) as stream:
        content = stream.read(_LONGEST_FILE)
    return content.decode(errors="replace")
