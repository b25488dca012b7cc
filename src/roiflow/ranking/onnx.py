"""The ranker's serving form as ONNX: equal weights give equal bytes, whatever the folder."""

import logging
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from roiflow.features.table import AD_ATTRIBUTES, CONTEXT
from roiflow.ranking import serving_form
from roiflow.ranking.rosa import RosaRanker
from roiflow.ranking.serving_form import Feed

PER_CANDIDATE = frozenset({"ad", "attributes", "dense"})
"""Inputs whose second dimension is free as well as the first."""


def export(ranker: RosaRanker) -> tuple[bytes, bytes]:
    """The user encoder and the scorer, as ONNX; both take any number of requests and candidates."""
    encoder, scorer = ranker.serving_modules()
    feed = example(ranker)
    memory = encoder(*(torch.from_numpy(feed[name]) for name in serving_form.ENCODER_INPUTS))
    feed["memory"] = memory.detach().numpy()
    return (
        to_onnx(encoder, feed, serving_form.ENCODER_INPUTS, serving_form.ENCODER_OUTPUT),
        to_onnx(scorer, feed, serving_form.SCORER_INPUTS, serving_form.SCORER_OUTPUT),
    )


def example(ranker: RosaRanker) -> Feed:
    """Inputs of two requests with three candidates, all but `memory`; every index is 0."""
    shape, length = ranker.shape, ranker.encode_length
    rows, candidates = 2, 3
    history = (rows, length)
    return {
        "history_ad": np.zeros(history, np.int64),
        "history_category": np.zeros(history, np.int64),
        "history_action": np.zeros(history, np.int64),
        "history_hours": np.zeros(history, np.float32),
        "elapsed_hours": np.zeros(history, np.float32),
        "length": np.array([1, length], np.int64),
        "user": np.zeros(rows, np.int64),
        "profile": np.zeros((rows, len(shape.profile_names)), np.int64),
        "context": np.zeros((rows, len(CONTEXT)), np.int64),
        "ad": np.zeros((rows, candidates), np.int64),
        "attributes": np.zeros((rows, candidates, len(AD_ATTRIBUTES)), np.int64),
        "dense": np.zeros((rows, candidates, shape.dense), np.float32),
    }


def to_onnx(module: torch.nn.Module, feed: Feed, inputs: Sequence[str], output: str) -> bytes:
    """`module`, called with `inputs` of `feed`, as ONNX without any trace of time or path."""
    free = torch.export.Dim.DYNAMIC
    with _quiet():
        program = torch.onnx.export(
            module,
            tuple(torch.from_numpy(feed[name]) for name in inputs),
            dynamo=True,
            input_names=list(inputs),
            output_names=[output],
            dynamic_shapes=tuple(
                {0: free, 1: free} if name in PER_CANDIDATE else {0: free} for name in inputs
            ),
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    _strip([model, model.graph, *model.functions])
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def _strip(parts: Iterable[Any]) -> None:
    """Remove what the exporter notes of source lines and modules."""
    for part in parts:
        part.doc_string = ""
        del part.metadata_props[:]
        for name in ("node", "input", "output", "value_info", "initializer"):
            inner = getattr(part, name, ())
            _strip(each for each in inner if hasattr(each, "metadata_props"))


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's warnings on its own dependencies."""
    log = logging.getLogger("torch.onnx._internal.exporter")
    level = log.level
    log.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning, message=".*LeafSpec.*")
        warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"(torch|onnx).*")
        try:
            yield
        finally:
            log.setLevel(level)
