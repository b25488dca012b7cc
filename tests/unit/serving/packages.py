"""A tiny ad world with real features and pre-selection, and a package whose networks are known.

The networks are written node by node, so their answers are closed forms:
memory = action + 1 of each behaviour, z = 0.1 x mean(dense) + 0.01 x ad + 0.02 x sum(memory) over
the last HISTORY behaviours,
click = sigmoid(z - 2), conversion = click / 10, revenue = 5 currency units.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from roiflow.candidates import selector as candidates
from roiflow.data import lake
from roiflow.data.weeks import MICROS_PER_HOUR, Week
from roiflow.features.rows import Window
from roiflow.features.vocabulary import Vocabulary
from roiflow.labels.fit import fit as fit_labels
from roiflow.offline.build import Built, build
from roiflow.params import FeaturesParams, SimulatorParams, load_params
from roiflow.policy import network
from roiflow.policy.candidate_sets import CandidateSets
from roiflow.ranking import serving_form
from roiflow.ranking.value import CostShares
from roiflow.serving import package
from roiflow.serving.package import Description, Package
from roiflow.simulator.source import SimulatorSource
from roiflow.stream.checks import Limits
from tests.worlds import STEADY, world_params

ROOT = Path(__file__).parents[3]
WEEKS = ("2026-W01", "2026-W02")
SLATE, TOP_K, HISTORY = 3, 6, 5
SHARES = CostShares(0.0, 0.8, 0.1)
LIMITS = Limits(
    lateness=48 * MICROS_PER_HOUR,
    tolerance=60_000_000,
    message_bytes=65_536,
    amount=10**15,
    slate=1_000,
)
FEATURES = FeaturesParams(
    history_length=HISTORY,
    prior_strength=20.0,
    validation_days=2,
    run_up_days=0,
    min_count=1,
    traffic=load_params(ROOT / "params.yaml").build_features.traffic,
)


@dataclass(frozen=True)
class TinyWorld:
    """A built window of the simulator."""

    params: SimulatorParams
    source: SimulatorSource
    built: Built
    features: Path
    validated: Path


def tiny_world(folder: Path, weeks: tuple[str, ...] = WEEKS, **keys: object) -> TinyWorld:
    """Weeks of a world of 60 users and 12 ads, with features."""
    small: dict[str, object] = {"users": 60, "ads": 12, "categories": 3, "seed": 3}
    often: dict[str, object] = {"click_rate": 0.2, "conversion_rate": 0.3}
    params = world_params(**(STEADY | small | often | keys))
    source = SimulatorSource(params, folder / "lake")
    for name in weeks:
        week = Week.parse(name)
        for table, rows in source.pull(week, week.end).items():
            lake.write(folder / "validated", table, week, rows)
    paced = FEATURES.traffic if params.auction.pacing else []
    counted = FEATURES.model_copy(update={"traffic": paced})
    built = build(Window(folder / "validated"), Vocabulary({}), counted, folder / "features")
    return TinyWorld(params, source, built, folder / "features", folder / "validated")


def rebuilt(folder: Path, world: TinyWorld, lake_folder: Path, weeks: tuple[str, ...]) -> Path:
    """Features of a longer window, over the lake's served weeks and the world's vocabulary."""
    source = SimulatorSource(world.params, lake_folder)
    for name in weeks:
        week = Week.parse(name)
        for table, rows in source.pull(week, week.end).items():
            lake.write(folder / "validated", table, week, rows)
    features = folder / "features"
    build(Window(folder / "validated"), world.built.vocabulary, FEATURES, features)
    return features


def write_package(
    folder: Path,
    world: TinyWorld,
    layers: int = 2,
    temperature: float = 1.0,
    feature_sample: float = 0.5,
    judged: str | None = None,
    scores: bytes | None = None,
    top_k: int = TOP_K,
    shares: CostShares = SHARES,
) -> Package:
    """The world's package; `scores` in the place of this file's scorer."""
    built = world.built
    features = built.features
    params = load_params(ROOT / "params.yaml")
    labels = fit_labels(features, params.fit_labels).labels
    selector = folder.parent / f"{folder.name}-candidates"
    candidates.fit(features, labels, params.train_candidates, "logistic").save(selector)
    slates = network.start(
        _any_candidates(),
        params.finetune_policy.model_copy(
            update={
                "slate_size": SLATE,
                "selector_share": 0.0,
                "temperature": temperature,
                "residual_bound": 1.0,
            }
        ),
        top_k=top_k,
        network=network.Network.start(4, np.random.default_rng(1)),
    )
    about = Description(
        source="simulator",
        week=features.catalogues[-1].week,
        dense_names=features.dense_names,
        profile_names=features.profile_names,
        sizes=features.sizes,
        history_length=HISTORY,
        encode_length=serving_form.encode_length(layers, HISTORY),
        slate_size=SLATE,
        top_k=top_k,
        temperature=temperature,
        cost_weight=1.0,
        cost_shares=shares,
        feature_sample=feature_sample,
        judged=judged,
    )
    files = {
        package.USER_ENCODER: encoder(),
        package.SCORER: scores or scorer(len(features.profile_names), len(features.dense_names)),
        package.POLICY: slates.to_bytes(),
        package.VOCABULARY: (world.features / "vocabulary.parquet").read_bytes(),
        package.PLAN: (world.features / "plan.parquet").read_bytes(),
        package.STATISTICS: package.statistics_json(features.statistics),
    } | {
        f"{package.CANDIDATES}/{path.relative_to(selector)}": path.read_bytes()
        for path in sorted(selector.rglob("*"))
        if path.is_file()
    }
    return Package.write(folder, about, files)


def _any_candidates() -> CandidateSets:
    rng = np.random.default_rng(0)
    shape = (50, TOP_K)
    click = rng.uniform(0.05, 0.3, shape)
    cost = rng.uniform(1e5, 1e6, shape)
    return CandidateSets(
        request=np.arange(50),
        user=np.zeros(50, np.int32),
        ad=np.ones(shape, np.int32),
        click=click,
        conversion=click / 10,
        revenue=np.full(shape, 5e6),
        expected_cost=cost,
        bid=cost.astype(np.int64),
        price=cost.astype(np.int64),
    )


LONG, REAL = TensorProto.INT64, TensorProto.FLOAT


def encoder() -> bytes:
    """memory (B, L, 1) = action + 1 where there is a behaviour, else 0."""
    kinds = dict.fromkeys(serving_form.ENCODER_INPUTS, LONG) | {"history_hours": REAL}
    inputs = [
        helper.make_tensor_value_info(name, kind, ["B"] if name == "length" else ["B", "L"])
        for name, kind in kinds.items()
    ]
    nodes = [
        helper.make_node("Cast", ["history_action"], ["action"], to=REAL),
        helper.make_node("Add", ["action", "one"], ["more"]),
        helper.make_node("Greater", ["history_ad", "zero"], ["there"]),
        helper.make_node("Cast", ["there"], ["mask"], to=REAL),
        helper.make_node("Mul", ["more", "mask"], ["kept"]),
        helper.make_node("Unsqueeze", ["kept", "last"], [serving_form.ENCODER_OUTPUT]),
    ]
    constants = [
        helper.make_tensor("one", REAL, [], [1.0]),
        helper.make_tensor("zero", LONG, [], [0]),
        helper.make_tensor("last", LONG, [1], [2]),
    ]
    output = helper.make_tensor_value_info(serving_form.ENCODER_OUTPUT, REAL, ["B", "L", 1])
    return _model(nodes, inputs, [output], constants)


def scorer(profile: int, dense: int) -> bytes:
    """predictions (B, K, 3) as in this file's first lines."""
    nodes = [
        helper.make_node("ReduceMean", ["dense", "last"], ["mean"], keepdims=1),
        helper.make_node("Mul", ["mean", "tenth"], ["from_dense"]),
        helper.make_node("Cast", ["ad"], ["ad_real"], to=REAL),
        helper.make_node("Unsqueeze", ["ad_real", "last"], ["ad_column"]),
        helper.make_node("Mul", ["ad_column", "hundredth"], ["from_ad"]),
        helper.make_node("ReduceSum", ["memory", "middle"], ["sum"], keepdims=1),
        helper.make_node("Mul", ["sum", "fiftieth"], ["from_memory"]),
        helper.make_node("Sum", ["from_dense", "from_ad", "from_memory", "shift"], ["z"]),
        helper.make_node("Sigmoid", ["z"], ["click"]),
        helper.make_node("Mul", ["click", "tenth"], ["conversion"]),
        helper.make_node("Mul", ["click", "nothing"], ["blank"]),
        helper.make_node("Add", ["blank", "five"], ["revenue"]),
        helper.make_node(
            "Concat", ["click", "conversion", "revenue"], [serving_form.SCORER_OUTPUT], axis=2
        ),
    ]
    values = {
        "tenth": 0.1, "hundredth": 0.01, "fiftieth": 0.02, "shift": -2.0, "nothing": 0.0,
        "five": 5.0,
    }  # fmt: skip
    constants = [helper.make_tensor(name, REAL, [], [value]) for name, value in values.items()]
    constants += [helper.make_tensor("last", LONG, [1], [2])]
    constants += [helper.make_tensor("middle", LONG, [1], [1])]
    return scorer_of(profile, dense, nodes, constants)


def scorer_of(
    profile: int, dense: int, nodes: list[onnx.NodeProto], constants: list[onnx.TensorProto]
) -> bytes:
    """Nodes that make predictions (B, K, 3) of the inputs that every scorer takes."""
    shapes: dict[str, tuple[int, list[str | int | None]]] = {
        "memory": (REAL, ["B", "L", 1]),
        "history_ad": (LONG, ["B", "L"]),
        "history_category": (LONG, ["B", "L"]),
        "elapsed_hours": (REAL, ["B", "L"]),
        "length": (LONG, ["B"]),
        "user": (LONG, ["B"]),
        "profile": (LONG, ["B", profile]),
        "context": (LONG, ["B", 4]),
        "ad": (LONG, ["B", "K"]),
        "attributes": (LONG, ["B", "K", 5]),
        "dense": (REAL, ["B", "K", dense]),
    }
    inputs = [
        helper.make_tensor_value_info(name, shapes[name][0], shapes[name][1])
        for name in serving_form.SCORER_INPUTS
    ]
    output = helper.make_tensor_value_info(serving_form.SCORER_OUTPUT, REAL, ["B", "K", 3])
    return _model(nodes, inputs, [output], constants)


def _model(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    constants: list[onnx.TensorProto],
) -> bytes:
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 10
    onnx.checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString()
    return content
