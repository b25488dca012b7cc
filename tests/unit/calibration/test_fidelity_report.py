"""The report of a comparison."""

from pathlib import Path

import pytest

from roiflow.calibration.fidelity import Fidelity, compare, simulated_log
from roiflow.calibration.fidelity_report import AXES, TITLES, Section, write_report
from roiflow.calibration.marginals import MARGINALS
from tests.unit.simulator.conftest import Make


@pytest.fixture(scope="module")
def fidelity(make: Make) -> Fidelity:
    rates = {"click_rate": 0.3, "conversion_rate": 0.3}
    real = simulated_log(make(**rates, behaviours_per_user_day=0.0), days=7, positions=3)
    return compare(simulated_log(make(**rates, seed=4), days=7, positions=3), real)


def test_every_marginal_has_a_title_and_an_axis() -> None:
    assert list(TITLES) == list(AXES) == list(MARGINALS)


def test_it_shows_every_distance_and_says_what_is_lacking(
    fidelity: Fidelity, tmp_path: Path
) -> None:
    for name in ("one.html", "two.html"):
        write_report(tmp_path / name, [Section(fidelity, None)])
    html = (tmp_path / "one.html").read_text()
    assert html == (tmp_path / "two.html").read_text()
    for name, distance in fidelity.distance.items():
        assert TITLES[name] in html
        assert f"<td>{distance:.3f}</td>" in html
    assert "no behaviours" in html
    assert html.count("<svg") == 1
    assert "src=" not in html


def test_before_and_after(fidelity: Fidelity, tmp_path: Path) -> None:
    write_report(tmp_path / "both.html", [Section(fidelity, fidelity)])
    html = (tmp_path / "both.html").read_text()
    assert f"{fidelity.overall:.3f} &rarr; {fidelity.overall:.3f}" in html


def test_plots_alone(fidelity: Fidelity, tmp_path: Path) -> None:
    write_report(tmp_path / "plots.png", [Section(fidelity, None), Section(fidelity, fidelity)])
    assert (tmp_path / "plots.png").read_bytes().startswith(b"\x89PNG")
