"""Step after step until told to stop; what fails is tried again, more slowly, and said once."""

import time
from collections.abc import Callable

from roiflow.errors import ServiceError

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0


def keep_stepping(
    step: Callable[[], object],
    stopped: Callable[[], bool],
    say: Callable[[str], None],
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """A step that raises ServiceError has changed nothing and can be taken again."""
    pause = FIRST_PAUSE
    while not stopped():
        try:
            step()
        except ServiceError as error:
            if pause == FIRST_PAUSE:
                say(str(error))
            sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
        else:
            if pause > FIRST_PAUSE:
                say("goes on")
            pause = FIRST_PAUSE
