"""The desk's agent as a team has it: a `dspy.Module` and MLflow's own tracing. Its predictors may change."""

import os

import dspy
import mlflow
from tickets import requests

import ratchet

ADDRESS = os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8399/v1")


class Support(dspy.Module):
    """The team that a request goes to."""

    def __init__(self) -> None:
        super().__init__()
        self.choose = dspy.Predict(dspy.Signature("request -> team", "Which team solves the request?"))
        self.set_lm(dspy.LM("openai/scripted", api_base=ADDRESS, api_key="none", cache=False))

    def forward(self, request: str) -> dspy.Prediction:
        """Ask once."""
        return self.choose(request=request)


support = ratchet.module("my_agent", Support())

if __name__ == "__main__":  # production
    mlflow.set_experiment("my_agent")
    mlflow.dspy.autolog()
    for row in requests():
        with ratchet.session(f"ticket-{row['ticket']}"):
            print(row["request"], "→", support(request=row["request"]).team)
