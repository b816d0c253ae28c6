"""Every error that Ratchet raises on purpose.

RatchetError
├── BadInput             what a person gave us cannot be used; names value, bound and remedy
│   └── CorruptRecord    a stored record does not parse; names where it lies
├── NothingToPropose     a proposer can do nothing with this agent or this evidence; says why
├── ServiceUnavailable   MLflow, an LM endpoint or a webhook did not answer; safe to try again
└── LMFailure            the LM answered with something that cannot be used, or not in time
    └── OutOfTime        the time that a limit leaves was over before there was an answer
"""


class RatchetError(Exception):
    """Base: the command line prints its text as one line and exits with 2."""


class BadInput(RatchetError):
    """What was given cannot be used. The text holds the value, the bound and the remedy."""


class CorruptRecord(BadInput):
    """A stored record does not parse. The text says where it lies."""


class NothingToPropose(RatchetError):
    """A proposer can do nothing with this agent or this evidence. The text says why; it is no failure."""


class ServiceUnavailable(RatchetError):
    """A service did not answer; nothing was lost and the call may be repeated."""


class LMFailure(RatchetError):
    """The LM gave garbage or no answer in time; recorded as a trace with `error`."""


class OutOfTime(LMFailure):
    """The project's limit on seconds ended it; the trace says so in `stopped`, too."""


def said(error: BaseException, limit: int = 300) -> str:
    """What an error says, on one line of at most `limit` characters; its kind, where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:limit]


def named(error: BaseException, limit: int = 500) -> str:
    """Kind and first line of an error that is not ours; a bare kind where it says nothing."""
    name = type(error).__name__
    return f"{name}: {said(error)}"[:limit] if str(error).strip() else name
