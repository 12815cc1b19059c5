"""Applies `dataset.chatTemplate` in place of the model's own chat template."""

from collections.abc import Iterable, Iterator

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.data.examples import Conversation, Example, Preference
from finetune_trainer.data.templates.builtin import template_label, template_source
from finetune_trainer.data.templates.chat import ChatTemplate, require_syntax
from finetune_trainer.data.templates.probe import template_problem
from finetune_trainer.data.tokenization.tokens import Tokenizer, added_texts


def use_chat_template(tokenizer: Tokenizer, chat_template: str | None) -> None:
    """Sets the tokenizer's chat template to `dataset.chatTemplate`. Rows are rendered and the tokenizer saved with it.

    Args:
        tokenizer: the model's tokenizer.
        chat_template: the value of the field; None keeps the model's own template.

    Raises:
        TrainerError: INVALID_SPEC, the template does not compile or does not fit this tokenizer.
    """
    if chat_template is None:
        return
    source = template_source(chat_template)
    try:
        problem = template_problem(ChatTemplate(source, tokenizer.special_tokens_map), added_texts(tokenizer))
    except ValueError as error:
        problem = str(error)
    if problem is not None:
        raise template_refused(chat_template, problem)
    tokenizer.chat_template = source


def check_syntax(chat_template: str | None) -> None:
    """Checks the template's syntax only, because all other checks need the model's tokenizer.

    Raises:
        TrainerError: INVALID_SPEC, the template does not parse.
    """
    if chat_template is None:
        return
    try:
        require_syntax(template_source(chat_template))
    except ValueError as error:
        raise template_refused(chat_template, str(error)) from error


def only_conversations(examples: Iterable[Example], chat_template: str | None) -> Iterator[Example]:
    """The rows, unchanged. If the recipe has a chat template, every row must be a conversation.

    Raises:
        TrainerError: INVALID_SPEC, the recipe has a chat template and a row is not a conversation.
    """
    for example in examples:
        one = example.chosen if isinstance(example, Preference) else example
        if chat_template is not None and not isinstance(one, Conversation):
            raise template_unused(chat_template)
        yield example


def template_unused(chat_template: str) -> TrainerError:
    """The error of a recipe with a template whose rows are not conversations."""
    return TrainerError(
        FailureReason.INVALID_SPEC,
        f"spec.dataset.chatTemplate: {template_label(chat_template)}: the rows are no conversations, and only to those "
        "a chat template is applied; remove the field, or use rows of messages",
    )


def template_refused(chat_template: str, problem: str) -> TrainerError:
    """The error of a recipe whose template cannot be used."""
    label = template_label(chat_template)
    return TrainerError(FailureReason.INVALID_SPEC, f"spec.dataset.chatTemplate: {label}: the template {problem}")
