"""One idempotent module per effect on the world: what Airflow runs after the stages."""
