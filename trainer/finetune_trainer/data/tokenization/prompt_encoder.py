"""Tokenises prompts as a server does, and finds the tokens that end an answer.

If the training rows are conversations, a prompt is a user's turn in the chat template. Otherwise a prompt is the
beginning of a text, tokenised like the rows.
"""

from finetune_trainer.contract.recipe.dataset import Loss
from finetune_trainer.data.examples import Conversation, Message, Messages, RowLocation
from finetune_trainer.data.problems import Fault
from finetune_trainer.data.tokenization.tokenize import RowTokenizer
from finetune_trainer.data.tokenization.tokens import Tokenizer


class PromptEncoder:
    """Tokenises prompts.

    Args:
        tokenizer: the model's tokenizer, with the chat template to use.
        conversations: whether the training rows are conversations.

    Attributes:
        stop_ids: ids of the tokens that end an answer: EOS, and the chat template's end of turn.
    """

    def __init__(self, tokenizer: Tokenizer, *, conversations: bool) -> None:
        self._rows = RowTokenizer(tokenizer, Loss.ASSISTANT)
        self._conversations = conversations
        special = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
        end = {tokenizer.eos_token_id} if tokenizer.eos_token_id is not None else set()
        self.stop_ids = frozenset(end | (self._trained_in_a_turn() & special if conversations else set()))

    def __call__(self, prompt: str) -> tuple[int, ...]:
        """The token ids of a prompt.

        Raises:
            FaultError: the chat template refuses a conversation that begins with this turn.
            TrainerError: MODEL_INVALID, the model has no chat template, or one that does not compile.
        """
        return self._rows.encode_first_turn(prompt) if self._conversations else self._rows.encode_beginning(prompt)

    def _trained_in_a_turn(self) -> set[int]:
        turns = (Message(role="user", content="a"), Message(role="assistant", content="b"))
        (row,) = self._rows.batch([Conversation(place=RowLocation(file="", line=1), messages=Messages(turns))])
        if isinstance(row, Fault):
            return set()
        return {number for number, trained in zip(row.ids, row.trained, strict=True) if trained}
