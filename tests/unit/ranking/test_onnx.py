import numpy as np
import pytest
import torch

from roiflow.data.split import TEST
from roiflow.features.table import Features, Requests
from roiflow.ranking import onnx, serving_form
from roiflow.ranking.protocol import Predictions
from roiflow.ranking.rosa import RosaRanker
from roiflow.ranking.train import start
from roiflow.serving.package import session
from tests.unit.ranking import worlds


@pytest.fixture(scope="module")
def features() -> Features:
    return worlds.build(users=10, per_user=10).features


@pytest.fixture(scope="module")
def ranker(features: Features) -> RosaRanker:
    torch.manual_seed(0)
    return start(RosaRanker, features, worlds.PARAMS.model_copy(update={"layers": 2}))


@pytest.fixture(scope="module")
def exported(ranker: RosaRanker) -> tuple[bytes, bytes]:
    return onnx.export(ranker)


def run(
    exported: tuple[bytes, bytes], ranker: RosaRanker, features: Features, requests: Requests
) -> Predictions:
    sizes = ranker.shape.index_sizes
    history = serving_form.histories(
        features.events, requests.user, requests.history_end, ranker.encode_length
    )
    encoder, scorer = map(session, exported)
    (memory,) = encoder.run(None, serving_form.encoder_inputs(history, sizes))
    feed = serving_form.scorer_inputs(
        memory=memory,
        history=history,
        sizes=sizes,
        event_time=requests.event_time,
        user=requests.user,
        profile=features.profile[requests.user],
        context=requests.context,
        ad=requests.ad,
        attributes=features.attributes[requests.ad.clip(0)],
        dense=requests.dense,
    )
    (output,) = scorer.run(None, feed)
    return serving_form.predictions(output, requests.ad >= 0)


@pytest.mark.parametrize(("rows", "candidates"), [(1, 1), (1, 40), (9, 2), (30, 5)])
def test_any_number_of_requests_and_candidates_as_in_torch(
    exported: tuple[bytes, bytes],
    ranker: RosaRanker,
    features: Features,
    rows: int,
    candidates: int,
) -> None:
    # One candidate more than asked for: the last one of these worlds is absent.
    slates = features.rows(TEST)[:rows]
    requests = worlds.requests_of(features, slates, candidates=candidates + 1)
    expected, found = ranker.score(features, requests), run(exported, ranker, features, requests)
    assert np.ptp(expected.click[requests.ad >= 0]) > 0 or rows * candidates == 1
    np.testing.assert_allclose(found.click, expected.click, atol=1e-6)
    np.testing.assert_allclose(found.conversion, expected.conversion, atol=1e-6)
    np.testing.assert_allclose(found.revenue, expected.revenue, rtol=1e-5)


def test_equal_weights_give_equal_bytes_without_a_path(
    exported: tuple[bytes, bytes], ranker: RosaRanker
) -> None:
    encoder, _ = ranker.serving_modules()
    again = onnx.to_onnx(
        encoder,
        onnx.example(ranker),
        serving_form.ENCODER_INPUTS,
        serving_form.ENCODER_OUTPUT,
    )
    assert again == exported[0]
    for content in exported:
        for trace in (b"site-packages", b"roiflow/", b".py"):
            assert trace not in content
