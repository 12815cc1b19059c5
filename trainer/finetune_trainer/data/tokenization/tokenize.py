"""Tokenises rows. This module and `loss_mask` decide which tokens are trained; no other module does.

| row | tokens | trained |
|---|---|---|
| text | BOS once if the model's tokenizer sets one, the text, EOS once | all |
| prompt and completion | as one text, divided at the prompt's end | completion and EOS |
| messages | the text of the chat template | the assistant's turns with their end-of-turn tokens |
| a pair | those of two such rows | the answers; of two texts, what follows the tokens with which both begin |

`dataset.loss` changes the last column. TRL's own preparation is not used: it doubles a BOS that is in the text
(trl#1400), and it cuts and drops rows without a message. Rows are encoded in batches, on all cores.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import overload

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.recipe.dataset import Loss
from finetune_trainer.data.examples import (
    Conversation,
    Example,
    Message,
    Messages,
    Preference,
    PromptCompletion,
    SupervisedExample,
    Text,
)
from finetune_trainer.data.problems import Fault, FaultError, Findings, ProblemKind
from finetune_trainer.data.templates.chat import ChatTemplate, Span, template_of
from finetune_trainer.data.tokenization.loss_mask import LossMask
from finetune_trainer.data.tokenization.tokens import TokenCounts, Tokenizer, TokenPair, TokenRow, special_texts

_ROWS_A_BATCH = 256
_CHARACTERS_A_BATCH = 1 << 20


@overload
def token_rows(
    examples: Iterable[SupervisedExample], tokenizer: Tokenizer, *, loss: Loss, max_length: int, counts: TokenCounts
) -> Iterator[TokenRow]: ...
@overload
def token_rows(
    examples: Iterable[Example], tokenizer: Tokenizer, *, loss: Loss, max_length: int, counts: TokenCounts
) -> Iterator[TokenRow | TokenPair]: ...
def token_rows(
    examples: Iterable[Example], tokenizer: Tokenizer, *, loss: Loss, max_length: int, counts: TokenCounts
) -> Iterator[TokenRow | TokenPair]:
    """Tokenises rows, cuts them to `max_length` tokens, and drops rows without a trained token.

    After the first row that cannot be tokenised no more rows are yielded. The rest is only checked for further
    problems. So use the rows only when the iteration has ended without an error.

    Args:
        examples: the rows.
        tokenizer: the model's tokenizer, with the chat template to use.
        loss: `dataset.loss`: which tokens are trained.
        max_length: longest row, in tokens.
        counts: updated with every row.

    Raises:
        TrainerError: DATASET_INVALID, rows cannot be tokenised (the message has the file and line of the first ones);
            MODEL_INVALID, the model has no chat template or no EOS, and the rows need it.
    """
    tokenize, findings = RowTokenizer(tokenizer, loss), Findings()
    for batch in _batches(examples):
        for example, row in zip(batch, tokenize.batch(batch), strict=True):
            if isinstance(row, Fault):
                findings.add(row, example.place.file, example.place.line, unit=example.place.unit)
            elif not findings.count and (kept := counts.take(row, max_length)) is not None:
                yield kept
    findings.raise_if_any()


class RowTokenizer:
    """Tokenises rows and does not cut them.

    Args:
        tokenizer: the model's tokenizer, with the chat template to use.
        loss: `dataset.loss`: which tokens are trained.
    """

    def __init__(self, tokenizer: Tokenizer, loss: Loss) -> None:
        self._tokenizer = tokenizer
        self._loss = loss
        self._bos = _leading_bos(tokenizer)

    def __call__(self, example: SupervisedExample) -> TokenRow:
        """Tokenises one row.

        Raises:
            TrainerError: DATASET_INVALID, the row lacks the part that `loss` trains, or the chat template refuses the
                row; MODEL_INVALID, see `batch`.
        """
        (row,) = self.batch([example])
        if isinstance(row, Fault):
            message = f"{example.place}: found {row.found}, expected {row.expected}"
            raise TrainerError(FailureReason.DATASET_INVALID, f"{message}; {row.remedy}")
        return row

    @overload
    def batch(self, examples: Sequence[SupervisedExample]) -> Sequence[TokenRow | Fault]: ...
    @overload
    def batch(self, examples: Sequence[Example]) -> Sequence[TokenRow | TokenPair | Fault]: ...
    def batch(self, examples: Sequence[Example]) -> Sequence[TokenRow | TokenPair | Fault]:
        """Tokenises rows together. The result has a fault in the place of each row that cannot be tokenised.

        Raises:
            TrainerError: MODEL_INVALID, the model has no chat template or no EOS, and the rows need it.
        """
        single: list[SupervisedExample] = []
        for example in examples:
            single += (example.chosen, example.rejected) if isinstance(example, Preference) else (example,)
        rows = iter(self._batch(single))
        return [
            _pair(example, next(rows), next(rows)) if isinstance(example, Preference) else next(rows)
            for example in examples
        ]

    def _batch(self, examples: Sequence[SupervisedExample]) -> list[TokenRow | Fault]:
        texts = iter(self._texts([example for example in examples if isinstance(example, Text)]))
        prompts = iter(self._prompts([example for example in examples if isinstance(example, PromptCompletion)]))
        conversations = iter(
            self._conversations([example for example in examples if isinstance(example, Conversation)])
        )
        source = {Text: texts, PromptCompletion: prompts, Conversation: conversations}
        return [next(source[type(example)]) for example in examples]

    def encode_beginning(self, text: str) -> tuple[int, ...]:
        """The token ids of a text that the model is to continue."""
        return (*self._bos, *self._encode([self._without_bos(text)])[0])

    def encode_first_turn(self, content: str) -> tuple[int, ...]:
        """The token ids of a conversation with one user's turn, with the generation prompt.

        Raises:
            FaultError: the chat template refuses the conversation.
            TrainerError: MODEL_INVALID, the model has no chat template, or one that does not compile.
        """
        return self._encode([self._loss_mask.prompt(Messages((Message(role="user", content=content),)))])[0]

    def _texts(self, examples: Sequence[Text]) -> Sequence[TokenRow | Fault]:
        if examples and self._loss in (Loss.ASSISTANT, Loss.COMPLETION):
            return [_no_such_part(self._loss)] * len(examples)
        encoded = self._encode([self._without_eos(self._without_bos(example.text)) for example in examples])
        rows = [(*self._bos, *ids, self._eos()) for ids in encoded]
        return [TokenRow(ids=ids, trained=(True,) * len(ids)) for ids in rows]

    def _prompts(self, examples: Sequence[PromptCompletion]) -> Sequence[TokenRow]:
        prompts = [self._without_bos(example.prompt) for example in examples]
        completions = [self._without_eos(example.completion) for example in examples]
        joint = self._encode([prompt + completion for prompt, completion in zip(prompts, completions, strict=True)])
        rows = []
        for first, both, completion in zip(self._encode(prompts), joint, completions, strict=True):
            # A server encodes the prompt alone. If prompt and completion share a token in the joint text, they are
            # encoded apart, so that the model is trained on the prompt's tokens that a server will send.
            rest = both[len(first) :] if both[: len(first)] == first else self._encode([completion])[0]
            ids = (*self._bos, *first, *rest, self._eos())
            untrained = 0 if self._loss is Loss.ALL else len(self._bos) + len(first)
            rows.append(TokenRow(ids=ids, trained=(False,) * untrained + (True,) * (len(ids) - untrained)))
        return rows

    def _conversations(self, examples: Sequence[Conversation]) -> Sequence[TokenRow | Fault]:
        rows: list[TokenRow | Fault] = []
        texts: list[str] = []
        spans: list[list[Span]] = []
        places: list[int] = []
        for index, example in enumerate(examples):
            try:
                text, trained = self._loss_mask(example.messages)
            except FaultError as error:
                rows.append(error.fault)
                continue
            rows.append(_LATER)
            texts.append(text)
            spans.append(trained)
            places.append(index)
        if texts:
            encoded = self._tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True)
            for index, text, parts, ids, offsets in zip(
                places, texts, spans, encoded["input_ids"], encoded["offset_mapping"], strict=True
            ):
                rows[index] = TokenRow(ids=tuple(ids), trained=_trained(text, offsets, parts))
        return rows

    @cached_property
    def _loss_mask(self) -> LossMask:
        """The loss mask. It is made for the first conversation, because other rows need no chat template."""
        source = template_of(self._tokenizer.chat_template)
        if source is None:
            raise TrainerError(
                FailureReason.MODEL_INVALID,
                "the dataset has messages, but the model has no chat template (chat_template.jinja, or chat_template "
                "in tokenizer_config.json); set dataset.chatTemplate, use the instruct model of the family, or rows of "
                "prompt and completion",
            )
        try:
            template = ChatTemplate(source, self._tokenizer.special_tokens_map)
        except ValueError as error:
            raise TrainerError(FailureReason.MODEL_INVALID, f"the model's chat template {error}") from error
        return LossMask(template, special_texts(self._tokenizer), self._loss)

    def _encode(self, texts: list[str]) -> list[tuple[int, ...]]:
        encoded = self._tokenizer(texts, add_special_tokens=False) if texts else {"input_ids": []}
        return [tuple(ids) for ids in encoded["input_ids"]]

    def _without_bos(self, text: str) -> str:
        """The text without a leading BOS string and the blanks before it, if the tokenizer adds a BOS itself."""
        bos, bare = self._tokenizer.bos_token, text.lstrip()
        return bare.removeprefix(bos) if self._bos and bos and bare.startswith(bos) else text

    def _without_eos(self, text: str) -> str:
        """The text without a trailing EOS string and the blanks after it. Other trailing blanks are kept."""
        eos, bare = self._tokenizer.eos_token, text.rstrip()
        return bare.removesuffix(eos) if eos and bare.endswith(eos) else text

    def _eos(self) -> int:
        if self._tokenizer.eos_token_id is None:
            raise TrainerError(
                FailureReason.MODEL_INVALID,
                "the model's tokenizer names no end-of-text token (eos_token in tokenizer_config.json): a model "
                "trained without one never stops",
            )
        return self._tokenizer.eos_token_id


_LATER = TokenRow(ids=(), trained=())
"""A placeholder for a row until its batch is encoded."""


def _pair(pair: Preference, chosen: TokenRow | Fault, rejected: TokenRow | Fault) -> TokenPair | Fault:
    if isinstance(chosen, Fault):
        return chosen
    if isinstance(rejected, Fault):
        return rejected
    whole = isinstance(pair.chosen, Text)
    return TokenPair.of_texts(chosen, rejected) if whole else TokenPair(chosen, rejected)


def _trained(text: str, offsets: Sequence[tuple[int, int]], spans: Sequence[Span]) -> tuple[bool, ...]:
    """Whether each token is in one of the spans.

    Args:
        text: the text.
        offsets: for each token the index of its first character and of its last character (exclusive).
        spans: the spans of `text` that are trained, in order.
    """
    trained = [False] * len(offsets)
    starts, ends = [start for start, _ in offsets], [end for _, end in offsets]
    for span in spans:
        first, last = bisect_right(ends, span.start), bisect_left(starts, span.end)
        # A token may begin before the span if only a blank is there, which belongs to it ("▁Paris"). A token with part
        # of the template's own text is not trained: a server never asks the model for it.
        while first < last and starts[first] < span.start and text[starts[first] : span.start].strip():
            first += 1
        trained[first:last] = [True] * (last - first)
    return tuple(trained)


def _batches(examples: Iterable[Example]) -> Iterator[list[Example]]:
    """Batches of rows, limited in number and in characters, so that long rows do not fill the memory."""
    batch: list[Example] = []
    size = 0
    for example in examples:
        batch.append(example)
        size += characters(example)
        if len(batch) == _ROWS_A_BATCH or size >= _CHARACTERS_A_BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def characters(example: Example) -> int:
    """The length of a row's text, in characters."""
    match example:
        case Text():
            return len(example.text)
        case PromptCompletion():
            return len(example.prompt) + len(example.completion)
        case Conversation():
            return example.messages.characters
        case Preference():
            return characters(example.chosen) + characters(example.rejected)


def _no_such_part(loss: Loss) -> Fault:
    return Fault(
        kind=ProblemKind.TYPE,
        found=f"running text, and dataset.loss is {loss}",
        expected="rows that have such a part",
        remedy="use dataset.loss: auto or all",
    )


def _leading_bos(tokenizer: Tokenizer) -> tuple[int, ...]:
    """The id of the BOS that this tokenizer adds to a text, as Llama's does; empty if it adds none, as Qwen's."""
    ids = tokenizer("a")["input_ids"]
    return (ids[0],) if ids and ids[0] == tokenizer.bos_token_id else ()
