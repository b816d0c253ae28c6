"""What one serving process holds: its versions, its journal, its upstream, and the sender beside it."""

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Final

from ratchet.agent.build import kind_of
from ratchet.agent.errors import RatchetError
from ratchet.agent.project import Project
from ratchet.infra.first_day import first_day_candidate
from ratchet.infra.registry.agents import agent_of
from ratchet.infra.registry.alias_names import CHAMPION
from ratchet.infra.serve.act import ActRoute
from ratchet.infra.serve.beside import Beside
from ratchet.infra.serve.chat import ChatRoute
from ratchet.infra.serve.deployments import Deployed, Deployments
from ratchet.infra.serve.journal import Journal, journals_folder
from ratchet.infra.serve.metrics import VERSION
from ratchet.infra.serve.relay import Relay
from ratchet.infra.serve.report import Report, SenderArguments, Served
from ratchet.infra.settings import Settings

SAY_AGAIN_S: Final = 60.0
"""A warning that comes again sooner is not logged again."""
logger = logging.getLogger(__name__)


class Server:
    """One project's agent, served."""

    def __init__(
        self, project: Project, settings: Settings, *, canary_share: float = 0.0, poll_s: float = 2.0
    ) -> None:
        """Nothing is started yet.

        Args:
            project: whose agent.
            settings: where things are.
            canary_share: of all sessions, the share in [0, 1] that the canary answers where there is one.
            poll_s: seconds between two looks at the aliases.
        """
        self.project, self.settings = project, settings
        self.keys = settings.keys
        self.deployments = Deployments(project.name, canary_share=canary_share)
        self._poll_s = poll_s
        self._built: dict[str, Deployed] = {}
        self._switching = asyncio.Lock()
        self._n_sent = 0
        self._upstream: Relay | None = None
        self.chat: ChatRoute | None = None
        self.act: ActRoute | None = None
        self._told_at: dict[str, float] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Begin a journal, and start the sender."""
        folder = journals_folder(self.settings.made_home(), self.project.name)
        self.journal = Journal(folder)
        arguments = SenderArguments(
            project=self.project.name,
            folder=folder.parent,
            journal=self.journal.folder,
            poll_s=self._poll_s,
            first=first_day_candidate(self.project),
        )
        self._beside = Beside(arguments, self._heard)
        self._running = asyncio.create_task(self._beside.run())
        self._make_routes()

    def _make_routes(self) -> None:
        """Of a chat endpoint the one that passes on, of an agent in Python the one that plays."""
        most = self.settings.serve_max_body
        if kind_of(self.project.agent) == "chat":
            secret = self.settings.lm_api_key
            key = secret.get_secret_value() if secret is not None else None
            self._upstream = Relay(self.project.agent.upstream, key, timeout_s=self.settings.lm_timeout_s)
            self.chat = ChatRoute(self.deployments, self._upstream, self.journal, max_body=most)
            return
        self.act = ActRoute(
            self.project,
            self.deployments,
            self.journal,
            at_once=self.settings.lm_concurrency,
            timeout_s=self.settings.lm_timeout_s,
            max_body=most,
        )

    async def end(self) -> None:
        """Everything that was answered is on disk; what MLflow takes in time is sent."""
        await self.journal.close()
        await self._beside.end()
        await self._running
        if self._upstream is not None:
            await self._upstream.close()

    def _heard(self, report: Report) -> None:
        if report.warning is not None:
            self._warn(report.warning)
        if report.sent is not None:
            self._n_sent = report.sent
        if report.served is not None:
            task = asyncio.get_running_loop().create_task(self._switch(report.served, report.pointed))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _warn(self, text: str) -> None:
        """MLflow that is down is told of by every try."""
        now = time.monotonic()
        self._told_at = {one: at for one, at in self._told_at.items() if now - at < SAY_AGAIN_S}
        if text not in self._told_at:
            self._told_at[text] = now
            logger.warning("%s", text)

    async def _switch(self, served: Mapping[str, Served], pointed: Sequence[int]) -> None:
        """Build what is new aside, then let it answer; one that cannot be built leaves its alias as it was."""
        async with self._switching:  # in the order in which they were heard
            now = dict(self.deployments.by_alias)
            there: dict[str, Deployed] = {}
            for alias, one in served.items():
                try:
                    there[alias] = await asyncio.to_thread(self._build, one)
                except RatchetError as error:
                    if alias in now:
                        there[alias] = now[alias]
                    stands = "stays as it was" if alias in now else "does not answer"
                    logger.error("%s %s: %s", alias, stands, error)
            if CHAMPION not in there and CHAMPION in now:
                logger.error("the champion's alias is gone: the last one goes on serving")
                there[CHAMPION] = now[CHAMPION]
            self.deployments.switch(there, [*pointed, *(one.number for one in there.values())])
            self._built = {one.candidate_id: one for one in there.values()}
            VERSION.clear()
            for alias, deployed in there.items():
                VERSION.labels(alias, str(deployed.number), deployed.candidate_id).set(1)
                if deployed is not now.get(alias):
                    logger.warning("%s is now version %d (%s)", alias, deployed.number, deployed.candidate_id)

    def _build(self, served: Served) -> Deployed:
        """Takes seconds where there is a memory or an adapter to load: in a thread."""
        candidate = served.candidate
        known = self._built.get(candidate.candidate_id)
        if known is not None:
            return known
        agent = agent_of(self.project, candidate, served.files, self.settings, served.probes)
        if agent.lm:
            agent.lm.load()
        return Deployed(served.number, agent.serving(), candidate.candidate_id, candidate.memory)

    @property
    def n_unsent(self) -> int:
        """Lines of this process's journal that MLflow does not have yet."""
        return max(0, self.journal.n_lines - self._n_sent)
