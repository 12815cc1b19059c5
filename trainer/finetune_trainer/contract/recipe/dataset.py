"""The section `dataset`: the place of the training data, how rows are read, and which tokens are trained."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from finetune_trainer.contract.rule import decimal, matching
from finetune_trainer.contract.scalar import DECIMAL_LENGTH, PLAIN, PLAIN_LINES
from finetune_trainer.contract.uri import DatasetUri, HubRevision, Uri
from finetune_trainer.contract.wire import Wire


class DatasetFormat(StrEnum):
    """The file format."""

    AUTO = "auto"
    JSONL = "jsonl"
    JSON = "json"
    CSV = "csv"
    TSV = "tsv"
    TEXT = "text"
    PARQUET = "parquet"
    PANDAS = "pandas"


class DatasetSchema(StrEnum):
    """The schema of a row: its columns and their meaning."""

    AUTO = "auto"
    TEXT = "text"
    PROMPT_COMPLETION = "promptCompletion"
    MESSAGES = "messages"
    ALPACA = "alpaca"
    SHAREGPT = "sharegpt"
    PREFERENCE = "preference"


class Loss(StrEnum):
    """The tokens that are trained."""

    AUTO = "auto"
    ASSISTANT = "assistant"
    COMPLETION = "completion"
    ALL = "all"


class Switch(StrEnum):
    """On, off, or decided at run time."""

    AUTO = "auto"
    ENABLED = "enabled"
    DISABLED = "disabled"


Column = Annotated[str, Field(min_length=1, max_length=128), PLAIN]


class Fields(Wire):
    """The names of a row's columns, if they are not the usual ones."""

    text: Column | None = Field(None, description="Column with the whole text. Example: body.")
    prompt: Column | None = Field(None, description="Column with the prompt. Example: question.")
    completion: Column | None = Field(None, description="Column with the completion. Example: answer.")
    messages: Column | None = Field(None, description="Column with the list of messages. Example: dialogue.")
    role: Column | None = Field(None, description="Key of a message that names the speaker. Example: from.")
    content: Column | None = Field(None, description="Key of a message that holds its text. Example: value.")
    instruction: Column | None = Field(None, description="Column with the instruction. Example: task.")
    input: Column | None = Field(None, description="Column with the instruction's input. Example: context.")
    output: Column | None = Field(None, description="Column with the expected output. Example: response.")
    system: Column | None = Field(
        None, description="Column with the system message of a conversation or an instruction. Example: system_prompt."
    )
    chosen: Column | None = Field(None, description="Column with the better answer. Example: preferred.")
    rejected: Column | None = Field(None, description="Column with the worse answer. Example: dispreferred.")

    @property
    def named(self) -> frozenset[str]:
        """The parts of a row for which a column is named."""
        return frozenset(name for name in type(self).model_fields if getattr(self, name) is not None)


_MESSAGE_FIELDS = frozenset({"messages", "role", "content", "system"})
FIELDS_OF: dict[DatasetSchema, frozenset[str]] = {
    DatasetSchema.TEXT: frozenset({"text"}),
    DatasetSchema.PROMPT_COMPLETION: frozenset({"prompt", "completion"}),
    DatasetSchema.MESSAGES: _MESSAGE_FIELDS,
    DatasetSchema.SHAREGPT: _MESSAGE_FIELDS,
    DatasetSchema.ALPACA: frozenset({"instruction", "input", "output", "system"}),
    DatasetSchema.PREFERENCE: frozenset({"prompt", "instruction", "input", "chosen", "rejected", *_MESSAGE_FIELDS}),
}
"""The parts that a row of each schema has."""


SplitName = Annotated[
    str,
    Field(min_length=1, max_length=128),
    matching("^[-A-Za-z0-9_.]+$", "must be the name of one split, such as train; parts (train[:10%]) are not taken"),
]

TRAIN_SPLIT, VALIDATION_SPLIT = "train", "validation"
"""The splits of a Hub data set that are trained and validated on, when no split is named."""

Fraction = Annotated[
    str,
    Field(max_length=DECIMAL_LENGTH),
    decimal('must be a decimal in quotes above "0" and at most "0.5", for example "0.05"', above=0.0, at_most=0.5),
]


Sha256 = Annotated[
    str,
    Field(max_length=64),
    matching("^[0-9a-fA-F]{64}$", "must be 64 hexadecimal digits, as sha256sum prints them"),
]


class Validation(Wire):
    """The validation rows: they are not trained, and the adapter is evaluated on them."""

    uri: DatasetUri | None = Field(
        None,
        description="File of validation rows, read like the training rows. Rows that are also trained are left out. "
        "Example: s3://data/support/val.jsonl.",
    )
    split: SplitName | None = Field(
        None,
        description="Split of a Hub data set: of validation.uri, or of dataset.uri when there is no validation.uri. "
        "Default: validation. Example: test.",
    )
    sha256: Sha256 | None = Field(
        None, description="Expected SHA-256 of the object at validation.uri. https:// data needs it."
    )
    fraction: Fraction | None = Field(
        None,
        description="Share of the training rows to hold out. The rows are chosen by content and training.seed; "
        'equal rows stay together. Above "0", at most "0.5". Example: "0.05".',
    )


class Limits(Wire):
    """Limits of a dataset. A larger dataset is refused before the job requests a GPU."""

    max_line_bytes: int = Field(
        16 * 1024 * 1024,
        ge=1024,
        le=1 << 30,
        description="Longest line, in bytes. Default: 16777216 (16 MiB).",
    )
    max_rows: int = Field(50_000_000, ge=1, le=1_000_000_000, description="Largest number of rows. Default: 50000000.")
    max_bytes: int = Field(
        200 * 1024**3,
        ge=1,
        le=1 << 50,
        description="Largest number of bytes, after decompression. Default: 214748364800 (200 GiB).",
    )
    max_compression_ratio: int = Field(
        200, ge=1, le=10_000, description="Largest number of decompressed bytes for each stored byte. Default: 200."
    )


CHAT_TEMPLATES = ("llama-2", "llama-3", "chatml", "mistral", "gemma", "qwen", "phi")
"""Names of the built-in chat templates. The fingerprint has only the name, so the template of a name never changes."""

ChatTemplateText = Annotated[
    str,
    Field(min_length=1, max_length=16384),
    matching(
        f"^({'|'.join(CHAT_TEMPLATES)})$|[{{][{{%]",
        f"must be one of {', '.join(CHAT_TEMPLATES)}, or inline Jinja with its braces",
    ),
    PLAIN_LINES,
]


class DatasetSpec(Wire):
    """The training data."""

    uri: DatasetUri | None = Field(
        None,
        description="The training rows: an object, or a prefix that ends in '/' (s3://bucket/key, pvc://claim/path), "
        "a data set of the Hub (hf://datasets/org/name, hf://datasets/org/name/config), or a file by https with its "
        "sha256 (https://host/path). "
        "Example: s3://data/support/train.jsonl.",
    )
    uris: Annotated[list[DatasetUri], Field(min_length=1, max_length=64)] | None = Field(
        None, description="Several places instead of uri, read in this order."
    )
    revision: HubRevision | None = Field(
        None,
        description="Branch, tag or commit of the Hub data sets in uri or uris. It is resolved to a commit, which is "
        "recorded. Default: the main branch. Example: refs/convert/parquet.",
    )
    split: SplitName | None = Field(
        None, description="Split of the Hub data sets in uri or uris that is trained. Default: train."
    )
    format: DatasetFormat = Field(
        DatasetFormat.AUTO,
        description="File format. auto decides for each file, by content and name. gzip and zstd are unpacked. "
        "pandas (a pickled DataFrame) must be named. Default: auto.",
    )
    schema_: DatasetSchema = Field(
        DatasetSchema.AUTO,
        alias="schema",
        description="Shape of a row: text, promptCompletion, messages, alpaca, sharegpt, or preference for the "
        "method dpo. Default: auto (decided by the first rows).",
    )
    fields: Fields | None = Field(
        None, description="Names of columns, where they are not the usual ones. Default: the usual names."
    )
    ignored_columns: Annotated[list[Column], Field(max_length=64)] | None = Field(
        None,
        description="Columns that are not read although they change what a row means: chosen, rejected, label, images "
        "and the like. Without this such rows are refused. Example: [rejected].",
    )
    chat_template: ChatTemplateText | None = Field(
        None,
        description="Chat template, which turns a conversation into text: a built-in name (llama-2, llama-3, "
        "chatml, mistral, gemma, qwen, phi) or inline Jinja. Inline Jinja may mark the trained parts with "
        "generation blocks. The template is saved with the adapter's tokenizer. Default: the model's own. "
        "Example: llama-2.",
    )
    loss: Loss = Field(
        Loss.AUTO,
        description="Tokens that are trained: assistant (the assistant's turns), completion, or all. auto is "
        "assistant for conversations, completion for prompts with completions, all for text. Default: "
        "auto.",
    )
    max_length: int = Field(
        2048,
        ge=16,
        le=1_048_576,
        description="Longest row, in tokens. Longer rows are cut, and counted. Default: 2048.",
    )
    packing: Switch = Field(
        Switch.AUTO,
        description="Packing: auto, enabled or disabled. Several short rows share one forward pass, and no row attends "
        "to another. Default: auto.",
    )
    validation: Validation | None = Field(
        None, description="Validation rows. They are not trained, and the adapter is evaluated on them. Default: none."
    )
    sha256: Sha256 | None = Field(
        None,
        description="Expected SHA-256 of the object, in hexadecimal. An object with another SHA-256 is refused. "
        "https:// data needs it.",
    )
    limits: Limits = Field(default_factory=Limits, description="Limits of the data.")

    @property
    def places(self) -> list[Uri]:
        """The places of the training rows, in reading order."""
        return [self.uri] if self.uri is not None else list(self.uris or ())

    @property
    def validation_place(self) -> Uri | None:
        """The place of validation rows of their own; None if there are none."""
        if self.validation is None:
            return None
        return self.validation.uri or (self.uri if self.validation.split is not None else None)
