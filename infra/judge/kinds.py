"""The three kinds of judge: made from labels, and put to work again from what was stored."""

from collections.abc import Sequence

from ratchet.agent.errors import BadInput
from ratchet.evaluation.judge.bias import Preference
from ratchet.evaluation.judge.classifier import Classifier, made_classifier
from ratchet.evaluation.judge.document import JudgeDocument
from ratchet.evaluation.judge.graded import Graded
from ratchet.evaluation.judge.judge import Judge
from ratchet.evaluation.judge.settings import JudgeSettings


def judge_of(document: JudgeDocument) -> Judge:
    """The judge that this document describes.

    Raises:
        BadInput: its LM has no address.
    """
    if document.kind == "classifier":
        return Classifier(document)
    if document.kind == "likelihood":
        from ratchet.agent.lm.embedded import Embedded
        from ratchet.evaluation.judge.likelihood import LikelihoodJudge

        return LikelihoodJudge(document, Embedded())
    from ratchet.infra.judge.rubric import RubricJudge

    return RubricJudge(document)


def prefers_first(document: JudgeDocument) -> Preference:
    """How a rubric's LM compares two answers in one order alone.

    Raises:
        BadInput: its LM has no address.
    """
    from ratchet.infra.judge.rubric import RubricJudge

    return RubricJudge(document).prefers_first


def make_judge_of(
    project: str, graded: Sequence[Graded], settings: JudgeSettings
) -> tuple[JudgeDocument, str] | None:
    """A new judge as the settings want it, and in words what it was made from; None = there are too few labels.

    Raises:
        BadInput: its LM is not named or has no address.
    """
    rubric = {"rubric": settings.rubric, "rubric_version": settings.rubric_version}
    if settings.kind == "rubric":
        from ratchet.infra.judge.rubric import made_rubric_judge

        if not settings.model:
            raise BadInput(
                "judge.kind = rubric asks an LM, and judge.model names none: set it, or another kind"
            )
        return made_rubric_judge(project, graded, model=settings.model, align=settings.align, **rubric)
    n_right = sum(one.is_right for one in graded)
    if len(graded) < settings.min_labels or min(n_right, len(graded) - n_right) < 2:
        return None
    told = f"{len(graded)} labels, {n_right} of them right"
    if settings.kind == "classifier":
        return made_classifier(graded, **rubric), f"a classifier from {told}"
    from ratchet.agent.lm.embedded import Embedded
    from ratchet.evaluation.judge.likelihood import made_likelihood

    return made_likelihood(graded, Embedded(), **rubric), f"the embedded LM's likelihood, scaled by {told}"


def fits(document: JudgeDocument, settings: JudgeSettings) -> bool:
    """Whether a judge is still the one that the settings want."""
    wanted = (settings.kind, settings.rubric, settings.rubric_version)
    model = document.content.get("model") if document.kind == "rubric" else settings.model
    return (document.kind, document.rubric, document.rubric_version) == wanted and model == settings.model
