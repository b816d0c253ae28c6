"""Whether an agent in the user's code may be played again: only where somebody said that this changes nothing.

Decision: silence is no. A gate that books flights to see which version books better would be a disaster, and nothing
in a function tells whether it does. Asked wherever such an agent is about to act, and once before a round begins.
"""

from typing import Final, Literal

from ratchet.agent.errors import BadInput

Effects = Literal["none", "guarded"]
"""`none`: its tools change nothing outside; `guarded`: they ask `ratchet.is_trial()` before they do."""
REFUSED: Final = (
    'the agent is not played again, so no version can be compared: say Project(effects="none") if its tools change '
    'nothing outside, or effects="guarded" if they ask ratchet.is_trial() before they do'
)


def require_replay(effects: Effects | None) -> None:
    """Refuse to play an agent again of whose tools nobody said what they change.

    Raises:
        BadInput: says what to write, and where.
    """
    if effects is None:
        raise BadInput(REFUSED)
