"""What the pages say is so: links lead somewhere, jobs are valid, commands exist, rights are those of the manifests."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from typer.core import TyperGroup

from finetune_operator.api.finetunejob import parse_spec
from finetune_operator.cli.app import application
from finetune_operator.reconcile.allowlist import ANNOTATIONS, ENVIRONMENT

ROOT = Path(__file__).parents[2]
_NOT_OURS = {"build", "node_modules"}
PAGES = sorted(
    page
    for page in ROOT.rglob("*.md")
    if not any(part.startswith(".venv") or part in _NOT_OURS for part in page.relative_to(ROOT).parts)
)
TEXTS = {str(page.relative_to(ROOT)): page.read_text(encoding="utf-8") for page in PAGES}
FOR_USERS = sorted(
    name
    for name in TEXTS
    if re.fullmatch(r"README\.md|SECURITY\.md|CHANGELOG\.md|docs/[a-z0-9-]+\.md", name)
    and name not in {"docs/architecture.md", "docs/testing.md", "docs/releasing.md", "docs/benchmarks.md"}
)
_FENCE = re.compile(r"^( *)```.*?^\1```$", re.DOTALL | re.MULTILINE)
RIGHTS = [
    ROOT / "manifests/rbac" / name for name in ("operator-role.yaml", "cluster-profiles-role.yaml", "lease-role.yaml")
]


def prose(text: str) -> str:
    """A page without its blocks of code and its `code`, where brackets are no links and `#` begins no heading."""
    return re.sub(r"`[^`\n]*`", "``", _FENCE.sub("", text))


def links(text: str) -> list[str]:
    """The targets of the links and pictures of a page, that of `[label]: target` lines too."""
    text = prose(text)
    return re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r"^\[[^\]]+\]: +(\S+)", text, re.MULTILINE)


def anchors(text: str) -> set[str]:
    """The anchors that a page's headings have, by the rule of Git hosts."""
    found: set[str] = set()
    for line in re.findall(r"^#+ (.+?)#*$", _FENCE.sub("", text), re.MULTILINE):
        name = re.sub(r"[^\w -]", "", line.strip().lower()).replace(" ", "-")
        count = sum(1 for other in found if re.fullmatch(rf"{re.escape(name)}(-[0-9]+)?", other))
        found.add(f"{name}-{count}" if count else name)
    return found


def jobs() -> list[tuple[str, dict[str, Any]]]:
    found = []
    for name, text in TEXTS.items():
        for block in re.findall(r"^```yaml\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
            found += [(name, item) for item in yaml.safe_load_all(block) if item and item.get("kind") == "FineTuneJob"]
    return found


def test_the_reader_of_links_sees_what_a_host_makes_of_a_page() -> None:
    page = "# A `b.c` d\n\n## Same\n\n## Same\n\n```\n# none\n[x](none)\n```\n\n`[x](none)` ![p](p.png) [a](b.md#c)\n"
    assert anchors(page) == {"a-bc-d", "same", "same-1"}
    assert links(page) == ["p.png", "b.md#c"]


@pytest.mark.parametrize("name", TEXTS)
def test_every_link_leads_somewhere(name: str) -> None:
    for link in links(TEXTS[name]):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / name).parent / path if path else ROOT / name
        assert target.exists(), f"{name}: {link}"
        if anchor:
            assert anchor in anchors(target.read_text(encoding="utf-8")), f"{name}: {link}"


def test_the_words_of_the_glossary_are_in_order() -> None:
    for section in TEXTS["docs/glossary.md"].split("\n## ")[1:]:
        words = [row.partition(" | ")[0].lower() for row in section.splitlines() if row.startswith("| ")][1:]
        assert words == sorted(words)
        assert len(words) == len(set(words))


def test_the_index_leads_to_every_page() -> None:
    listed = {link.partition("#")[0] for link in links(TEXTS["docs/README.md"])}
    pages = {page.name for page in (ROOT / "docs").glob("*.md")} - {"README.md"}
    assert pages - listed == set()


def test_every_decision_is_in_their_index_and_has_all_parts() -> None:
    records = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "docs/adr").glob("[0-9]*.md")}
    assert set(links(TEXTS["docs/adr/README.md"])) >= set(records)
    for name, text in records.items():
        parts = ["Context", "Decision", "Consequences", "Alternatives rejected"]
        assert re.findall(r"^## (.+)$", text, re.MULTILINE) == parts, name
        assert len(text.splitlines()) < 60, name


def packages() -> set[str]:
    """The packages of operator and trainer, by their folders: `trainer/finetune_trainer/data/templates/`."""
    found = (path for top in ("operator", "trainer") for path in (ROOT / top).glob("*/**/__init__.py"))
    return {f"{path.parent.relative_to(ROOT)}/" for path in found}


def listed_packages() -> set[str]:
    """The packages in the tree of docs/architecture.md, whose indentation says what lies in what."""
    tree = TEXTS["docs/architecture.md"].partition("\n## Parts\n")[2].partition("```\n")[2].partition("```")[0]
    found: set[str] = set()
    above: list[str] = []
    for indent, name in re.findall(r"^((?:  )*)([\w/]+/)(?= |$)", tree, re.MULTILINE):
        above[len(indent) // 2 :] = [name]
        found.add("".join(above))
    return found


def test_every_package_is_in_the_architecture_and_in_its_picture() -> None:
    assert listed_packages() == packages()
    [picture] = re.findall(r"^```mermaid\n(.*?)^```", TEXTS["docs/architecture.md"], re.DOTALL | re.MULTILINE)
    drawn = set(re.findall(r'\["([\w/]+/)"\]', picture))
    assert drawn == {name.split("/", 2)[2] for name in packages()} - {""}


def test_every_job_is_valid() -> None:
    found = jobs()
    assert {name for name, _ in found} >= {"README.md", "docs/writing-a-job.md"}
    for name, job in found:
        parse_spec(job["spec"], local=name == "docs/local.md")


def test_every_make_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for name, text in TEXTS.items():
        named = set(re.findall(r"^make ([a-z-]+)", text, re.MULTILINE)) | set(re.findall(r"`make ([a-z-]+)", text))
        assert named <= targets, name


def test_the_rights_in_the_documentation_are_those_of_the_manifests() -> None:
    granted = {
        (tuple(rule["apiGroups"]), tuple(rule["resources"]), tuple(rule["verbs"]))
        for file in RIGHTS
        for role in yaml.safe_load_all(file.read_text(encoding="utf-8"))
        for rule in role.get("rules", ())
    }
    section = TEXTS["docs/install.md"].partition("\n## Rights\n")[2].partition("\n**What a stolen")[0]
    rows = [row.strip("| ").split(" | ")[:3] for row in re.findall(r"^\|.*\|$", section, re.MULTILINE)[2:]]
    documented = {
        (
            tuple("" if group == "core" else group.strip("`") for group in groups.split(", ")),
            tuple(resource.strip("`") for resource in resources.split(", ")),
            tuple(verbs.split(", ")),
        )
        for groups, resources, verbs in rows
    }
    assert documented == granted


def test_the_users_rights_in_the_documentation_are_those_of_the_manifests() -> None:
    text = (ROOT / "manifests/rbac/user-roles.yaml").read_text(encoding="utf-8")
    for role in yaml.safe_load_all(text):
        into = [key.rpartition("-to-")[2] for key in role["metadata"]["labels"] if "aggregate-to" in key]
        (rule,) = role["rules"]
        cells = [f"`{role['metadata']['name']}`", ", ".join(f"`{name}`" for name in into)]
        cells += [", ".join(f"`{name}`" for name in rule["resources"]), ", ".join(rule["verbs"])]
        assert f"| {' | '.join(cells)} |" in TEXTS["docs/install.md"]


def test_no_page_installs_a_package_that_is_not_published() -> None:
    """Nothing is on a package index: whoever ran such a line would get a stranger's package, or none."""
    for name, text in TEXTS.items():
        assert not re.search(r"pip install [^\n]*finetune[-_]operator", text), name


@pytest.mark.parametrize("name", FOR_USERS)
def test_pages_for_users_name_no_module(name: str) -> None:
    assert re.findall(r"\b[\w/]+\.py\b|\bfinetune_(?:trainer|operator)\.\w+", TEXTS[name]) == []


def test_the_settings_in_the_documentation_are_those_that_are_read() -> None:
    code = (ROOT / "operator/finetune_operator/config.py").read_text(encoding="utf-8")
    section = TEXTS["docs/install.md"].partition("\n## The operator's settings\n")[2]
    rows = "\n".join(re.findall(r"^\|[^|]*\|", section, re.MULTILINE))
    assert set(re.findall(r"FINETUNE_[A-Z_]+", rows)) == set(re.findall(r'"(FINETUNE_[A-Z_]+)"', code))


def test_the_names_that_jobs_may_set_are_those_of_the_code() -> None:
    section = (
        TEXTS["docs/security.md"].partition("\n### Environment variables and annotations\n")[2].partition("\n### ")[0]
    )
    cells = "\n".join(row.split(" | ")[1] for row in re.findall(r"^\|.*\|$", section, re.MULTILINE)[2:])
    assert set(re.findall(r"`([^`]+)`", cells)) == {*ENVIRONMENT.patterns, *ANNOTATIONS.patterns}


def test_the_values_in_the_documentation_are_the_charts() -> None:
    values = yaml.safe_load((ROOT / "helm/finetune-operator/values.yaml").read_text(encoding="utf-8"))
    section = TEXTS["docs/install.md"].partition("\n| value | default | meaning |\n")[2].partition("\n\n")[0]
    named = [name for row in section.splitlines()[1:] for name in re.findall(r"`([\w.]+)`", row.split(" | ")[0])]
    assert len(named) > 5
    for name in named:
        value: Any = values
        for key in (f"images.operator{name}" if name.startswith(".") else name).split("."):
            assert key in value, name
            value = value[key]


def refusal_of(words: list[str]) -> str:
    """Why `finetune` does not understand these words; empty when it does. Nothing is run."""
    command: Any = application()
    name: str | None = "finetune"
    context = None
    try:
        while True:
            context = command.make_context(name, words, parent=context)
            if not isinstance(command, TyperGroup):
                return ""
            name, command, words = command.resolve_command(context, [*context._protected_args, *context.args])
            if command.hidden:
                return f"{name} has moved"
    except typer.TyperException as error:
        return error.format_message()


def test_every_command_line_that_is_shown_is_understood() -> None:
    shown = [
        line
        for text in TEXTS.values()
        for block in _FENCE.finditer(text)
        for line in re.findall(r"^(?:\$ )?(?:\S*/)?((?:kubectl )?finetune [a-z].*)$", block[0], re.MULTILINE)
    ]
    assert len(shown) > 5
    for line in shown:
        assert refusal_of(shlex.split(line.removeprefix("kubectl "), comments=True)[1:]) == "", line
