"""Tokenised rows: token ids, and which of them are trained."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


class Tokenizer(Protocol):
    """The part of transformers' fast tokenizers that is used here, so that `data/` does not import transformers."""

    bos_token: str | None
    bos_token_id: int | None
    eos_token: str | None
    eos_token_id: int | None
    all_special_tokens: Sequence[str]
    special_tokens_map: Mapping[str, Any]
    chat_template: Any
    added_tokens_decoder: Any

    def __call__(self, text: str | list[str], **options: Any) -> Any:
        """Encodes texts. With `return_offsets_mapping` the result has each token's character offsets as well."""
        ...


def special_texts(tokenizer: Tokenizer) -> frozenset[str]:
    """The texts of tokens that running text does not have: the named special ones and added ones such as <|im_end|>."""
    added = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    return frozenset(added | set(tokenizer.all_special_tokens))


def added_texts(tokenizer: Tokenizer) -> frozenset[str]:
    """The texts of tokens that the tokenizer never splits: the special tokens and all other added tokens."""
    added = {token.content for token in tokenizer.added_tokens_decoder.values()}
    return frozenset(added | set(tokenizer.all_special_tokens))


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRow:
    """One tokenised row.

    Attributes:
        ids: token ids, shape (tokens,).
        trained: for each id whether it is in the loss, shape (tokens,).
    """

    ids: tuple[int, ...]
    trained: tuple[bool, ...]

    def cut(self, length: int) -> "TokenRow":
        """The first `length` tokens."""
        return TokenRow(ids=self.ids[:length], trained=self.trained[:length])

    @property
    def trains(self) -> bool:
        """Whether any token is in the loss. The first token never is, because no token before it predicts it."""
        return any(self.trained[1:])


@dataclass(slots=True, kw_only=True)
class TokenCounts:
    """Numbers of rows and tokens. They are reported, so that users see how many rows were cut or dropped.

    Attributes:
        rows: training rows.
        tokens: tokens of the training rows.
        trained_tokens: tokens of the training rows that are in the loss.
        truncated: rows that were longer than maxLength and were cut.
        dropped: rows without a trained token after the cut; they are left out.
        longest: tokens of the longest row before any cut.
        duplicates: rows of the data, trained or not, that repeat an earlier row.
        validation: validation rows.
        trained_too: rows of a separate validation data set that were left out because they are training rows as well.
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
        """Counts a row. Returns the row cut to `max_length`, or None if it then has no trained token.

        Args:
            row: the row before the cut.
            max_length: longest row that is trained, in tokens.
            weight: number of rows that the row stands for in a sample.
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
