"""MLflow, where MLFLOW_TRACKING_URI says; without it, mlflow.db in the current folder."""

import logging
import os
import time
from collections.abc import Mapping
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param

from kdcompress.progress import Beginning
from kdcompress.tracking.tracker import Figures

TAG = "kdcompress.run"
"""Holds the run's id, by which it is found when it goes on."""
AT_ONCE = 100
"""Parameters that MLflow takes in one message."""


class MLflow:
    """A run of an experiment."""

    def __init__(self, experiment: str, name: str, run: Beginning, settings: Mapping[str, Any]) -> None:
        _be_brief()
        self.client = MlflowClient()
        found = self.client.get_experiment_by_name(experiment)
        number = self.client.create_experiment(experiment) if found is None else found.experiment_id
        begun = self.client.search_runs([number], f"tags.`{TAG}` = '{run.id}'") if run.step else []
        if begun:
            self.id = begun[0].info.run_id
            self.client.update_run(self.id, status="RUNNING")
            self.told = {point.step for point in self.client.get_metric_history(self.id, "loss")}
        else:
            self.id = self.client.create_run(number, tags={TAG: run.id}, run_name=name).info.run_id
            self.told = set()
            params = [Param(key, str(value)) for key, value in settings.items()]
            for some in range(0, len(params), AT_ONCE):
                self.client.log_batch(self.id, params=params[some : some + AT_ONCE])
        self.where = f"{self.client.tracking_uri}, experiment {experiment}, run {self.id}"

    def epoch(self, step: int, figures: Figures) -> None:
        """Metrics at `step`, unless the run said them before it was killed: MLflow would keep both."""
        if step not in self.told:
            self.ended(step, figures)

    def ended(self, step: int, figures: Figures) -> None:
        """Metrics of one point each."""
        now = int(time.time() * 1000)
        self.client.log_batch(self.id, metrics=[Metric(name, value, now, step) for name, value in figures.items()])

    def closed(self, finished: bool) -> None:
        """Say how the run ended."""
        self.client.set_terminated(self.id, "FINISHED" if finished else "FAILED")


def _be_brief() -> None:
    """A server that cannot be reached is given up after half a minute, where the user has not said otherwise.

    By itself MLflow goes on for four minutes, in which the training would wait.
    """
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # stdout is the result's
    logging.getLogger("mlflow").setLevel(logging.WARNING)
