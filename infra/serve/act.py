"""`/v1/act`: an agent in Python answers one case, in a thread, by the rollout code that the gate plays it with."""

import asyncio
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from ratchet.agent.case import Case
from ratchet.agent.environment import RESPOND, Environment
from ratchet.agent.kinds.answering import Answering
from ratchet.agent.project import Project
from ratchet.agent.record import as_json
from ratchet.agent.rollout.loop import run
from ratchet.agent.trace import Trace
from ratchet.infra.serve.chat import session_of, version_headers
from ratchet.infra.serve.deployments import Deployed, Deployments
from ratchet.infra.serve.http import JSON, Receive, Refused, Scope, Send, read_body, read_object, send_answer
from ratchet.infra.serve.journal import Journal

QUEUED: Final = 4
"""Requests that may wait for each thread; more are sent away (503), to come again."""


class ActRoute:
    """Answers cases."""

    def __init__(
        self,
        project: Project,
        deployments: Deployments,
        journal: Journal,
        *,
        at_once: int,
        timeout_s: float,
        max_body: int,
    ) -> None:
        """Get ready.

        Args:
            project: whose agent.
            deployments: who answers.
            journal: where the traces are kept.
            at_once: cases that are played at the same time.
            timeout_s: how long a caller waits; the agent is let go on, and its trace is kept.
            max_body: bytes.
        """
        self._project, self._deployments, self._journal = project, deployments, journal
        self._threads = ThreadPoolExecutor(at_once, thread_name_prefix="act")
        self._timeout_s, self._max_body = timeout_s, max_body
        self._under_way, self._most = 0, at_once * (1 + QUEUED)
        self._kept: set[asyncio.Task[Trace]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request; Refused where it cannot be served."""
        asked = read_object(await read_body(scope, receive, self._max_body))
        session_id = session_of(scope, asked)
        case = _case(asked)
        model = asked.get("model", f"ratchet/{self._project.name}")
        deployed = self._deployments.pick(model, session_id)
        if self._under_way >= self._most:
            raise Refused(503, "busy", f"{self._under_way} requests are under way: ask again later")
        task = asyncio.create_task(self._play(deployed, case, session_id))
        self._kept.add(task)  # it outlives its caller
        task.add_done_callback(self._kept.discard)
        try:
            trace = await asyncio.wait_for(asyncio.shield(task), self._timeout_s)
        except TimeoutError as error:
            said = f"no answer within {self._timeout_s:g} s: RATCHET_LM_TIMEOUT_S; its trace is kept when it comes"
            raise Refused(504, "timeout", said) from error
        headers = version_headers(trace.candidate_id, trace.trace_id) + JSON
        if trace.error is not None:
            failed = Refused(500, "agent_failed", f"{trace.error.kind}: {trace.error.message}")
            await send_answer(send, failed.status, failed.body, headers)
            return
        await send_answer(send, 200, orjson.dumps(_said(trace)), headers)

    async def _play(self, deployed: Deployed, case: Case, session_id: str | None) -> Trace:
        """Play it, and keep its trace before anybody hears of it."""
        self._under_way += 1
        try:
            loop = asyncio.get_running_loop()
            trace = await loop.run_in_executor(self._threads, self._rollout, deployed, case, session_id)
        finally:
            self._under_way -= 1
        await self._journal.commit(trace_line(trace))
        return trace

    def _rollout(self, deployed: Deployed, case: Case, session_id: str | None) -> Trace:
        now = datetime.now(UTC)
        [trace] = run(
            deployed.agent,
            [case],
            self._world(deployed),
            at=lambda _: now,
            session=lambda _: session_id,
            with_arguments=self._project.with_arguments,
            limits=self._project.limits,
        )
        return trace.model_copy(update={"trace_id": uuid.uuid4().hex})  # the same case may come twice at once

    def _world(self, deployed: Deployed) -> Callable[[], Environment]:
        """Where it acts; an answer that is given whole is scored while its caller waits only if it may be retried."""
        is_whole = deployed.agent.candidate.kind != "built-in"
        return Answering if is_whole and deployed.agent.attempts == 1 else self._project.environment


def trace_line(trace: Trace) -> bytes:
    """As the journal keeps it."""
    return orjson.dumps({"trace": trace.model_dump(mode="json")}, option=orjson.OPT_APPEND_NEWLINE)


def _case(asked: dict[str, Any]) -> Case:
    inputs = asked.get("inputs")
    if not isinstance(inputs, dict):
        raise Refused(400, "no_inputs", 'the body needs "inputs": an object, as the agent takes them by name')
    try:
        return Case(inputs=as_json(inputs))
    except ValueError as error:
        raise Refused(400, "bad_inputs", f"inputs: {error}") from error


def _said(trace: Trace) -> dict[str, Any]:
    """The answer; of an action that takes arguments these, too."""
    told: dict[str, Any] = {"answer": trace.answer, "trace_id": trace.trace_id, "version": trace.candidate_id}
    if trace.action is not None and trace.action.name != RESPOND and trace.action.arguments is not None:
        told["arguments"] = trace.action.arguments
    return told
