"""What the Dockerfiles promise. What a running container does is seen in the cluster tests."""

import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from string import Template

import pytest

ROOT = Path(__file__).parents[2]
SHIPPED = ["images/operator/Dockerfile", "images/trainer/Dockerfile"]
PYTHON = [*SHIPPED, "tests/scripted/Dockerfile"]
ALL = [*PYTHON, "tests/s3/Dockerfile"]


@dataclass(frozen=True)
class Instruction:
    stage: int
    word: str
    text: str


class Dockerfile:
    def __init__(self, path: str) -> None:
        self.source = (ROOT / path).read_text()
        self.instructions = list(self._parse())

    def _parse(self) -> Iterator[Instruction]:
        lines = [line for line in self.source.splitlines() if not line.lstrip().startswith("#")]
        stage = -1
        for line in re.sub(r"\\\n", " ", "\n".join(lines)).splitlines():
            word, _, text = line.strip().partition(" ")
            if word == "FROM":
                stage += 1
            if word:
                yield Instruction(stage=stage, word=word, text=re.sub(r"\s+", " ", text))

    @property
    def last_stage(self) -> list[Instruction]:
        last = self.instructions[-1].stage
        return [item for item in self.instructions if item.stage == last]

    def stage(self, name: str) -> list[tuple[str, str]]:
        [number] = [
            item.stage for item in self.instructions if item.word == "FROM" and item.text.endswith(f" AS {name}")
        ]
        return [(item.word, item.text) for item in self.instructions if item.stage == number]

    def only(self, word: str) -> str:
        [found] = [item.text for item in self.last_stage if item.word == word]
        return found

    def environment(self) -> dict[str, str]:
        pairs = " ".join(item.text for item in self.last_stage if item.word == "ENV")
        return dict(pair.split("=", 1) for pair in pairs.split())


@pytest.fixture(params=ALL)
def dockerfile(request: pytest.FixtureRequest) -> Dockerfile:
    return Dockerfile(request.param)


@pytest.fixture(params=PYTHON)
def python(request: pytest.FixtureRequest) -> Dockerfile:
    return Dockerfile(request.param)


@pytest.fixture(params=SHIPPED)
def shipped(request: pytest.FixtureRequest) -> Dockerfile:
    return Dockerfile(request.param)


def test_the_process_is_no_root_and_is_asked_to_end_by_sigterm(dockerfile: Dockerfile) -> None:
    assert dockerfile.only("USER") == "65532:65532", "numeric: runAsNonRoot cannot check a name"
    assert dockerfile.only("STOPSIGNAL") == "SIGTERM"


def test_the_entrypoint_is_python_itself(python: Dockerfile) -> None:
    program, option, module = json.loads(python.only("ENTRYPOINT"))  # a shell form is no JSON
    assert (program, option) == ("python", "-m")
    assert module in ("finetune_operator", "finetune_trainer")


def test_every_stage_takes_its_base_from_the_argument(dockerfile: Dockerfile) -> None:
    first = dockerfile.instructions[0]
    assert (first.word, first.text) == ("ARG", "BASE=python:3.12-slim-bookworm")
    stages = {match[1] for match in re.finditer(r"^FROM \S+ AS (\S+)$", dockerfile.source, re.MULTILINE)}
    for item in dockerfile.instructions:
        if item.word == "FROM":
            assert item.text.split()[0] in {"${BASE}", "scratch", *stages}


def test_nothing_is_installed_without_a_hash(dockerfile: Dockerfile) -> None:
    commands = [
        command
        for item in dockerfile.instructions
        if item.word == "RUN"
        for command in item.text.split("&&")
        if re.search(r"\bpip install\b", command)
    ]
    assert commands
    for command in commands:
        ours = "--offline --no-deps" in command and "/dist/" in command  # the wheel made a line above
        assert "--require-hashes" in command or ours, command


def test_no_tool_of_the_build_gets_into_the_image(dockerfile: Dockerfile) -> None:
    for item in dockerfile.last_stage:
        if item.word == "COPY":
            assert "--from=uv" not in item.text
        assert not re.search(r"/opt/uv(?!/bin/uv,target=)", item.text), item.text


def test_our_code_is_the_last_layer(python: Dockerfile) -> None:
    layers = [item for item in python.last_stage if item.word in ("COPY", "RUN", "ADD")]
    code = [item.word == "COPY" and "/opt/finetune" in item.text for item in layers]
    assert code == sorted(code), "a code change must not make a layer of packages again"
    assert any(code)


def test_the_hub_works_unless_the_job_says_otherwise_and_nothing_phones_home(shipped: Dockerfile) -> None:
    environment = shipped.environment()
    assert not {"HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"} & set(environment)
    assert environment["HF_HUB_DISABLE_TELEMETRY"] == environment["DO_NOT_TRACK"] == "1"


def test_a_read_only_root_is_enough(shipped: Dockerfile) -> None:
    environment = shipped.environment()
    places = {name: value for name, value in environment.items() if name.endswith(("HOME", "TMPDIR", "_DIR"))}
    assert set(places) >= {"HOME", "HF_HOME", "XDG_CACHE_HOME", "TMPDIR"}
    for name, value in places.items():
        assert value.split("/")[1] in ("work", "tmp"), f"{name}={value}"
    assert environment["PYTHONDONTWRITEBYTECODE"] == "1"


def test_a_user_of_the_platforms_choice_can_write(python: Dockerfile) -> None:
    """OpenShift starts containers as a user without a name, whose group is 0."""
    [install] = [item.text for item in python.last_stage if "install --directory" in item.text]
    assert re.search(r"install --directory --owner 65532 --group 0 --mode 0775 /work\b", install)
    assert python.environment()["HOME"] == "/work", "there is no passwd entry to take it from"


def test_bytecode_is_made_at_build_time(shipped: Dockerfile) -> None:
    installs = [
        item
        for item in shipped.instructions
        if item.word == "RUN" and re.search("--python /opt/(venv|trackers)", item.text)
    ]
    assert installs
    for item in installs:
        assert "--compile-bytecode" in item.text
    assert "compileall" in shipped.source


def test_images_say_what_they_are(shipped: Dockerfile) -> None:
    labels = " ".join(item.text for item in shipped.last_stage if item.word == "LABEL")
    for name in ("title", "description", "licenses", "version", "source", "revision"):
        assert f"org.opencontainers.image.{name}=" in labels


def test_the_licences_of_debians_packages_stay(shipped: Dockerfile) -> None:
    for item in shipped.last_stage:
        assert not re.search(r"rm [^&]*/usr/share/doc", item.text)
    removed = [item.text for item in shipped.last_stage if "/usr/share/doc" in item.text]
    assert all("find /usr/share/doc -type f ! -name copyright -delete" in text for text in removed)


def test_the_operators_packages_have_no_torch() -> None:
    names = _packages((ROOT / "requirements/operator.txt").read_text())
    assert {"kopf", "kubernetes", "boto3", "pydantic"} <= names
    assert not {"torch", "transformers", "triton", "numpy"} & names


def test_every_package_of_the_trainer_is_in_one_layer_and_the_large_ones_come_first(tmp_path: Path) -> None:
    dockerfile = Dockerfile("images/trainer/Dockerfile")
    [split] = [item.text for item in dockerfile.instructions if item.word == "RUN" and item.text.startswith("awk")]
    requirements = (ROOT / "requirements/trainer.txt").read_text()
    (tmp_path / "all.txt").write_text(requirements)
    subprocess.run(["sh", "-c", split.replace("/requirements/", f"{tmp_path}/")], check=True)

    groups = {name: (tmp_path / f"{name}.txt").read_text() for name in ("cuda", "torch", "rest")}
    assert "torch" in _packages(groups["torch"])
    assert "nvidia-cublas" in _packages(groups["cuda"])
    assert "transformers" in _packages(groups["rest"])
    assert not [name for name in _packages(groups["rest"]) if name.startswith(("cuda", "nvidia", "torch", "triton"))]
    lines = [line for line in requirements.splitlines() if not line.startswith("#")]
    assert sorted("\n".join(groups.values()).split()) == sorted("\n".join(lines).split())
    copied = [item.text for item in dockerfile.last_stage if item.word == "COPY"]
    assert ["cuda.txt" in copied[0], "torch.txt" in copied[1], "rest.txt" in copied[2]] == [True] * 3


def test_common_stages_are_the_same_in_every_dockerfile() -> None:
    operator, trainer, scripted, s3 = (Dockerfile(path) for path in ALL)
    assert operator.stage("uv") == trainer.stage("uv") == scripted.stage("uv") == s3.stage("uv")
    assert operator.stage("code") == trainer.stage("code")


def _defaults(path: str) -> dict[str, str]:
    """The arguments of a build that have a default."""
    arguments = [item.text for item in Dockerfile(path).instructions if item.word == "ARG" and "=" in item.text]
    return dict(argument.split("=", 1) for argument in arguments)


def test_the_build_context_has_what_the_dockerfiles_copy() -> None:
    ignore = (ROOT / ".dockerignore").read_text().splitlines()
    allowed = [line.removeprefix("!") for line in ignore if line.startswith("!")]
    assert "**/__pycache__" in ignore
    for path in ALL:
        for item in Dockerfile(path).instructions:
            if item.word != "COPY" or "--from=" in item.text:
                continue
            for source in Template(item.text).substitute(_defaults(path)).split()[:-1]:
                assert (ROOT / source).exists(), f"{path}: {source}"
                assert any(Path(source).match(rule) or rule.startswith(f"{source}/") or source.startswith(f"{rule}/")
                           for rule in allowed), f"{path}: {source} is left out by .dockerignore"  # fmt: skip


def test_the_s3_server_is_the_program_alone() -> None:
    stage = Dockerfile("tests/s3/Dockerfile").last_stage
    layers = [item.text for item in stage if item.word in ("FROM", "COPY", "RUN", "ADD")]
    assert layers == ["scratch", "--from=weed /opt/weed/bin/weed /weed"]


def _packages(requirements: str) -> set[str]:
    return {match[1] for match in re.finditer(r"^([a-z0-9][a-z0-9-]*)==", requirements, re.MULTILINE)}


def test_the_trainer_finds_the_driver_where_gke_mounts_it() -> None:
    """A job may not set the variable itself."""
    assert Dockerfile("images/trainer/Dockerfile").environment()["LD_LIBRARY_PATH"] == "/usr/local/nvidia/lib64"


@pytest.mark.parametrize("backend", ["", "cu126"])
def test_another_cuda_comes_from_the_index_that_has_its_wheels(backend: str) -> None:
    installs = [
        item.text
        for item in Dockerfile("images/trainer/Dockerfile").last_stage
        if "uv pip install" in item.text and "--python /opt/venv" in item.text
    ]
    assert len(installs) == 3
    for text in installs:
        [option] = re.findall(r"--require-hashes (.*) --requirement", text)
        command = ["sh", "-c", f"TORCH_BACKEND={backend}; echo {option}"]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        assert said == (f"--torch-backend {backend}" if backend else "")
