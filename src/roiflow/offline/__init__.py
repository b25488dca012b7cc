"""The batch job: validated weeks to features, histories, logs and the online snapshot."""
