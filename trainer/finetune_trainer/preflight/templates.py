"""The chat template and the first rows, without transformers: what the tokenizer's files say is read here.

Compiling and rendering happen in a process of their own (`data/templates/trial.py`).
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.manifest import SourceObject
from finetune_trainer.contract.recipe import DatasetSpec
from finetune_trainer.contract.uri import parse_uri
from finetune_trainer.data.examples import Conversation, Example, RowLocation
from finetune_trainer.data.problems import Findings
from finetune_trainer.data.scan import DatasetScan, ScannedRow
from finetune_trainer.data.templates.builtin import template_label, template_source
from finetune_trainer.data.templates.choose import template_refused
from finetune_trainer.data.templates.trial import Trial, try_template
from finetune_trainer.data.tokenize import characters
from finetune_trainer.sources import read_json
from finetune_trainer.storage.base import OpenStore

_FIRST_ROWS = 1000
_FIRST_CHARACTERS = 4 << 20
"""Of the rows that are rendered, so that memory does not grow with them."""
_LONGEST_FILE = 64 << 20
_NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
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


def first_rows(scan: DatasetScan, rows: Iterator[ScannedRow]) -> list[Example]:
    """Takes the first rows: those that are rendered, or one when rows are no conversations.

    Args:
        scan: the pass.
        rows: its iterator, which goes on where this has stopped.
    """
    taken: list[Example] = []
    size = 0
    for shape, file, line, row in rows:
        example = shape.build(row, RowLocation(file=file, line=line, unit=scan.unit))
        taken.append(example)
        size += characters(example)
        if not isinstance(example, Conversation) or len(taken) == _FIRST_ROWS or size >= _FIRST_CHARACTERS:
            break
    return taken


def check_template(
    dataset: DatasetSpec,
    model: Sequence[SourceObject],
    rows: Sequence[Conversation],
    findings: Findings,
    open_store: OpenStore,
) -> str:
    """Renders the first conversations.

    Args:
        dataset: names the template and the loss.
        model: the model's files.
        rows: the first conversations.
        findings: is told what is wrong with rows.
        open_store: where the tokenizer's files are opened.

    Returns:
        Which template it is, for the report.

    Raises:
        TrainerError: INVALID_RECIPE or MODEL_INVALID, the template cannot be used; DATASET_INVALID, it refuses rows;
            or the storage's reason.
    """
    facts, chosen = tokenizer_facts(model, open_store), dataset.chat_template
    label = "the model's own" if chosen is None else template_label(chosen)
    source = facts.template if chosen is None else template_source(chosen)
    if source is None:
        raise TrainerError(
            FailureReason.MODEL_INVALID,
            "the dataset has messages, but the model has no chat template (chat_template.jinja, or chat_template in "
            "tokenizer_config.json); set dataset.chatTemplate, use the instruct model of the family, or rows of prompt "
            "and completion",
        )
    if facts.known is None or "eos_token" not in facts.special_tokens:
        # A class of transformers may know more than the files say.
        return f"{label}; not tried: the tokenizer's files do not name its special tokens"
    result = try_template(
        Trial(
            source=source,
            special_tokens=facts.special_tokens,
            special=sorted(facts.special),
            # The model's own template may write whatever its makers meant it to.
            known=sorted(facts.known) if chosen is not None else None,
            loss=dataset.loss,
            rows=[row.messages for row in rows],
        )
    )
    if result.problem is not None:
        if chosen is not None:
            raise template_refused(chosen, result.problem)
        raise TrainerError(FailureReason.MODEL_INVALID, f"the model's chat template {result.problem}")
    for number, fault in sorted(result.faults.items()):
        place = rows[number].place
        findings.add(fault, place.file, place.line, unit=place.unit)
    findings.raise_if_any()
    return f"{label}; {len(rows):,} row{'s' if len(rows) > 1 else ''} rendered"


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
    listed: list[Any] = list((config.get("added_tokens_decoder") or {}).values())
    if file is not None:
        text = _read(file, open_store)
        if found := _ADDED.search(text):
            try:
                listed += json.JSONDecoder().raw_decode(text, found.end())[0]
            except ValueError as error:
                raise TrainerError(FailureReason.MODEL_INVALID, f"{file.uri} is not JSON: {error}") from error
    elif not listed:
        return None
    return {
        item["content"]: bool(item.get("special")) for item in listed if isinstance(item, dict) and "content" in item
    }


def _template(value: object) -> str | None:
    """`chat_template` of tokenizer_config.json: a text, or a list of named ones, of which the default counts."""
    if isinstance(value, list):
        value = {item.get("name"): item.get("template") for item in value if isinstance(item, dict)}.get("default")
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
    with open_store(parse_uri(file.uri)).open(file) as stream:
        content = stream.read(_LONGEST_FILE)
    return content.decode(errors="replace")
