"""Which files of a Hub data set are read: by its card, by names of files and folders, by a path or a pattern."""

from dataclasses import dataclass, field

import pytest

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.manifest import SourceObject
from finetune_trainer.contract.recipe.dataset import DatasetFormat
from finetune_trainer.contract.uri import parse_uri
from finetune_trainer.inputs.dataset_card import CardError, configs_of
from finetune_trainer.inputs.hub_dataset import HubDataset, Wanted
from finetune_trainer.inputs.path_pattern import matching_paths

pytestmark = pytest.mark.extras

HUB = "hf://datasets/org/name"
SHARDS = ("data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet", "data/test-00000-of-00001.parquet")


def card(configs: str) -> str:
    return f"---\nlicense: mit\n{configs}\n---\n# A data set\n"


THREE = card(
    "configs:\n- {config_name: de, data_files: de.csv}\n- {config_name: en, data_files: [en.csv]}\n"
    "- {config_name: no, data_files: {train: no.csv}}"
)
DEFAULTS = THREE.replace("{config_name: en,", "{config_name: en, default: true,")


@dataclass(frozen=True, kw_only=True)
class Case:
    """A data set, a place in it, and what is read."""

    files: tuple[str, ...]
    reads: tuple[str, ...] = ()
    says: tuple[str, ...] = ()
    reason: FailureReason = FailureReason.DATASET_INVALID
    card: str = ""
    place: str = ""
    split: str = "train"
    chosen: bool = False
    format: DatasetFormat = field(default=DatasetFormat.AUTO)


NOT_FOUND = FailureReason.DATASET_NOT_FOUND
CASES = {
    "push_to_hub": Case(files=SHARDS, reads=SHARDS[:2]),
    "its test split": Case(files=SHARDS, split="test", reads=SHARDS[2:]),
    "a split of its own name": Case(
        files=("data/train-00000-of-00001.parquet", "data/train_sft-00000-of-00001.parquet"),
        split="train_sft",
        reads=("data/train_sft-00000-of-00001.parquet",),
    ),
    "no data beside the rows": Case(
        files=("a.jsonl", "b.jsonl.gz", "requirements.txt", "LICENSE", "dataset_info.json", "pic.png", ".x.jsonl"),
        reads=("a.jsonl", "b.jsonl.gz"),
    ),
    "text alone": Case(files=("a.txt", "b.txt", "README.md"), reads=("a.txt", "b.txt")),
    "names of files": Case(files=("my-train.csv", "my-dev.csv", "Test.csv"), reads=("my-train.csv",)),
    "validation has many names": Case(files=("train.csv", "dev.csv"), split="validation", reads=("dev.csv",)),
    "names of folders": Case(
        files=("train/0.jsonl", "train/test-notes.jsonl", "test/0.jsonl", "more.jsonl"),
        reads=("train/0.jsonl", "train/test-notes.jsonl"),
    ),
    "a folder is a config": Case(files=("de/train.csv", "en/train.csv"), place="de", reads=("de/train.csv",)),
    "folders of years are none": Case(files=("2020/a.csv", "2021/b.csv"), reads=("2020/a.csv", "2021/b.csv")),
    "a file": Case(files=("de/train.csv", "de/test.csv"), place="de/test.csv", reads=("de/test.csv",)),
    "a pattern": Case(
        files=("de/train.csv", "en/train.csv", "README.md"),
        card="---\n[broken\n---",
        place="*/train.csv",
        reads=("de/train.csv", "en/train.csv"),
    ),
    "the format chooses": Case(files=("train.csv", "train.jsonl"), format=DatasetFormat.CSV, reads=("train.csv",)),
    "the only config": Case(
        files=("a.csv", "b.csv"), card=card("configs: [{config_name: x, data_files: b.csv}]"), reads=("b.csv",)
    ),
    "a config by its name": Case(files=("de.csv", "en.csv", "no.csv"), card=THREE, place="no", reads=("no.csv",)),
    "the config that is marked": Case(files=("de.csv", "en.csv", "no.csv"), card=DEFAULTS, reads=("en.csv",)),
    "the config called default": Case(
        files=("de.csv", "en.csv", "no.csv"), card=THREE.replace("de,", "default,"), reads=("de.csv",)
    ),
    "splits of a card, in its order": Case(
        files=("b-1.csv", "a-1.csv", "c.csv"),
        card=card(
            "configs:\n- config_name: x\n  data_files:\n  - {split: train, path: [b-*, a-*, '*-1.csv']}\n"
            "  - {split: test, path: c.csv}"
        ),
        reads=("b-1.csv", "a-1.csv"),
    ),
    "a card's folder": Case(
        files=("one/train.csv", "two/train.csv", "two/dev.csv"),
        card=card("configs: [{config_name: x, data_dir: two}]"),
        reads=("two/train.csv",),
    ),
    "a part of the shards, as the card says": Case(
        files=SHARDS, card=card("configs: [{config_name: x, data_files: data/train-00001*}]"), reads=SHARDS[1:2]
    ),
    "the Parquet conversion": Case(
        files=("default/train/0000.parquet", "default/creative/0000.parquet", "en/train/0000.parquet"),
        split="creative",
        reads=("default/creative/0000.parquet",),
    ),
    "its only config": Case(files=("x/train/0000.parquet", "x/test/0000.parquet"), reads=("x/train/0000.parquet",)),
    "no default": Case(
        files=("de.csv", "en.csv", "no.csv"),
        card=THREE,
        says=("3 configs and no default: de, en, no", f"for example {HUB}/de"),
    ),
    "no such config": Case(
        files=("de.csv",), card=THREE, place="fr", reason=NOT_FOUND, says=("file fr", "the configs de, en, no")
    ),
    "no such split": Case(
        files=SHARDS, split="validation", reason=NOT_FOUND, says=("no split validation", "test, train", "dataset.split")
    ),
    "several folders": Case(
        files=("x/de/train.csv", "x/en/train.csv"), says=("2 folders", "x/de, x/en", f"({HUB}/x/de)", "dataset.uris")
    ),
    "two formats": Case(files=("train.csv", "train.jsonl"), says=("several formats (train.csv, train.jsonl)",)),
    "a shard is missing": Case(files=SHARDS[1:], says=("lacks files", "data/train-00000-of-00002.parquet")),
    "half a conversion": Case(
        files=("default/partial-train/0000.parquet",), says=("only a part", "dataset.split to partial-train")
    ),
    "a loading script": Case(
        files=("name.py", "dataset_infos.json"),
        reason=NOT_FOUND,
        says=("loading script (name.py)", "never run", "dataset.revision to refs/convert/parquet"),
    ),
    "an archive": Case(files=("data.zip",), reason=NOT_FOUND, says=("only data.zip", "none of jsonl")),
    "nothing": Case(files=(".gitattributes",), reason=NOT_FOUND, says=("no files of rows",)),
    "a broken card": Case(
        files=("a.csv",),
        card="---\na: b\nconfigs: [x\n---\n",
        says=("README.md: the YAML", "in line 4", "data/train-*"),
    ),
    "a card without names": Case(
        files=("a.csv",), card=card("configs: [{data_files: a.csv}]"), says=("configs[0] has no config_name",)
    ),
    "a card that leads out": Case(
        files=("a.csv",),
        card=card("configs: [{config_name: x, data_files: 'https://example.com/a.csv'}]"),
        says=("takes data from https://example.com/a.csv, outside",),
    ),
    "a card that climbs": Case(
        files=("a.csv", "../a.csv"),
        card=card("configs: [{config_name: x, data_files: '../*.csv'}]"),
        reason=NOT_FOUND,
        says=("no file matches the data_files of the config x, split train: ../*.csv",),
    ),
    "no file matches": Case(files=("de/a.csv",), place="*.jsonl", reason=NOT_FOUND, says=("*.jsonl; there are de",)),
    "a split of a file": Case(
        files=("a.csv",),
        place="a.csv",
        chosen=True,
        reason=FailureReason.INVALID_SPEC,
        says=("dataset.split: train", "have no splits"),
    ),
}


def select(case: Case) -> list[str]:
    files = [*case.files, *(["README.md"] if case.card else [])]
    listed = [SourceObject(uri=f"{HUB}/{name}", size=1) for name in sorted(files)]
    dataset = HubDataset.of(parse_uri(HUB), listed, lambda _: case.card.encode())
    wanted = Wanted(split=case.split, chosen=case.chosen, field="dataset.split", format=case.format)
    place = parse_uri(f"{HUB}/{case.place}")
    return [item.uri.removeprefix(f"{HUB}/") for item in dataset.select(place, wanted)]


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.reads])
def test_the_rows_of_a_split_are_found(name: str) -> None:
    assert select(CASES[name]) == list(CASES[name].reads)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.says])
def test_what_a_data_set_leaves_open_is_asked_back(name: str) -> None:
    case = CASES[name]
    with pytest.raises(TrainerError) as raised:
        select(case)
    assert raised.value.reason is case.reason
    assert [words for words in case.says if words not in raised.value.message] == [], raised.value.message


@pytest.mark.parametrize(
    ("pattern", "matches"),
    [
        ("*.csv", ["a.csv"]),
        ("./x/*", ["x/a.csv"]),
        ("**", ["a.csv", "x/a.csv", "x/y/b.csv"]),
        ("x/**", ["x/a.csv", "x/y/b.csv"]),
        ("**/a.csv", ["a.csv", "x/a.csv"]),
        ("**.csv", ["a.csv", "x/a.csv", "x/y/b.csv"]),
        ("x/**/[!a].csv", ["x/y/b.csv"]),
        ("x/?.csv", ["x/a.csv"]),
        ("x", []),
    ],
)
def test_patterns_match_segment_by_segment(pattern: str, matches: list[str]) -> None:
    assert matching_paths(pattern, ["a.csv", "x/a.csv", "x/y/b.csv"]) == matches


def test_a_hostile_pattern_takes_no_time() -> None:
    path = "/".join(["a" * 100] * 100)
    assert matching_paths("/".join(["**", "*a" * 50 + "b"] * 50), [path]) == []


def test_a_card_stands_for_no_endless_list() -> None:
    splits = ", ".join(f"s{number}: *x" for number in range(1000))
    text = card(f"x: &x [{', '.join(['a'] * 100)}]\nconfigs:\n- {{config_name: c, data_files: {{{splits}}}}}")
    with pytest.raises(CardError, match="more than 50,000 data_files"):
        configs_of(text.encode())
    with pytest.raises(CardError, match="cannot be read"):
        configs_of(card("configs: " + "[" * 5000).encode())
