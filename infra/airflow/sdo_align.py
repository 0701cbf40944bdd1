"""An Airflow DAG that runs a command of sdo on a Ray cluster every night. Copy it to Airflow's dags folder.

The work is done by `sdo submit`, which is idempotent: a task that Airflow tries again, because its worker died or lost
the cluster, attaches to the job that still runs, or submits a failed one once more, which goes on from its last
checkpoint. Two nights never overlap. What it needs are operators that come with Airflow, and on its workers:

    an environment with sdo-ray, named by SDO_BIN    it need not be Airflow's own, whose versions would not agree
    the settings and what travels with them          SDO_CONFIG, on a disk of the workers
    the cluster's token in a file                    RAY_AUTH_TOKEN_PATH

which are variables of the workers' environment, like SDO_ADDRESS and MLFLOW_TRACKING_URI. None of them is a secret.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG

SUBMIT = """
exec "$SDO_BIN/sdo" submit align "$SDO_CONFIG" \
    --address "$SDO_ADDRESS" --env MLFLOW_TRACKING_URI --follow \
    --set "run.name=nightly-{{ (dag_run.logical_date or dag_run.run_after) | ds_nodash }}" \
    --set "run.seed={{ (dag_run.logical_date or dag_run.run_after) | ds_nodash }}"
"""
"""The run is named after the day that it belongs to, not the one it runs on, so trying again finds the same run. A run
of the DAG that was started by hand has no such day, and takes the one it was started on."""

with DAG(
    dag_id="sdo_align",
    description="Align a model with rewards, every night",
    schedule="0 1 * * *",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    default_args={
        "retries": 3,
        "retry_delay": timedelta(minutes=10),
        "retry_exponential_backoff": True,
        "max_retry_delay": timedelta(hours=1),
        "execution_timeout": timedelta(hours=22),
    },
    tags=["sdo-ray"],
) as dag:
    BashOperator(
        task_id="align",
        bash_command=SUBMIT,
        append_env=True,
        skip_on_exit_code=[3],  # a refusal by the rules is an answer, and not tried again
        env={"RAY_AUTH_MODE": "token"},
    )
