"""One training on several cards: a process for each, which accelerate joins, and each does its share of every step.

Decision: the budget and the progress bar stay in the process that began the training. The first of the others asks
it after each step whether to go on, over a socket that only they can open, and tells the answer to its own kind, so
that all stop at the same step. A step learns from as many examples as in one process; each calculates its part.
"""

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from ratchet.agent.errors import BadInput, RatchetError
from ratchet.agent.optimize.budget import BudgetSpent, Meter
from ratchet.agent.optimize.weights.configuration import LoraSettings
from ratchet.agent.record import Json
from ratchet.agent.trace import Usage

JOB: Final = "job.json"
"""What the processes read, in their folder."""
SOCKET: Final = "parent"
ERRORS: Final = "stderr"
_MODULE: Final = "ratchet.agent.optimize.weights.training_process"
_LOOK_S: Final = 1.0
"""Seconds between two looks whether the processes live, until the first of them reports."""
_KINDS: Final = {"BadInput": BadInput, "BudgetSpent": BudgetSpent}


def n_processes(settings: LoraSettings) -> int:
    """As many as the settings say, else as there are cards."""
    import torch

    return settings.processes or max(1, torch.cuda.device_count())


def world_size() -> int:
    """Processes that train together, this one included."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def local_rank() -> int:
    """The card of this process."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def train_distributed(
    method: str,
    base: str | None,
    rows: Sequence[Any],
    folder: Path,
    settings: LoraSettings,
    *,
    seed: int = 0,
    progress: Callable[[int], None] = lambda done: None,
    meter: Meter | None = None,
) -> tuple[str, list[float]]:
    """`train_sft` or `train_preferences` in `n_processes(settings)` processes on this machine.

    Returns:
        The adapter's content hash, and the mean loss of each epoch.

    Raises:
        BadInput: what the training refuses; or its processes ended on their own: the text has their last words.
        BudgetSpent: before the first step.
    """
    job = {
        "method": method,
        "base": base,
        "rows": rows,
        "folder": str(folder.resolve()),
        "settings": settings.model_dump(mode="json", include=set(LoraSettings.model_fields)),
        "seed": seed,
    }
    n = n_processes(settings)
    # for nobody else to read, and a socket's path must be short
    with TemporaryDirectory(prefix="training-") as made:
        scratch = Path(made)
        (scratch / JOB).write_text(json.dumps(job), encoding="utf-8")
        with _listening(scratch) as listener, _begun(scratch, n) as process:
            found = _answer(listener, process, progress, meter or Meter())
            if found is None:
                code, last = process.wait(), _last_words(scratch / ERRORS)
                raise BadInput(
                    f"training in {n} processes ended with exit code {code}: {last}; "
                    "set the proposer's processes = 1 to train in this one"
                )
            return found


@contextmanager
def _listening(scratch: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(scratch / SOCKET))
        listener.listen()
        listener.settimeout(_LOOK_S)
        yield listener


@contextmanager
def _begun(scratch: Path, n: int) -> Iterator["subprocess.Popen[bytes]"]:
    """PyTorch's launcher, with or without cards (accelerate's own asks for MPI without); it ends what it began."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(n)]
    with (scratch / ERRORS).open("wb") as errors:
        process = subprocess.Popen(
            [*launcher, "--module", _MODULE, str(scratch)],
            stdin=subprocess.DEVNULL,
            stdout=errors,
            stderr=errors,
        )
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def _answer(
    listener: socket.socket,
    process: "subprocess.Popen[bytes]",
    progress: Callable[[int], None],
    meter: Meter,
) -> tuple[str, list[float]] | None:
    """What came of it; None where the processes ended without a word of it."""
    while True:
        try:
            connection, _ = listener.accept()
            break
        except TimeoutError:
            if process.poll() is not None:
                return None
    connection.settimeout(None)
    with connection, connection.makefile("rw", encoding="utf-8") as lines:
        for line in lines:
            kind, value = json.loads(line)
            answer: Json = None
            if kind == "result":
                return value[0], value[1]
            if kind == "error":
                raise _KINDS.get(value[0], RatchetError)(value[1])
            if kind == "done":
                progress(value)
            elif kind == "tokens":
                meter.charge(Usage(input_tokens=value))
            elif kind == "take":
                try:
                    meter.take(value)
                except BudgetSpent as error:
                    answer = str(error)
            lines.write(json.dumps(answer) + "\n")
            lines.flush()
    return None


def _last_words(errors: Path) -> str:
    lines = [line.strip() for line in errors.read_text(errors="replace").splitlines() if line.strip()]
    raised = (re.match(r"(?:\[rank\d+\]: )?((?!torch\.distributed)[\w.]+Error\b.*)", line) for line in lines)
    told = [one[1] for one in raised if one] or lines
    return told[-1][:300] if told else "they said nothing"


class Parent(Meter):
    """Who began the training, as the first of its processes sees it: a meter, and somebody to tell of progress."""

    def __init__(self, scratch: Path) -> None:
        super().__init__()
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(scratch / SOCKET))
        self._lines = self._socket.makefile("rw", encoding="utf-8")

    def say(self, kind: str, value: Json) -> None:
        """Report without waiting for an answer: the last word."""
        self._lines.write(json.dumps([kind, value]) + "\n")
        self._lines.flush()

    def ask(self, kind: str, value: Json) -> Any:
        """Report, and what is answered.

        Raises:
            ConnectionError: the parent is gone.
        """
        self.say(kind, value)
        if not (answer := self._lines.readline()):
            raise ConnectionError("the process that began this training is gone")
        return json.loads(answer)

    def take(self, n: int = 1) -> None:
        """Whether it may go on, by the parent's budget."""
        if (spent := self.ask("take", n)) is not None:
            raise BudgetSpent(spent)

    def charge(self, usage: Usage, *, kept_s: float | None = None) -> None:
        """Add tokens to what the parent has spent."""
        self.ask("tokens", usage.input_tokens + usage.output_tokens)

    def progress(self, done: int) -> None:
        """Tell of examples that are done."""
        self.ask("done", done)
