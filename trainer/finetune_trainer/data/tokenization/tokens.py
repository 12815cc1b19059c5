"""Tokenised rows: token ids, and which of them are trained. A row is one sequence, or a pair of two."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, cast


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

    @property
    def sequences(self) -> tuple["TokenRow", ...]:
        """What goes through the model by itself."""
        return (self,)

    def cut(self, length: int) -> "TokenRow":
        """The first `length` tokens."""
        return TokenRow(ids=self.ids[:length], trained=self.trained[:length])

    @property
    def trains(self) -> bool:
        """Whether any token is in the loss. The first token never is, because no token before it predicts it."""
        return any(self.trained[1:])


@dataclass(frozen=True, slots=True)
class TokenPair:
    """A tokenised pair: the prompt with the better answer, and with the worse one. The answers are what is trained."""

    chosen: TokenRow
    rejected: TokenRow

    @property
    def sequences(self) -> tuple[TokenRow, ...]:
        """What goes through the model by itself."""
        return (self.chosen, self.rejected)

    def cut(self, length: int) -> "TokenPair":
        """The first `length` tokens of both."""
        return TokenPair(self.chosen.cut(length), self.rejected.cut(length))

    @property
    def trains(self) -> bool:
        """Whether both answers have a token, and not the same ones."""
        return self.chosen.trains and self.rejected.trains and self.chosen.ids != self.rejected.ids

    @classmethod
    def of_texts(cls, chosen: TokenRow, rejected: TokenRow) -> "TokenPair":
        """The pair of two texts that state no prompt: the tokens with which both begin are the prompt."""
        shared = 0
        for ours, theirs in zip(chosen.ids, rejected.ids, strict=False):
            if ours != theirs:
                break
            shared += 1
        return cls(
            *(
                TokenRow(ids=text.ids, trained=(False,) * shared + (True,) * (len(text.ids) - shared))
                for text in (chosen, rejected)
            )
        )


AnyRow = TypeVar("AnyRow", bound=TokenRow | TokenPair)


@dataclass(slots=True, kw_only=True)
class TokenCounts:
    """Numbers of rows and tokens. They are reported, so that users see how many rows were cut or dropped.

    A pair is one row, with the tokens of both sequences.

    Attributes:
        rows: training rows.
        tokens: tokens of the training rows.
        trained_tokens: tokens of the training rows that are in the loss.
        truncated: rows that were longer than maxLength and were cut.
        dropped: rows without a trained token after the cut, and pairs that the cut has made equal; they are left out.
        longest: tokens of the longest sequence before any cut.
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

    def take(self, row: AnyRow, max_length: int, weight: int = 1) -> AnyRow | None:
        """Counts a row. Returns the row cut to `max_length`, or None if it then has no trained token.

        Args:
            row: the row before the cut.
            max_length: longest row that is trained, in tokens.
            weight: number of rows that the row stands for in a sample.
        """
        longest = max(len(sequence.ids) for sequence in row.sequences)
        self.longest = max(self.longest, longest)
        if longest > max_length:
            self.truncated += weight
            row = cast("AnyRow", row.cut(max_length))
        if not row.trains:
            self.dropped += weight
            return None
        self.rows += weight
        for sequence in row.sequences:
            self.tokens += len(sequence.ids) * weight
            self.trained_tokens += sum(sequence.trained[1:]) * weight
        return row
