"""Loads the model's tokenizer: its ids are those of tokenizer.json.

transformers 5 builds some tokenizers anew by the name of their class. Then the file's normalizer and pre-tokenizer do
not count (transformers#45920, #45812). Preflight, vLLM and transformers 4 take the file as it is. A model that is
served with other ids than it was trained on reads other words.
"""

from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerFast

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.model.load import unusable
from finetune_trainer.runtime.machine_errors import is_machine_error

FILE = "tokenizer.json"


def load_tokenizer(folder: Path, *, remote_code: bool = False) -> Any:
    """The model's tokenizer.

    Args:
        folder: the model's files.
        remote_code: whether code in the folder may run (model.trustRemoteCode).

    Raises:
        TrainerError: MODEL_INVALID, the files are damaged, need code of the model's repository, or give no token
            offsets.
    """
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": remote_code}
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, **options)
        if (folder / FILE).is_file() and tokenizer.is_fast:
            # The class knows special tokens that the files do not name (GPT-2's), the file knows the ids.
            named = {name: token for name, token in tokenizer.special_tokens_map.items() if isinstance(token, str)}
            tokenizer = PreTrainedTokenizerFast.from_pretrained(folder, **options, **named)
    except Exception as error:
        if is_machine_error(error):
            raise
        raise unusable("the model's tokenizer cannot be read", error) from error
    if not tokenizer.is_fast:
        raise TrainerError(
            FailureReason.MODEL_INVALID,
            f"the model's tokenizer ({type(tokenizer).__name__}) gives no token offsets, which the label masks need; "
            "add a tokenizer.json to the model folder",
        )
    return tokenizer
