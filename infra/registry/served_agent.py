"""The agent as MLflow serves it: models-from-code, so that what is stored is source and data, no pickle.

A row of the input is one request: column `request` (text) and, where the actions are known, `options` (a list
of objects with `name`, `description`, `parameters`). The answer names the candidate that gave it.
"""

from pathlib import Path
from typing import Any

import mlflow.models
import pandas as pd
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from ratchet.agent.candidate import Candidate
from ratchet.agent.environment import Observation
from ratchet.agent.errors import BadInput
from ratchet.agent.kinds.program import Program, View
from ratchet.agent.record import content_hash
from ratchet.agent.team.team import make_program
from ratchet.infra.settings import Settings, prepare_environment
from ratchet.infra.text_embedding import embedding_named


class ServedAgent(PythonModel):
    """Answers requests with the registered candidate; adapter and memory lie beside its manifest."""

    program: Program

    def load_context(self, context: PythonModelContext) -> None:
        """Build the program from the candidate and its files; the LM loads at the first request."""
        prepare_environment()  # MLflow may be all that this process began with
        folder = Path(context.artifacts["agent"])
        manifest = folder / "candidate.json"
        candidate = Candidate.from_json(manifest.read_text(), where=str(manifest))
        if candidate.kind != "built-in":
            raise BadInput(
                f"candidate {candidate.candidate_id} holds the parts of a {candidate.kind} agent, whose code is its "
                "owner's: there the parts are read, or `ratchet serve` answers"
            )
        self.program = make_program(
            candidate,
            _files(folder / "files"),
            endpoint=Settings().endpoint,
            embeddings=embedding_named,
        )

    def predict(
        self,
        context: PythonModelContext,
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> list[dict[str, Any]]:
        """One answer for each row, in order."""
        rows = [{str(key): value for key, value in row.items()} for row in model_input.to_dict("records")]
        views = [View(case_id=content_hash(row), observation=_observation(row)) for row in rows]
        return [
            {
                "candidate_id": self.program.candidate.candidate_id,
                "answer": decision.action.name,
                "confidence": decision.confidence,
            }
            for decision in self.program.decide(views)
        ]


def _files(folder: Path) -> dict[str, Path]:
    """By name (`memory`, `adapter.critic`): an adapter is a folder, a memory the one file in its folder."""
    found = {path.name: path for path in folder.glob("*")}
    return {
        name: next(path.iterdir()) if name.split(".")[0] == "memory" else path for name, path in found.items()
    }


def _observation(row: dict[str, Any]) -> Observation:
    return Observation.model_validate({"text": row["request"], "options": row.get("options") or ()})


mlflow.models.set_model(ServedAgent())
