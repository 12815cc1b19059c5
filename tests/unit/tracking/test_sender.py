"""What a tracker is told, and what happens while it does not answer."""

from collections.abc import Mapping

import pytest

from finetune_trainer.tracking.clients import grouped
from finetune_trainer.tracking.messages import (
    Begin,
    End,
    Message,
    Metrics,
    RunStatus,
    TrackerKind,
    flattened,
    from_line,
    numbers,
    to_line,
)
from finetune_trainer.tracking.sender import RETRY_SECONDS, Sender

RUN = Begin(tracker=TrackerKind.MLFLOW, experiment="team", name="job", run="0a1b", parameters={"lora.rank": "16"})


class Server:
    """A tracker's client whose server can be down."""

    def __init__(self) -> None:
        self.down, self.sent, self.begun, self.ended = False, [], 0, None
        self.missing = False

    sent: list[int]
    ended: RunStatus | None

    def _answer(self) -> None:
        if self.missing:
            raise ModuleNotFoundError("No module named 'mlflow'", name="mlflow")
        if self.down:
            raise ConnectionError("connection refused\nand a long traceback")

    def begin(self, run: Begin) -> str:
        self._answer()
        self.begun += 1
        return f"run {run.run}"

    def log(self, step: int, values: Mapping[str, float]) -> None:
        del values
        self._answer()
        self.sent.append(step)

    def end(self, status: RunStatus) -> None:
        self._answer()
        self.ended = status


class World:
    """A sender with its server, clock and log."""

    def __init__(self) -> None:
        self.server, self.now = Server(), 0.0
        self.said: list[str] = []
        self.warnings = 0
        self.sender = Sender(self.server, RUN, lambda: self.now, self._say)

    def _say(self, message: str, *, warning: bool = False) -> None:
        self.said.append(message)
        self.warnings += warning

    def step(self, number: int) -> None:
        self.sender.add(Metrics(step=number, values={"loss": 1.0}))


def test_all_is_sent_in_order() -> None:
    world = World()
    world.step(1)
    world.step(2)
    world.sender.end(RunStatus.FINISHED)

    assert (world.server.sent, world.server.begun, world.server.ended) == ([1, 2], 1, RunStatus.FINISHED)
    assert (world.said, world.warnings) == (["sending to mlflow, run 0a1b"], 0)


@pytest.mark.parametrize("first", [1, 2], ids=["down from the beginning", "down later"])
def test_what_a_tracker_missed_is_sent_when_it_answers_again(first: int) -> None:
    world = World()
    for number in range(1, 6):
        world.server.down = first <= number < 5
        world.now += RETRY_SECONDS
        world.step(number)

    assert world.server.sent == [1, 2, 3, 4, 5]
    assert world.server.begun == 1
    assert world.said[-1] == "answers again; nothing is lost"
    failures = [line for line in world.said if "does not answer" in line]
    assert failures == ["does not answer, is asked again every 30 s: ConnectionError: connection refused"]


def test_a_tracker_that_does_not_answer_is_not_asked_at_every_step() -> None:
    world = World()
    world.server.down = True
    world.step(1)
    world.server.down = False
    world.step(2)

    assert world.server.sent == []
    world.now += RETRY_SECONDS
    world.step(3)
    assert world.server.sent == [1, 2, 3]


def test_what_never_was_sent_is_said_at_the_end() -> None:
    world = World()
    world.server.down = True
    world.step(1)
    world.step(2)
    world.sender.end(RunStatus.KILLED)

    assert (world.said[-1], world.warnings) == ("2 entries were not sent", 2)
    assert world.server.ended is None


def test_a_package_that_is_missing_is_said_once() -> None:
    world = World()
    world.server.missing = True
    world.step(1)
    world.now += RETRY_SECONDS
    world.step(2)
    world.sender.end(RunStatus.FINISHED)

    assert world.said == ["not sent: mlflow: install finetune-operator[trackers]"]


@pytest.mark.parametrize("message", [RUN, Metrics(step=3, values={"loss": 0.5}), End(status=RunStatus.FAILED)])
def test_messages_survive_the_pipe(message: Message) -> None:
    line = to_line(message)

    assert line.count("\n") == 1
    assert from_line(line) == message


def test_only_finite_numbers_are_sent() -> None:
    logs = {"loss": 1, "eval_loss": float("nan"), "grad_norm": float("inf"), "text": "a", "flag": True}

    assert numbers(logs) == {"loss": 1.0}


def test_settings_are_flat_and_short() -> None:
    found = flattened({"lora": {"rank": 16, "targetModules": ["q_proj"]}, "dataset": {"chatTemplate": "x" * 1000}})

    assert found == {
        "lora.rank": "16",
        "lora.targetModules": '["q_proj"]',
        "dataset.chatTemplate": "x" * 250,
    }


def test_names_are_those_of_transformers() -> None:
    assert grouped(4, {"loss": 1.0, "eval_loss": 2.0}) == {
        "train/loss": 1.0,
        "eval/loss": 2.0,
        "train/global_step": 4.0,
    }
