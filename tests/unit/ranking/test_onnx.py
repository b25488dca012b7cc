from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx.checker import check_model

from roiflow.data.split import TEST
from roiflow.features.table import Features, Requests
from roiflow.ranking import onnx, serving_form
from roiflow.ranking.calibrate import Calibration, Calibrations
from roiflow.ranking.examples import Examples
from roiflow.ranking.protocol import Predictions
from roiflow.ranking.rosa import RosaRanker
from roiflow.ranking.torch_ranker import Calibrator
from roiflow.ranking.train import start
from roiflow.serving.package import session
from tests.unit.ranking import worlds


@pytest.fixture(scope="module")
def features() -> Features:
    return worlds.build(users=10, per_user=10).features


BENT = Calibration(0.2, (0.5, 1.5, 0.8), (-1.0, 0.5))
STRAIGHT = Calibration(-0.1, (0.9,), ())


@cache
def ranker(layers: int) -> RosaRanker:
    """Every weight is away from its start, so that none can be left out unseen."""
    generator = torch.manual_seed(layers)
    features = worlds.build(users=10, per_user=10).features
    log = Examples.of(features, worlds.labels_of(features))
    params = worlds.PARAMS.model_copy(update={"layers": layers})
    made = start(RosaRanker, features, log, worlds.EXAMINATION, params)
    with torch.no_grad():
        for parameter in made.net.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    made.net.eval()
    made.calibrator = Calibrator(Calibrations(BENT, STRAIGHT), 1.7)
    return made


def run(ranker: RosaRanker, features: Features, requests: Requests, *, cut: bool) -> Predictions:
    """All columns, or as many as there are events and, for the candidates, as they look at."""
    sizes, length = ranker.shape.index_sizes, ranker.encode_length
    people = serving_form.people(features, requests, length)
    history = people.history.cut(length) if cut else people.history
    recent = history.cut(ranker.shape.history_length) if cut else history
    encoder, scorer = map(session, onnx.export(ranker))
    (memory,) = encoder.run(None, serving_form.encoder_inputs(history, sizes))
    feed = serving_form.scorer_inputs(
        requests,
        replace(people, history=recent),
        features.attributes[requests.ad.clip(0)],
        sizes,
    )
    feed["memory"] = memory[:, -recent.ad.shape[1] :]
    (output,) = scorer.run(None, feed)
    return serving_form.predictions(output, requests.ad >= 0)


@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize(("rows", "candidates"), [(1, 1), (1, 40), (9, 2), (30, 5)])
def test_any_number_of_requests_and_candidates_as_in_torch(
    features: Features, layers: int, rows: int, candidates: int, cut: bool
) -> None:
    # One candidate more than asked for: the last one of these worlds is absent.
    slates = features.rows(TEST)[:rows]
    requests = worlds.requests_of(features, slates, candidates=candidates + 1)
    trained = ranker(layers)
    expected, found = trained.score(features, requests), run(trained, features, requests, cut=cut)
    assert np.ptp(expected.click[requests.ad >= 0]) > 0 or rows * candidates == 1
    np.testing.assert_allclose(found.click, expected.click, atol=1e-6)
    np.testing.assert_allclose(found.conversion, expected.conversion, atol=1e-6)
    np.testing.assert_allclose(found.revenue, expected.revenue, rtol=1e-5)


def test_equal_weights_give_equal_bytes_without_a_path(tmp_path: Path) -> None:
    ranker(2).save(tmp_path / "ranker")
    exported = onnx.export(ranker(2))
    assert onnx.export(RosaRanker.load(tmp_path / "ranker")) == exported
    assert onnx.export(ranker(3)) != exported
    for content in exported:
        for trace in (b"site-packages", b"roiflow/", b".py"):
            assert trace not in content


def test_the_graphs_are_valid_and_take_what_the_serving_form_feeds() -> None:
    for content, inputs, output in zip(
        onnx.export(ranker(2)),
        (serving_form.ENCODER_INPUTS, serving_form.SCORER_INPUTS),
        (serving_form.ENCODER_OUTPUT, serving_form.SCORER_OUTPUT),
        strict=True,
    ):
        check_model(content, full_check=True)
        graph = session(content)
        assert tuple(each.name for each in graph.get_inputs()) == inputs
        assert [each.name for each in graph.get_outputs()] == [output]
