"""The queue: deduplicating, one worker a key, fair, delayed, backed off. Time is a number that the test moves."""

import asyncio

import pytest

from finetune_operator.control.work_queue import QueueClosed, WorkQueue


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def a_queue(clock: Clock, random: float = 0.0) -> WorkQueue[str]:
    return WorkQueue(clock=clock, random=lambda: random)


def drained(queue: WorkQueue[str]) -> list[str]:
    taken = []
    while (key := queue.get_nowait()) is not None:
        taken.append(key)
    return taken


def test_a_key_that_is_added_many_times_is_taken_once(clock: Clock) -> None:
    queue = a_queue(clock)
    for _ in range(50):
        queue.add("a")
    assert drained(queue) == ["a"]


def test_first_come_first_served(clock: Clock) -> None:
    queue = a_queue(clock)
    for key in "abca":
        queue.add(key)
    assert drained(queue) == ["a", "b", "c"]


def test_high_priority_goes_first_but_every_fourth_key_is_another(clock: Clock) -> None:
    queue = a_queue(clock)
    for key in "xyz":
        queue.add(key)
    for key in "abcdefg":
        queue.add(key, high_priority=True)
    queue.add("x", high_priority=True)  # it waits already
    queue.add("g")
    assert len(queue) == 10
    assert drained(queue) == list("abcxdefygz")


def test_a_key_of_high_priority_that_is_not_taken_is_stuck(clock: Clock) -> None:
    queue = a_queue(clock)
    queue.add("a", high_priority=True)
    clock.now += 7
    assert queue.stuck_seconds() == 7


def test_a_key_that_is_added_again_waits_behind_the_others(clock: Clock) -> None:
    queue = a_queue(clock)
    queue.add("busy")
    queue.add("patient")
    assert queue.get_nowait() == "busy"
    queue.add("busy")
    queue.done("busy")
    assert drained(queue) == ["patient", "busy"]


def test_a_running_key_is_not_taken_twice_and_no_add_is_lost(clock: Clock) -> None:
    queue = a_queue(clock)
    queue.add("a")
    assert queue.get_nowait() == "a"
    queue.add("a")
    assert queue.get_nowait() is None
    queue.done("a")
    assert queue.get_nowait() == "a"
    queue.done("a")
    assert queue.get_nowait() is None


def test_requeue_after_waits(clock: Clock) -> None:
    queue = a_queue(clock)
    queue.add("a")
    queue.get_nowait()
    queue.done("a", requeue_after=30)
    clock.now += 29.9
    assert queue.get_nowait() is None
    clock.now += 0.2
    assert queue.get_nowait() == "a"


def test_the_earliest_delay_wins(clock: Clock) -> None:
    queue = a_queue(clock)
    queue.add_after("a", 30)
    queue.add_after("a", 10)
    queue.add_after("a", 20)
    clock.now += 10
    assert drained(queue) == ["a"]
    clock.now += 100
    assert drained(queue) == []


def test_an_add_makes_a_delayed_key_ready_once(clock: Clock) -> None:
    queue = a_queue(clock)
    queue.add_after("a", 30)
    queue.add("a")
    assert queue.get_nowait() == "a"
    queue.done("a")
    clock.now += 60
    assert queue.get_nowait() is None, "the old delay must be gone: each reconcile gives a new one"


def test_an_add_during_the_run_overrides_the_delay(clock: Clock) -> None:
    queue = a_queue(clock)
    queue.add("a")
    queue.get_nowait()
    queue.add("a")
    queue.done("a", requeue_after=300)
    assert queue.get_nowait() == "a"


def test_back_off_doubles_to_five_minutes_and_is_reset_by_success(clock: Clock) -> None:
    queue = a_queue(clock)
    delays = []
    queue.add("a")
    for _ in range(11):
        assert queue.get_nowait() == "a"
        delays.append(queue.retry("a"))
        clock.now += delays[-1]
    assert delays == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]
    assert queue.get_nowait() == "a"
    queue.done("a")
    queue.add("a")
    queue.get_nowait()
    assert queue.retry("a") == 1


def test_back_off_has_jitter_and_honours_retry_after(clock: Clock) -> None:
    queue = a_queue(clock, random=1.0)
    queue.add("a")
    queue.get_nowait()
    assert queue.retry("a") == 1.5
    clock.now += 1.5
    queue.get_nowait()
    assert queue.retry("a", at_least=17) == 17


def test_each_key_has_its_own_back_off(clock: Clock) -> None:
    queue = a_queue(clock)
    for key in "ab":
        queue.add(key)
        queue.get_nowait()
    queue.retry("a")
    assert queue.retry("b") == 1


def test_stuck_means_a_key_that_runs_or_waits_too_long(clock: Clock) -> None:
    queue = a_queue(clock)
    clock.now += 1000
    assert queue.stuck_seconds() == 0, "an empty queue is not stuck"
    queue.add("a")
    queue.add("b")
    clock.now += 5
    assert queue.stuck_seconds() == 5
    assert queue.get_nowait() == "a"
    assert queue.stuck_seconds() == 0
    clock.now += 7
    assert queue.stuck_seconds() == 7
    queue.done("a")
    assert queue.get_nowait() == "b"
    assert queue.stuck_seconds() == 0


@pytest.mark.extras  # pytest-asyncio
async def test_a_waiting_worker_gets_a_key_at_once_and_a_delayed_one_in_time() -> None:
    loop = asyncio.get_running_loop()
    queue: WorkQueue[str] = WorkQueue(clock=loop.time, random=lambda: 0.0)
    waiting = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.add_after("late", 0.05)
    queue.add("now")
    assert await waiting == "now"
    assert await queue.get() == "late"


@pytest.mark.extras  # pytest-asyncio
async def test_each_key_goes_to_one_of_many_workers() -> None:
    loop = asyncio.get_running_loop()
    queue: WorkQueue[int] = WorkQueue(clock=loop.time, random=lambda: 0.0)
    running: set[int] = set()
    handled: list[int] = []

    async def work() -> None:
        while True:
            try:
                key = await queue.get()
            except QueueClosed:
                return
            assert key not in running
            running.add(key)
            await asyncio.sleep(0)
            running.discard(key)
            handled.append(key)
            queue.done(key)

    workers = [asyncio.create_task(work()) for _ in range(8)]
    for round_ in range(3):
        for key in range(100):
            queue.add(key)
        while len(queue):  # noqa: ASYNC110 (one round of the loop at a time)
            await asyncio.sleep(0)
        assert sorted(handled[round_ * 100 :]) == list(range(100))
    queue.close()
    await asyncio.gather(*workers)


@pytest.mark.extras  # pytest-asyncio
async def test_a_cancelled_worker_passes_its_wake_up_on() -> None:
    loop = asyncio.get_running_loop()
    queue: WorkQueue[str] = WorkQueue(clock=loop.time, random=lambda: 0.0)
    first = asyncio.create_task(queue.get())
    second = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.add("a")
    first.cancel()
    async with asyncio.timeout(5):
        assert await second == "a"


class Told:
    """Writes down what a queue tells its observer."""

    def __init__(self) -> None:
        self.said: list[tuple[object, ...]] = []

    def key_added(self) -> None:
        self.said.append(("added",))

    def key_taken(self, waited: float) -> None:
        self.said.append(("taken", waited))

    def key_released(self, worked: float, *, retry: bool) -> None:
        self.said.append(("released", worked, retry))


def test_the_observer_is_told_how_long_keys_wait_and_are_worked_on(clock: Clock) -> None:
    told = Told()
    queue: WorkQueue[str] = WorkQueue(clock=clock, random=lambda: 0.0, observer=told)
    queue.add("a")
    queue.add("a")
    queue.add("b", high_priority=True)
    assert (queue.depth, queue.running_seconds()) == (2, ())
    clock.now += 3
    assert drained(queue) == ["b", "a"]
    clock.now += 5
    queue.add("b")  # while it runs: ready again when it is done
    assert (queue.depth, queue.running_seconds()) == (0, (5, 5))
    queue.done("b")
    queue.retry("a")
    assert told.said == [
        ("added",),
        ("added",),
        ("taken", 3),
        ("taken", 3),
        ("released", 5, False),
        ("added",),
        ("released", 5, True),
    ]
