"""The agent as MLflow serves it: models-from-code, so that what is stored is source and data, no pickle."""

from pathlib import Path
from typing import Any

import mlflow.models
import pandas as pd
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from agent.candidate import Candidate


class ServedAgent(PythonModel):
    """Answers requests with the registered candidate; adapter and memory lie beside its manifest."""

    candidate: Candidate
    files: dict[str, Path]

    def load_context(self, context: PythonModelContext) -> None:
        """Read the candidate and find its files."""
        folder = Path(context.artifacts["agent"])
        manifest = folder / "candidate.json"
        self.candidate = Candidate.from_json(manifest.read_text(), where=str(manifest))
        self.files = {path.name: path for path in folder.glob("files/*")}

    def predict(
        self,
        context: PythonModelContext,
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> list[dict[str, Any]]:
        """One answer for each row; a row's columns are the case's inputs."""
        return [{"candidate_id": self.candidate.candidate_id} for _ in model_input.to_dict("records")]


mlflow.models.set_model(ServedAgent())
