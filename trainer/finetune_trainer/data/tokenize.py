"""Rows to token rows: what is trained is decided here and nowhere else.

| row | tokens | trained |
|---|---|---|
| text | BOS once if the model's tokenizer sets one, the text, EOS once | all |
| prompt and completion | as one text, divided at the prompt's end | completion and EOS |
| messages | the model's chat template | the assistant's turns with their end-of-turn tokens |

`dataset.loss` widens or narrows the last column. TRL's own preparation is not used: it doubles a BOS that stands in the
text (trl#1400) and cuts and drops rows in silence.
"""

from collections.abc import Iterable, Iterator

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.recipe.dataset import Loss
from finetune_trainer.data.example import Conversation, Example, PromptCompletion, Text
from finetune_trainer.data.template import conversation_row, whole_conversation_row
from finetune_trainer.data.tokens import TokenCounts, Tokenizer, TokenRow


def token_rows(
    examples: Iterable[Example], tokenizer: Tokenizer, *, loss: Loss, max_length: int, counts: TokenCounts
) -> Iterator[TokenRow]:
    """Tokenises rows, cuts them to `max_length` tokens and leaves out those without a trained one.

    Args:
        examples: the rows.
        tokenizer: the model's tokenizer.
        loss: which tokens are trained.
        max_length: longest row, in tokens.
        counts: is brought up to date with every row.

    Raises:
        TrainerError: a row cannot be tokenised as asked; the message names its file and line.
    """
    token_row = RowTokenizer(tokenizer, loss)
    for example in examples:
        row = counts.take(token_row(example), max_length)
        if row is not None:
            yield row


class RowTokenizer:
    """Tokenises one row after the other, uncut."""

    def __init__(self, tokenizer: Tokenizer, loss: Loss) -> None:
        self._tokenizer = tokenizer
        self._loss = loss
        self._bos = _leading_bos(tokenizer)

    def __call__(self, example: Example) -> TokenRow:
        """Tokenises one row.

        Raises:
            TrainerError: `loss` asks for a part that this row does not have, or the chat template refuses it.
        """
        match example:
            case Text():
                return self._text(example)
            case PromptCompletion():
                return self._prompt_and_completion(example)
            case Conversation() if self._loss is Loss.ALL:
                return whole_conversation_row(example, self._tokenizer)
            case Conversation():
                return conversation_row(example, self._tokenizer, only_last=self._loss is Loss.COMPLETION)

    def _text(self, example: Text) -> TokenRow:
        if self._loss in (Loss.ASSISTANT, Loss.COMPLETION):
            place = example.place
            raise TrainerError(
                FailureReason.DATASET_INVALID,
                f"{place.file}:{place.line}: dataset.loss is {self._loss}, but this row is running text without such "
                "a part; use loss: auto or all",
            )
        ids = (*self._bos, *self._encode(self._without_eos(self._without_bos(example.text))), self._eos())
        return TokenRow(ids=ids, trained=(True,) * len(ids))

    def _prompt_and_completion(self, example: PromptCompletion) -> TokenRow:
        prompt, completion = self._without_bos(example.prompt), self._without_eos(example.completion)
        first, joint = self._encode(prompt), self._encode(prompt + completion)
        # A server encodes the prompt alone. Where prompt and completion would share a token, the prompt keeps its own
        # tokens, so that the model is trained on the ones it will be given.
        rest = joint[len(first) :] if joint[: len(first)] == first else self._encode(completion)
        head = (*self._bos, *first)
        ids = (*head, *rest, self._eos())
        trained = tuple(self._loss is Loss.ALL or index >= len(head) for index in range(len(ids)))
        return TokenRow(ids=ids, trained=trained)

    def _encode(self, text: str) -> tuple[int, ...]:
        return tuple(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def _without_bos(self, text: str) -> str:
        """The text without a leading BOS, which many prepared datasets write out ("<s>[INST] …")."""
        return text.removeprefix(self._tokenizer.bos_token) if self._bos and self._tokenizer.bos_token else text

    def _without_eos(self, text: str) -> str:
        """The text without a trailing EOS and the blanks after it; other blanks at the end are the text's."""
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


def _leading_bos(tokenizer: Tokenizer) -> tuple[int, ...]:
    """The BOS that this tokenizer begins a text with, as Llama's does; empty where it sets none, as Qwen's."""
    ids = tokenizer("a")["input_ids"]
    return (ids[0],) if ids and ids[0] == tokenizer.bos_token_id else ()
