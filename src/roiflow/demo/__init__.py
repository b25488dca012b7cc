"""The main job: weeks of data to served slates, by the platform's own Airflow, on this machine."""
