"""Experience replay for agents that answer a case whole: pairs of request and right answer, shown again.

Decision: a pair is remembered whatever it says, for two free answers are seldom the same, and nothing is voted on:
those most like the request are shown, as messages, as a module's demos, or, where the agent's code never asks for
examples, a few of them in its prompt. Of an agent with several prompts each keeps its own share of the experience
(`prompt_shares`).
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

from ratchet.agent.candidate import Demo, share_label
from ratchet.agent.environment import RESPOND
from ratchet.agent.errors import LMFailure, NothingToPropose
from ratchet.agent.kinds.whole import WholeAgent
from ratchet.agent.memory.snapshot import Memory
from ratchet.agent.memory.steps import Experience
from ratchet.agent.optimize.evidence import Evidence, Example
from ratchet.agent.optimize.examples import newest_first, spread
from ratchet.agent.optimize.memory_curation import (
    CurationSettings,
    curate_memory,
    imported_steps,
    message_pairs,
    where_from,
)
from ratchet.agent.optimize.prompt_shares import shares_of
from ratchet.agent.optimize.proposer import Proposal, Registered
from ratchet.agent.optimize.work import Work
from ratchet.agent.part_values import WHOLE
from ratchet.agent.record import Json
from ratchet.agent.trace import Usage

SHOWN: Final = 4
"""Pairs that a call is shown, unless a person says otherwise."""
PLAYED: Final = 60
"""Cases that an agent of several prompts plays, unless a person says otherwise."""
MOST: Final = 1000
"""Pairs that are remembered: people's first, then those that differ most."""
LONGEST: Final = 8000
"""Characters of a pair that is shown: four of these are about 8,000 tokens."""
TRIES: Final = 3
"""Examples that are played to learn whether the agent's code asks for examples."""


def remember_answers(
    parent: Registered, evidence: Evidence, work: Work, *, shown: int, played: int, imported: int
) -> Proposal | None:
    """The parent, shown what was right at requests like the one at hand.

    Args:
        parent: an agent that answers whole.
        evidence: what may be learned from.
        work: how to play it.
        shown: pairs that a call is shown.
        played: training cases that an agent of several prompts plays, where no trace tells what each of them said.
        imported: runs of other agents that may be remembered, too.

    Raises:
        NothingToPropose: nothing was right, or no prompt would be shown it.
    """
    prompts = tuple(parent.candidate.predictors)
    known = [example for example in evidence.examples if example.call is not None]
    if not known:
        raise NothingToPropose(f"of {len(evidence.examples)} examples none says what is right")
    asking = _asking(parent, known, work)
    if len(prompts) > 1 and asking != [WHOLE]:
        shares = shares_of(parent, evidence, known, work, played)
        asked = {name: steps for name, steps in shares.items() if asking is None or name in asking}
        return _shown(parent, asked, work, shown) if asked else _in_prompts(parent, shares, shown)
    theirs = message_pairs(imported_steps(evidence.memory, [e.view for e in spread(known, played)], imported))
    steps = [*theirs, *(_pair(example) for example in newest_first(known))]
    if asking == [] and not prompts:
        raise NothingToPropose(
            "its code asks for no examples and has no prompt that may change: call `ratchet.examples(name, request)` "
            "in it, or name its prompt by `ratchet.prompt` in Project.parts"
        )
    if asking == []:
        return _in_prompts(parent, dict.fromkeys(prompts, steps), shown)
    return _shown(parent, {WHOLE: steps}, work, shown)


def _asking(parent: Registered, known: Sequence[Example], work: Work) -> list[str] | None:
    """Prompts for which the code asks for examples; `WHOLE` for a name of no prompt; None = it need not ask."""
    if parent.candidate.kind != "callable":
        return None
    agent = work.agent(parent.candidate, parent.files)
    assert isinstance(agent, WholeAgent), "a callable answers whole"

    def asked_at(example: Example) -> tuple[Json, Usage]:
        seconds = work.call_limits.seconds
        try:
            used = agent.act(example.view.model_copy(update={"seconds_left": seconds})).usage
        except LMFailure:  # it may have asked before
            return {"parts": sorted(agent.asked), "answered": False}, Usage()
        return {"parts": sorted(agent.asked), "answered": True}, used

    parts: set[str] = set()
    for example in spread(known, TRIES):
        content = ("asks for", parent.candidate.candidate_id, example.view.inputs)
        told = work.once(partial(asked_at, example), *content)
        assert isinstance(told, dict), "it is what `asked_at` says"
        parts.update(map(str, told["parts"]))
        if told["answered"]:
            break
    names = [part.removeprefix("examples ") for part in sorted(parts) if part.startswith("examples ")]
    return [name for name in names if name in parent.candidate.predictors] or ([WHOLE] if names else [])


def _pair(example: Example) -> Experience:
    return Experience(
        observation=example.view.observation.text,
        action=RESPOND,
        arguments={"content": example.call},
        trace_id=example.trace_id,
        case_id=example.view.case_id,
        source="human" if example.source == "human" else "own",
        supersedes=example.supersedes,
    )


def _shown(
    parent: Registered, shares: Mapping[str, Sequence[Experience]], work: Work, shown: int
) -> Proposal:
    """With a memory for each prompt, `WHOLE` for all."""
    recall, embed = work.recall(None)
    memories: dict[str, Memory] = {}
    left_out = 0
    for name, steps in shares.items():
        short = [step for step in steps if len(step.observation) + len(step.said) <= LONGEST]
        left_out += len(steps) - len(short)
        whole = Memory(short, settings=recall, embed=embed)
        memories[name] = curate_memory(whole, CurationSettings(trajectories=MOST), embed=embed).memory
    memories = {name: memory for name, memory in memories.items() if memory.experiences}
    if not memories:
        raise NothingToPropose("nothing that was right is known" + _too_long(left_out))
    files = {}
    for name, memory in memories.items():
        memory.save(path := work.file(f"memory/{memory.memory_id}.jsonl"))
        files["memory" if name == WHOLE else share_label(name)] = path
    own = {name: memory.memory_id for name, memory in memories.items() if name != WHOLE}
    changes = {
        "memory": memories[WHOLE].memory_id if WHOLE in memories else None,
        "memories": own,
        "topology": parent.candidate.topology.model_copy(update={"recalls": shown}),
    }
    return Proposal(
        candidate=parent.candidate.model_copy(update=changes),
        files=files,
        note=f"Remembers {_counted(memories)} and shows the {shown} most like the request{_too_long(left_out)}.",
        parameters={"remembered": {name or "all": len(m.experiences) for name, m in memories.items()}},
    )


def _counted(memories: Mapping[str, Memory]) -> str:
    if WHOLE not in memories:
        told = ", ".join(f"{len(memory.experiences)} for {name}" for name, memory in sorted(memories.items()))
        return f"what each prompt said in runs that won ({told})"
    memory = memories[WHOLE]
    people = sum(step.source == "human" for step in memory.experiences)
    whose = f", {people} of them by people" if people else ""
    return f"{len(memory.experiences)} right answers{whose}{where_from(memory)}"


def _too_long(n: int) -> str:
    return f"; {n} longer than {LONGEST:,} characters are left out" if n else ""


def _in_prompts(
    parent: Registered, shares: Mapping[str, Sequence[Experience]], shown: int
) -> Proposal | None:
    """With the best few as worked examples in the text of the prompts, for code that never asks for examples."""
    predictors, said = dict(parent.candidate.predictors), []
    for name, steps in shares.items():
        short = [step for step in steps if len(step.observation) + len(step.said) <= LONGEST]
        best = curate_memory(Memory(short), CurationSettings(trajectories=shown, diversity=1.0)).memory
        demos = tuple(Demo(inputs=s.observation, output=s.said, case_id=s.case_id) for s in best.experiences)
        if demos:
            predictors[name] = predictors[name].model_copy(update={"demos": demos})
            said.append(f"{len(demos)} in {name}")
    if not said:
        raise NothingToPropose("nothing that was right is known")
    return Proposal(
        candidate=parent.candidate.model_copy(update={"predictors": predictors}),
        note=f"Worked examples in the prompt: {', '.join(said)}; its code asks for none of its own "
        "(`ratchet.examples`), which would show those most like each request.",
    )
