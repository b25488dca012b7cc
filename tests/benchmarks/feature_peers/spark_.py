"""Spark: the same engine as in the platform, on local cores; histories as arrays."""

import os
from pathlib import Path

from roiflow.features.plan import Plan
from roiflow.features.vocabulary import Vocabulary
from roiflow.spark.engine import features, spark_session
from tests.benchmarks.feature_peers.world import WEEKS


def run(folder: Path, plan: Plan, out: Path) -> None:
    """features.parquet, a folder, into `out`; dictionaries are given."""
    spark = spark_session(f"local[{os.environ['PEER_THREADS']}]")
    vocabulary = Vocabulary.read(folder.parent / "built" / "vocabulary.parquet")
    frame = features(spark, folder, WEEKS, plan, vocabulary)
    frame.write.mode("overwrite").parquet(str(out / "features.parquet"))
    spark.catalog.clearCache()


def jvm() -> int:
    """The process that does the work."""
    spark = spark_session("local")
    assert spark.sparkContext._jvm is not None
    return int(spark.sparkContext._jvm.java.lang.ProcessHandle.current().pid())
