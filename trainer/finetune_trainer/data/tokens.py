"""A row as the model sees it: token ids, and which of them are trained."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


class Tokenizer(Protocol):
    """The part of transformers' fast tokenizers that is used here; the module itself stays free of transformers."""

    bos_token: str | None
    bos_token_id: int | None
    eos_token: str | None
    eos_token_id: int | None
    all_special_tokens: Sequence[str]
    special_tokens_map: Mapping[str, Any]
    chat_template: Any
    added_tokens_decoder: Any

    def __call__(self, text: str | list[str], **options: Any) -> Any:
        """Encodes texts; with `return_offsets_mapping` also each token's place in its text."""
        ...


def special_texts(tokenizer: Tokenizer) -> frozenset[str]:
    """Tokens that never come from running text: the named special ones and added ones such as <|im_end|>."""
    added = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    return frozenset(added | set(tokenizer.all_special_tokens))


def added_texts(tokenizer: Tokenizer) -> frozenset[str]:
    """Tokens that are found whole in a text: the special ones and every other added one."""
    added = {token.content for token in tokenizer.added_tokens_decoder.values()}
    return frozenset(added | set(tokenizer.all_special_tokens))


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRow:
    """One row.

    Attributes:
        ids: token ids.
        trained: for each id, whether it counts in the loss.
    """

    ids: tuple[int, ...]
    trained: tuple[bool, ...]

    def cut(self, length: int) -> "TokenRow":
        """The first `length` tokens."""
        return TokenRow(ids=self.ids[:length], trained=self.trained[:length])

    @property
    def trains(self) -> bool:
        """Whether any token counts: the first one never does, since nothing comes before it."""
        return any(self.trained[1:])


@dataclass(slots=True, kw_only=True)
class TokenCounts:
    """What became of the rows; reported, so that nothing is cut or dropped in silence.

    Attributes:
        rows: rows that are trained.
        tokens: their tokens.
        trained_tokens: those of them that count in the loss.
        truncated: rows that were longer than maxLength and were cut.
        dropped: rows without a trained token (after the cut), which are left out.
        longest: tokens of the longest row before any cut.
        duplicates: rows of the data, trained or not, that repeat one before.
        validation: rows that the adapter is measured with.
        trained_too: validation rows of their own that were left out because they are trained.
    """

    rows: int = 0
    tokens: int = 0
    trained_tokens: int = 0
    truncated: int = 0
    dropped: int = 0
    longest: int = 0
    duplicates: int = 0
    validation: int = 0
    trained_too: int = 0

    def take(self, row: TokenRow, max_length: int, weight: int = 1) -> TokenRow | None:
        """Counts a row; returns it, cut to `max_length`, or None when nothing in it would be trained.

        Args:
            row: the row, uncut.
            max_length: longest row that is trained, in tokens.
            weight: how many rows it stands for, in a sample.
        """
        self.longest = max(self.longest, len(row.ids))
        if len(row.ids) > max_length:
            self.truncated += weight
            row = row.cut(max_length)
        if not row.trains:
            self.dropped += weight
            return None
        self.rows += weight
        self.tokens += len(row.ids) * weight
        self.trained_tokens += sum(row.trained[1:]) * weight
        return row
