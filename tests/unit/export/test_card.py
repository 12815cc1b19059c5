"""The model card says what happened, loads by its own snippet, and takes nothing from the data for markup."""

import ast
import html
import re

import pytest
import yaml
from markdown_it import MarkdownIt

from finetune_trainer.contract.manifest import SourceObject
from finetune_trainer.contract.text import CONTROL, printable
from finetune_trainer.contract.uri import Scheme, Uri
from finetune_trainer.data.tokenization.tokens import TokenCounts
from finetune_trainer.export.base_model import base_licence, licence_in, loading_code
from finetune_trainer.export.card import code, model_card
from finetune_trainer.storage.local import LocalStore
from unit.export.runs import facts

pytestmark = pytest.mark.extras


def _front_matter(card: str) -> dict[str, object]:
    found: dict[str, object] = yaml.safe_load(card.split("---\n")[1])
    return found


def test_hub_model_is_named_as_the_hub_reads_it() -> None:
    card = model_card(facts(recipe={"model": {"uri": "hf://org/base"}}, base_revision="c0ffee", base_licence="mit"))

    front = _front_matter(card)
    assert (front["base_model"], front["license"], front["library_name"]) == ("org/base", "mit", "peft")
    assert "at commit `c0ffee`" in card
    assert 'from_pretrained("org/base", revision="c0ffee")' in card


def test_what_was_asked_and_what_came_out() -> None:
    card = model_card(facts(recipe={"lora": {"rank": 64}, "training": {"learningRate": "1e-4", "batchSize": 16}}))

    for row in (
        "| lora.rank | `64` |",
        "| training.learningRate | `1e-4` |",
        "| training.batchSize | `16` |",
        "| model.quantization.type | `nf4` |",
        "| model.quantization.doubleQuant | `true` |",
        "| layers | `k_proj, q_proj` |",
        "| tokens that count in the loss | 4,000 |",
        "| lowest validation loss | 2.5 (step 2) |",
        "| torch | `2.13.0` |",
        "- `s3://data/train.jsonl`, 1,234 bytes, etag `abc`",
    ):
        assert row in card.splitlines(), row
    assert "7 of 100 rows were longer than dataset.maxLength" in card
    assert "10 rows were left out" in card
    assert "lowest after step 2" in card
    assert "(loss.svg)" in card


@pytest.mark.parametrize(
    ("base", "first", "loads"),
    [
        ("org/base", "", "org/base"),
        ("/models/base", "", "/models/base"),
        ("s3://models/base/llama", "# first: aws s3 cp --recursive s3://models/base/llama/ llama/", "llama"),
        ("pvc://shared/llama", "# the base model is on the claim shared: mount it, at /mnt for example", "/mnt/llama"),
        ('s3://models/a b/"x"', "# first: aws s3 cp --recursive 's3://models/a b/\"x\"/' '\"x\"/'", '"x"'),
    ],
)
def test_snippet_names_what_from_pretrained_can_load(base: str, first: str, loads: str) -> None:
    snippet = loading_code(base, "adapter")

    assert snippet.partition("\n")[0].startswith("#") is bool(first)
    assert snippet.startswith(first)
    loaded = [node.args for node in ast.walk(ast.parse(snippet)) if isinstance(node, ast.Call)]
    assert loads in [ast.literal_eval(item) for item in [args[0] for args in loaded] if isinstance(item, ast.Constant)]


def test_model_with_code_of_its_own_is_loaded_with_it() -> None:
    card = model_card(facts(recipe={"model": {"uri": "hf://org/base", "trustRemoteCode": True}}))

    assert 'from_pretrained("org/base", trust_remote_code=True)' in card


def test_what_happened_on_the_way_is_told() -> None:
    counts = TokenCounts(rows=9, duplicates=3)
    card = model_card(facts(counts=counts, resumed_from_step=40, smaller_micro_batch_tokens=4096, history=[]))

    notes = [line for line in card.splitlines() if line.startswith("> **Note:**")]
    assert ["3 rows repeat" in notes[0], "step 40" in notes[1], "at most 4096 tokens" in notes[2]] == [True] * 3
    assert "loss.svg" not in card


HOSTILE = [
    "a|b`` ](x) <img src=x>\n# heading",
    "a\\|<img src=x>|[x](http://evil)",
    "`|`<script>alert(1)</script>",
    "\n---\nlicense: evil\n---\n# heading",
    "https://evil.example **bold** [x](http://evil) <b>",
    "\x1b]0;evil\x07\u202e\u2066\x9b2J",
    "```\n~~~\n<img src=x>",
    "| | |\n|---|---|\n",
    " ",
    "no",
]


def _elements(card: str) -> list[str]:
    """Tags of the card as HTML, but code, of which hostile text may be another kind; and the front matter's keys."""
    front, body = card.removeprefix("---\n").split("---\n", 1)
    rendered = MarkdownIt("commonmark", {"html": True}).enable("table").render(body)
    return [
        *yaml.safe_load(front),
        *(tag for tag in re.findall(r"<(/?[a-z]+\d?)", rendered) if tag.strip("/") != "code"),
    ]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_names_stay_text(text: str) -> None:
    def card(text: str) -> str:
        return model_card(
            facts(
                recipe={"model": {"uri": "hf://org/base"}},
                base_revision=text,
                base_licence=text,
                dataset=[SourceObject(uri=text, size=1, etag=text)],
                target_modules=[text],
                device=text,
                versions={"torch": text},
            )
        )

    assert _elements(card(text)) == _elements(card("plain"))
    assert not CONTROL.search(card(text).replace("\n", ""))
    front = _front_matter(card(text))
    assert front["license"] == printable(text)


@pytest.mark.parametrize("text", HOSTILE)
def test_code_shows_the_text(text: str) -> None:
    rendered = MarkdownIt("commonmark").enable("table").render(f"| | |\n|---|---|\n| a | {code(text)} |")
    if "<code>" not in code(text):
        shown = re.search("<code>(.*)</code>", rendered)
        assert shown is not None
        assert html.unescape(shown[1]).strip() == printable(" ".join(text.split()))
    assert rendered.count("<td>") == 2


def test_snippet_is_one_literal_whatever_the_name() -> None:
    name = 'a"\n\u202e\x7f```'
    snippet = loading_code(name, "adapter")
    assert not CONTROL.search(snippet.replace("\n", ""))
    assert name in [node.value for node in ast.walk(ast.parse(snippet)) if isinstance(node, ast.Constant)]


def test_licence_comes_from_the_front_matter_of_the_base_models_card(tmp_path: object) -> None:
    assert licence_in("---\nlanguage: en\nlicense: apache-2.0\n---\n# x") == "apache-2.0"
    assert licence_in('\ufeff---\r\nlicense: "mit"\r\n---\r\n') == "mit"
    assert licence_in("# x\nlicense: mit\n") is None
    assert licence_in("---\nlicense: [a, b]\n---\n") is None
    assert licence_in("---\nlicense: <script>\n---\n") is None
    assert licence_in("---\nlicense: mit\n") is None, "the front matter has no end"


def test_base_model_without_a_card_has_no_licence(tmp_path: object) -> None:
    def store(_: Uri) -> LocalStore:
        return LocalStore(tmp_path)  # type: ignore[arg-type]

    assert base_licence(Uri(scheme=Scheme.FILE, authority="", path=str(tmp_path)), store) is None


def test_it_is_told_that_the_best_adapter_is_not_the_last() -> None:
    card = model_card(facts(metrics={"loss": 1.0, "steps": 4.0, "eval_loss": 2.5, "eval_step": 2.0}))

    assert (
        "The adapter is that of step 2, whose validation loss was the lowest; the training went on to step 4." in card
    )
    assert "fits its own rows" not in card
    assert "| eval_loss | 2.5 |" in card
