"""The URI of an Airflow connection, asked for only by a task that needs it."""


def uri_of(connection: str) -> str:
    """With the password, which Airflow hides in its logs.

    Raises AirflowNotFoundException where there is no such connection.
    """
    from airflow.sdk import Connection

    return str(Connection.get(connection).get_uri())
