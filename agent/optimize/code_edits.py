"""What a developer changed in the code since a version last took it from there, as a challenger of its own.

Decision: an edited default is neither ignored, because the champion says something else, nor served untested. The
champion is kept whole but for the edited parts, which say what the code says now: what was learned of one prompt is
not lost because somebody corrected another.
"""

from collections.abc import Iterable

from ratchet.agent.candidate import Candidate, Origin, Predictor
from ratchet.agent.kinds.program import CHOOSE

HAND = Origin().proposer


def with_edits(champion: Candidate, code: Candidate, known: Iterable[Candidate]) -> Candidate | None:
    """The champion with the edited defaults; None where nothing was edited.

    Args:
        champion: what serves.
        code: the agent as its code has it now.
        known: versions made by hand that served, or were judged: what the code said before.
    """
    if champion.topology.roles or champion.kind != code.kind:
        return None
    prompts, tools = dict(champion.predictors), dict(champion.tools)
    before = list(known)
    edited = []
    for name, predictor in code.predictors.items():
        if code.kind == "built-in" and name != CHOOSE:  # the others are ours
            continue
        said = (one.predictors[name] for one in (champion, *before) if name in one.predictors)
        if any(predictor.instructions == one.instructions for one in said):
            continue
        demos = predictor.demos or (prompts[name].demos if name in prompts else ())
        prompts[name] = Predictor(instructions=predictor.instructions, demos=demos)
        edited.append(name)
    for name, description in code.tools.items():
        if all(description != one.tools.get(name) for one in (champion, *before)):
            tools[name] = description
            edited.append(name)
    if not edited:
        return None
    return champion.model_copy(
        update={
            "predictors": prompts,
            "tools": tools,
            "parent": champion.candidate_id,
            "origin": Origin(
                proposer=HAND, note=f"The defaults in the code as they are now: {', '.join(edited)}."
            ),
        }
    )
