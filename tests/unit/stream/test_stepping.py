"""Steps that fail are tried again, more slowly each time."""

from roiflow.errors import ServiceError
from roiflow.stream.stepping import keep_stepping


def test_a_fault_is_said_once_and_waited_for_ever_longer() -> None:
    outcomes = [True, False, False, False, False, False, False, True, True, False, True]
    said, slept, steps = list[str](), list[float](), list[bool]()

    def step() -> None:
        steps.append(outcomes[len(steps)])
        if not steps[-1]:
            raise ServiceError(f"fault {len(steps)}")

    keep_stepping(step, lambda: len(steps) == len(outcomes), said.append, slept.append)
    assert said == ["fault 2", "goes on", "fault 10", "goes on"]
    assert slept == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 0.1]


def test_nothing_is_done_after_the_end() -> None:
    keep_stepping(lambda: 1 / 0, lambda: True, print)
