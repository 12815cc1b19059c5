"""Models and data of the trainer's benchmark: a real small model with real chats, or random weights and tokens."""

from importlib.resources import files
from pathlib import Path
from typing import Any

LLAMA_SHAPES: dict[str, dict[str, Any]] = {
    "tiny": {
        "vocab_size": 352,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "tie_word_embeddings": False,
    },
    "135m": {
        "vocab_size": 49152,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "tie_word_embeddings": True,
    },
    "8b": {
        "vocab_size": 128256,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "tie_word_embeddings": False,
    },
}
SHAPES = ("smollm2", *LLAMA_SHAPES)
"""`smollm2` is SmolLM2-135M-Instruct itself; the others are shapes of Llama's architecture, their weights random: speed
does not depend on what stands in them. They need no file and no package besides the trainer's. `tiny` is for a try.
"""


def random_rows(rows: int, length: int, vocabulary: int) -> list[list[int]]:
    """Returns rows of random token ids, the longest of `length` tokens and the shortest a tenth shorter.

    Lengths differ so that no two micro-batches are alike, as with real rows.
    """
    import torch

    generator = torch.Generator().manual_seed(1)
    lengths = [length - length * (number % 13) // 120 for number in range(rows)]
    return [torch.randint(3, vocabulary, (tokens,), generator=generator).tolist() for tokens in lengths]


def random_model(shape: str, device: str, *, ours: bool, attention: str | None, tokenizer: Path) -> tuple[Any, Any]:
    """Returns a quantised model with random weights, made on the device, and a tokenizer that is made for it.

    Args:
        shape: a name of `LLAMA_SHAPES`.
        device: `cpu` or `cuda`.
        ours: whether our trainer trains it; otherwise it has SDPA.
        attention: our recipe's `model.attention`; None is auto.
        tokenizer: the folder where the tokenizer is written.
    """
    import torch

    from finetune_trainer.model.tokenizer import load_tokenizer
    from trainer.tiny_model import make_tiny_model

    make_tiny_model(tokenizer)
    loaded = load_tokenizer(tokenizer)
    loaded.pad_token = loaded.pad_token or loaded.eos_token
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    return _random(shape, device, dtype, attention if ours else "sdpa"), loaded


def conversations(rows: int) -> list[dict[str, Any]]:
    """Returns real questions and answers of the whole English ChatterBot corpus in a fixed order, with topics mixed.

    Most rows are short. When the corpus ends, it begins again.
    """
    from demo.smollm2 import chatterbot_rows

    folder = files("chatterbot_corpus").joinpath("data", "english")
    topics = sorted(path.name.removesuffix(".yml") for path in folder.iterdir())
    corpus = chatterbot_rows(topics)
    # 761 and the number of rows have no common factor, so that every row is taken once.
    return [corpus[(index * 761) % len(corpus)] for index in range(rows)]


def load_model(device: str, *, ours: bool, attention: str | None) -> tuple[Any, Any]:
    """Returns SmolLM2, quantised (NF4 with double quantisation), and its tokenizer.

    Args:
        device: `cpu` or `cuda`.
        ours: True loads as our trainer does, False as transformers' documentation says.
        attention: our recipe's `model.attention`; None is auto.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

    from demo.smollm2 import prepare_smollm2
    from finetune_trainer.contract.recipe import ModelSpec
    from finetune_trainer.model.load import load_base

    folder = prepare_smollm2()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    if ours:
        spec = ModelSpec.model_validate({"uri": f"file://{folder}", "attention": attention or "auto"})
        return load_base(folder, spec, dtype), tokenizer
    quantised = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
    return AutoModelForCausalLM.from_pretrained(folder, quantization_config=quantised, dtype=dtype), tokenizer


def _random(shape: str, device: str, dtype: Any, attention: str | None) -> Any:
    """Returns a model with random weights, which are quantised in memory. No file of its size is read or written."""
    import torch
    from bitsandbytes.nn import Linear4bit, Params4bit
    from transformers import AutoModelForCausalLM, LlamaConfig

    from finetune_trainer.model.attention import NAME, register_varlen

    register_varlen()
    name = {None: NAME, "auto": NAME, "varlen": NAME}.get(attention, attention)
    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(
            LlamaConfig(**LLAMA_SHAPES[shape], max_position_embeddings=8192), dtype=dtype, attn_implementation=name
        )
    head = model.get_output_embeddings()
    linear = [(key, part) for key, part in model.named_modules() if type(part) is torch.nn.Linear and part is not head]
    for key, part in linear:
        packed = Linear4bit(
            part.in_features, part.out_features, bias=False, compute_dtype=dtype, quant_type="nf4", device="meta"
        )
        weight = Params4bit(part.weight.data, requires_grad=False, compress_statistics=True, quant_type="nf4")
        packed.weight = weight
        packed.support_avx512bf16_for_cpu = False
        model.set_submodule(key, packed.to(device))
    # PEFT reads this attribute to choose the class of its layers.
    model.is_loaded_in_4bit = True
    for parameter in model.parameters():
        parameter.requires_grad = False
    return model


def matrix_parameters(model: Any) -> int:
    """Returns the number of parameters of the linear layers and the head.

    A trained token needs 4 floating point operations for each of them.
    """
    from bitsandbytes.nn import Linear4bit
    from torch.nn import Linear

    linear = [part for part in model.modules() if isinstance(part, (Linear, Linear4bit))]
    return sum(part.in_features * part.out_features for part in linear)


def model_folder() -> Path:
    """Returns the folder of the real model. Converts the model first if needed."""
    from demo.smollm2 import prepare_smollm2

    return prepare_smollm2()
