"""The sender as the answering process sees it: started with it, started again should it die, ended with it."""

import asyncio
import logging
import sys
from collections.abc import Callable
from typing import Final

from pydantic import ValidationError

from ratchet.agent.errors import said
from ratchet.infra.serve.report import Report, SenderArguments

AGAIN_S: Final = 1.0
LINE_BYTES: Final = 64 << 20
"""A candidate with its prompts and examples is one line."""
ENDS_WITHIN_S: Final = 25.0
logger = logging.getLogger(__name__)


class Beside:
    """Runs the sender for as long as this process serves."""

    def __init__(self, arguments: SenderArguments, heard: Callable[[Report], None]) -> None:
        self._arguments, self._heard = arguments, heard
        self._process: asyncio.subprocess.Process | None = None
        self._is_ending = False

    async def run(self) -> None:
        """Start it, hand over what it says, and start it again should it end too early."""
        while not self._is_ending:
            try:
                ended = f"ended with {await self._run_once()}"
            except (OSError, ValueError) as error:  # no room for a process, or a line beyond all bounds
                ended = f"is not there: {said(error)}"
            if not self._is_ending:
                logger.error("the process that sends traces to MLflow %s; it is started again", ended)
                await asyncio.sleep(AGAIN_S)

    async def _run_once(self) -> int:
        self._process = process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "ratchet.infra.serve.sender", self._arguments.to_json()),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=LINE_BYTES,
            start_new_session=True,  # Linux shares processor time between sessions first, and within them by niceness
        )
        try:
            await self._listen(process)
        except ValueError:
            process.kill()
            raise
        return await process.wait()

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            try:
                report = Report.model_validate_json(line)
            except ValidationError:
                logger.warning("the sender said: %s", line.decode("utf-8", "replace").rstrip())
                continue
            self._heard(report)

    async def end(self) -> None:
        """Let it send what is left, for a while; the rest waits on disk."""
        self._is_ending = True
        process = self._process
        if process is None or process.stdin is None:
            return
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), ENDS_WITHIN_S)
        except TimeoutError:
            process.kill()
