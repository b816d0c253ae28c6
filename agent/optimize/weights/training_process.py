"""One of several processes that train together: `ratchet.agent.optimize.weights.distributed` begins them."""

import json
import os
import sys
from pathlib import Path
from typing import Any

from ratchet.agent.errors import RatchetError
from ratchet.agent.optimize.weights.configuration import LoraSettings
from ratchet.agent.optimize.weights.distributed import JOB, Parent
from ratchet.agent.optimize.weights.preferences import train_preferences
from ratchet.agent.optimize.weights.sft import train_sft


def main(scratch: Path) -> None:
    """Train; the first process reports. What it refuses, all refuse, and the first says so."""
    job: dict[str, Any] = json.loads((scratch / JOB).read_text(encoding="utf-8"))
    first = Parent(scratch) if os.environ["RANK"] == "0" else None
    told: dict[str, Any] = {"progress": first.progress, "meter": first} if first else {}
    train: Any = train_sft if job["method"] == "sft" else train_preferences
    settings = LoraSettings.model_validate(job["settings"])
    try:
        found = train(job["base"], job["rows"], Path(job["folder"]), settings, seed=job["seed"], **told)
    except RatchetError as error:
        if first:
            first.say("error", [type(error).__name__, str(error)])
        return
    if first:
        first.say("result", list(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
