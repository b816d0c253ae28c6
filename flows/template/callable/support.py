"""The desk's agent as a team has it: OpenAI's client and MLflow's own tracing. What may change is named."""

import os
from typing import Any

import mlflow
from openai import OpenAI
from tickets import requests

import ratchet

client = OpenAI(base_url=os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8399/v1"), api_key="none")
system = ratchet.prompt("my_agent-system", default="Which team solves the request? Answer with its name.")


@mlflow.trace
def support(request: str) -> str:
    """The team that a request goes to."""
    worked = ratchet.examples("my_agent-system", request)
    messages: list[Any] = [{"role": "system", "content": system()}, *worked]
    messages += [{"role": "user", "content": request}]
    reply = client.chat.completions.create(
        model=ratchet.model("my_agent-lm", default="scripted"), messages=messages
    )
    return reply.choices[0].message.content or ""


if __name__ == "__main__":  # production
    mlflow.set_experiment("my_agent")
    mlflow.openai.autolog()
    for row in requests():
        with ratchet.session(f"ticket-{row['ticket']}"):
            print(row["request"], "→", support(row["request"]))
