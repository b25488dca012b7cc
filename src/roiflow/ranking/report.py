"""How well predictions rank logged impressions: the numbers that `dvc metrics diff` compares."""

from roiflow.data.split import TEST, VALIDATION
from roiflow.features.table import Features
from roiflow.ranking.metrics import auc, log_loss
from roiflow.ranking.protocol import Ranker

SPLITS = {"validation": VALIDATION, "test": TEST}


def metrics(features: Features, ranker: Ranker) -> dict[str, float]:
    """`<split>_full_<what>_<metric>`: over all logged impressions of a split (none sampled).

    AUCs are at position 1 for every row (what a ranking may use); log losses are at the logged
    position. A metric without both classes is left out.
    """
    found: dict[str, float] = {}
    log = features.impressions
    for split, number in SPLITS.items():
        rows = features.rows(number)
        ranked = ranker.predict(features, rows)
        shown = ranker.predict(features, rows, logged_position=True)
        clicked, converted = log.clicked[rows], log.converted[rows]
        for what, label, score, probability in (
            ("click", clicked, ranked.click, shown.click),
            ("conversion", converted, ranked.conversion, shown.conversion),
        ):
            if 0 < label.sum() < label.size:
                found[f"{split}_full_{what}_auc"] = auc(score, label)
                found[f"{split}_full_{what}_log_loss"] = log_loss(probability, label)
    return found
