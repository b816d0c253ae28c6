"""Another LM under the same prompts, tools, memory and topology: a challenger like any other.

Why not a setting that replaces the LM: what serves was proven with the LM that it has; another one is another agent,
and has to be shown to be better. Adapters stay behind, they belong to the weights that they were trained for.
"""

from ratchet.agent.errors import NothingToPropose
from ratchet.agent.optimize.evidence import Evidence
from ratchet.agent.optimize.proposer import Proposal, Registered
from ratchet.agent.optimize.work import Work
from ratchet.agent.record import Record


class OtherModel(Record):
    """Try the agent on another LM."""

    name: str = "model"
    model: str
    at: str | None = None
    """Address of the LM's endpoint; None for the embedded LM."""

    def propose(self, parent: Registered, evidence: Evidence, work: Work) -> Proposal | None:
        """The parent on this LM; None if that is its LM, at this address, already."""
        before = parent.candidate
        if before.kind == "callable":
            raise NothingToPropose(
                "the agent's own code says which LM it asks: try another by a candidate whose `models` name it for "
                "the `ratchet.model` parts"
            )
        if (before.base_model, before.api_base) == (self.model, self.at):
            return None
        roles = tuple(role.model_copy(update={"adapter": None}) for role in before.topology.roles)
        candidate = before.model_copy(
            update={
                "base_model": self.model,
                "api_base": self.at,
                "adapter": None,
                "topology": before.topology.model_copy(update={"roles": roles}),
            }
        )
        return Proposal(
            candidate=candidate, note=f"{before.base_model} replaced by {self.model}, all else kept."
        )
