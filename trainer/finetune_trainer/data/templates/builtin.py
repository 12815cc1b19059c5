"""The built-in templates by name. Their names are in `contract.recipe.dataset`; their texts are in this folder."""

from importlib.resources import files

from finetune_trainer.contract.recipe.dataset import CHAT_TEMPLATES


def template_source(chat_template: str) -> str:
    """The Jinja text of `dataset.chatTemplate`, which is the name of a built-in template or the text itself."""
    if chat_template not in CHAT_TEMPLATES:
        return chat_template
    return files(__package__).joinpath(f"{chat_template}.jinja").read_text(encoding="utf-8")


def template_label(chat_template: str) -> str:
    """`dataset.chatTemplate` for messages: the name of a built-in template, or `inline` for a text in the recipe."""
    return chat_template if chat_template in CHAT_TEMPLATES else "inline"
