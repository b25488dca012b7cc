"""What only a simulated world can tell: the true value of every policy, week by week."""

from pathlib import Path

from rich.table import Table

from roiflow.data.weeks import Week
from roiflow.demo.weeks import WeekDone
from roiflow.params import Params

Truth = dict[str, float]


def truth_by_week(params: Params, lake: Path, done: list[WeekDone]) -> dict[str, dict[str, Truth]]:
    """Week -> policy -> what the world says is true; `served` where a model served the week."""
    # Here, because the demo of another source has no use for the world.
    from roiflow.simulator.policies import Oracle, logging_policy, random_policy
    from roiflow.simulator.run import SlateChooser
    from roiflow.simulator.served import shown
    from roiflow.simulator.truth import expected_value_of, truth
    from roiflow.simulator.world import World

    world = World(params.ingest.simulator)
    others: dict[str, SlateChooser] = {
        "logging": logging_policy(world),
        "random": random_policy(world),
        "oracle": Oracle(world),
    }
    truths: dict[str, dict[str, Truth]] = {}
    for week in (Week.parse(one.week) for one in done):
        found = {name: expected_value_of(world, week, one)[0] for name, one in others.items()}
        rows = shown(lake / "simulator", week)
        # The first week is the logging policy's, and has no slates of a package.
        truths[str(week)] = found | ({} if rows is None else {"served": truth(world, rows)})
    return truths


def truth_table(truths: dict[str, dict[str, Truth]]) -> Table:
    """True value and ROI by week and policy; the oracle is the best there is in value."""
    table = Table(title="True value (ROI), which only a simulated world can tell")
    policies = ("served", "logging", "random", "oracle")
    for name in ("week", *policies):
        table.add_column(name, justify="right")
    for week, found in truths.items():
        table.add_row(
            week,
            *(
                f"{found[name]['value']:,.0f} ({found[name]['roi']:.2f})" if name in found else "-"
                for name in policies
            ),
        )
    return table
