"""The same feature definition on Apache Spark."""
