"""Which LM writes instructions and tool descriptions: a strong one may write for a small one that serves."""

from ratchet.agent.candidate import IN_CODE, Candidate
from ratchet.agent.kinds.chat_endpoint import Chat
from ratchet.agent.lm.endpoint import Endpoint
from ratchet.agent.lm.lm import LM
from ratchet.agent.lm.of_candidate import lm_for, lm_type
from ratchet.infra.settings import Settings


def reflection_lm(candidate: Candidate, *, chat: Chat | None = None) -> LM | None:
    """`RATCHET_REFLECTION_LM`, else the candidate's own where that can write; None = nobody writes.

    Args:
        candidate: whose texts are written.
        chat: the endpoint that the agent is: its own LM is asked there and nowhere else.

    Raises:
        BadInput: it has no address.
    """
    settings = Settings()
    if settings.reflection_lm:
        return Endpoint(settings.reflection_lm, **settings.reflection_endpoint)
    if chat is not None:
        from ratchet.agent.kinds.chat import chat_lm

        return chat_lm(chat, candidate, settings.endpoint)
    if candidate.base_model == IN_CODE or not lm_type(candidate.base_model).writes:
        return None
    return lm_for(candidate, endpoint=settings.endpoint)
