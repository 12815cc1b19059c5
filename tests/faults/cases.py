"""Many cases, some at a time; each says on standard error how it ended."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

C = TypeVar("C")
R = TypeVar("R")


async def each(
    cases: Sequence[C],
    play: Callable[[C], Awaitable[R]],
    at_a_time: int,
    *,
    name: Callable[[C], str] = str,
    wrong: Callable[[C, R], Sequence[str]],
) -> list[R]:
    """Plays every case and returns the results in their order.

    Args:
        cases: the cases.
        play: plays one.
        at_a_time: how many are played at the same time.
        name: of a case, for people.
        wrong: what should not be in a result.
    """
    slots = asyncio.Semaphore(at_a_time)
    done = 0

    async def one(case: C) -> R:
        nonlocal done
        async with slots:
            result = await play(case)
        done += 1
        print(f"{done}/{len(cases)} {name(case)}", file=sys.stderr, flush=True)
        for line in wrong(case, result):
            print(f"WRONG {name(case)}: {line}", file=sys.stderr, flush=True)
        return result

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(case)) for case in cases]
    return [task.result() for task in tasks]
