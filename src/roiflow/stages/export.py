"""The package that the test week judges, if what is exported predicts what was trained."""

import json
from dataclasses import dataclass, fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from roiflow.candidates import selector as preselection
from roiflow.data.split import TEST
from roiflow.errors import ParityError
from roiflow.features import engine as counters
from roiflow.features import folder as feature_store
from roiflow.features.table import Features, Requests
from roiflow.files import write_file
from roiflow.params import Params, load_params
from roiflow.policy import network as slate_policy
from roiflow.policy.candidate_sets import first_rows, top_requests
from roiflow.policy.network import SlatePolicy
from roiflow.progress import Progress, progress
from roiflow.ranking.blend import Blend
from roiflow.ranking.onnx import export as to_onnx
from roiflow.ranking.rosa import RosaRanker
from roiflow.ranking.value import load_cost_shares
from roiflow.serving import package as packages
from roiflow.serving.exported import compare, latency_ms, served
from roiflow.serving.package import Description, Package
from roiflow.serving.recommender import Models
from roiflow.stages.arguments import Written
from roiflow.stages.command import run


def main(
    features: Path,
    candidates: Path,
    ranker: Path,
    policy: Path,
    judged: Written,
    metrics: Written,
    params: Path,
) -> None:
    """features, candidates, ranker, policy -> judged, and how far its models are from torch's.

    Raises ParityError where they are further apart than params.yaml allows; then nothing is
    written.
    """
    config = load_params(params)
    table = feature_store.read(features)
    with progress("export") as show:
        made = make(Sources(features, candidates, ranker, policy), table, config, None, show)
    write(made, judged, metrics)


@dataclass(frozen=True)
class Sources:
    """Folders of what a package is made of."""

    features: Path
    candidates: Path
    ranker: Path
    policy: Path


@dataclass(frozen=True)
class Made:
    """A package that predicts what was trained, and by how little it differs."""

    about: Description
    files: dict[str, bytes]
    metrics: dict[str, Any]


def make(
    sources: Sources, table: Features, config: Params, judged: str | None, show: Progress
) -> Made:
    """A package in memory; `judged` is the digest of the one that was judged in its place.

    Raises ParityError where its models are further from torch's than params.yaml allows.
    """
    model, slates = RosaRanker.load(sources.ranker), slate_policy.load(sources.policy)
    # The draft is compared before anything is put where the next stage looks: a package that
    # predicts otherwise than what was trained and evaluated must not be found there.
    with TemporaryDirectory() as aside:
        show(0.0, "to ONNX")
        encoder, scorer = to_onnx(model)
        files = {
            packages.USER_ENCODER: encoder,
            packages.SCORER: scorer,
            packages.POLICY: slates.to_bytes(),
            **feature_files(sources.features, table),
            **candidate_files(sources.candidates),
        }
        about = describe(config, table, model, slates, sources.ranker, judged)
        draft = Package.write(Path(aside) / "package", about, files)
        show(0.4, "compare with torch")
        models, rows = Models(draft), config.export.parity_rows
        requests = sample(sources.features, sources.candidates, table, slates.top_k, rows)
        trained = Blend(model, preselection.load(sources.candidates), slates.selector_share)
        differences = compare(
            trained.score(table, requests),
            served(models, table, requests),
            requests.ad >= 0,
            rows,
            config.export.parity_tolerance,
        )
        show(0.8, "measure latency")
        latency = latency_ms(models, table, requests)
    metrics = {
        "parity_rows": differences.rows,
        "max_difference": {
            name: getattr(differences, name) for name in ("click", "conversion", "revenue")
        },
        "latency_p50_ms_200_candidates": latency,
        "bytes": sum(map(len, files.values())),
        "digest": draft.digest,
    }
    return Made(about, files, metrics)


def write(made: Made, package: Path, metrics: Path) -> Package:
    """The package last: what DVC trusts is complete."""
    with write_file(metrics) as path:
        path.write_text(json.dumps(made.metrics, indent=1) + "\n")
    # From the same bytes as the draft and not moved from there: the folder for drafts may be on
    # another disk.
    return Package.write(package, made.about, made.files)


def describe(
    config: Params,
    features: Features,
    model: RosaRanker,
    policy: SlatePolicy,
    ranker: Path,
    judged: str | None,
) -> Description:
    """The manifest's values."""
    return Description(
        source=config.ingest.source,
        week=features.catalogues[-1].week,
        dense_names=features.dense_names,
        profile_names=features.profile_names,
        sizes=model.shape.sizes,
        history_length=features.history_length,
        encode_length=model.encode_length,
        slate_size=policy.slate_size,
        top_k=policy.top_k,
        temperature=policy.temperature,
        cost_weight=policy.cost_weight,
        cost_shares=load_cost_shares(ranker),
        feature_sample=config.export.feature_sample,
        judged=judged,
    )


def feature_files(folder: Path, features: Features) -> dict[str, bytes]:
    """Vocabulary, plan and statistics."""
    return {
        packages.VOCABULARY: (folder / packages.VOCABULARY).read_bytes(),
        packages.PLAN: (folder / counters.PLAN).read_bytes(),
        packages.STATISTICS: packages.statistics_json(features.statistics),
    }


def candidate_files(folder: Path) -> dict[str, bytes]:
    """Everything of the kind of pre-selection that is used, under `candidates/`."""
    choice = folder / preselection.CHOICE
    kind = folder / choice.read_text().strip()
    paths = [choice, *sorted(path for path in kind.rglob("*") if path.is_file())]
    return {
        f"{packages.CANDIDATES}/{path.relative_to(folder).as_posix()}": path.read_bytes()
        for path in paths
    }


def sample(features: Path, candidates: Path, table: Features, k: int, rows: int) -> Requests:
    """The test week's first slates with their top k, at least `rows` candidates if there are."""
    per_slate = min(k, table.catalogues[-1].ad.size)
    # Rounded up: as many slates as hold so many candidates.
    first = first_rows(table, table.rows(TEST))[: -(-rows // per_slate)]
    if first.size == 0:
        raise ParityError(f"{features}: no impression in the test week to compare on")
    engine, selector = counters.open_engine(features), preselection.load(candidates)
    parts = [part for _, part in top_requests(table, engine, selector, first, k=k)]
    return Requests(
        **{
            field.name: np.concatenate([getattr(part, field.name) for part in parts])
            for field in fields(Requests)
        }
    )


if __name__ == "__main__":
    run(main)
