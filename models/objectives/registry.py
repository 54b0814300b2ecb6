"""Which objective a method has."""

from models.methods import Contrast, MethodConfig
from models.objectives.answer_only import AnswerOnly
from models.objectives.asymmetric import Asymmetric
from models.objectives.attraction import Attraction
from models.objectives.divergence import Divergence
from models.objectives.margin import Margin
from models.objectives.mutual_information import MutualInformation
from models.objectives.objective import Objective
from models.objectives.relative import Relative

CONTRASTS: dict[Contrast, type[Attraction]] = {
    "margin": Margin,
    "relative": Relative,
    "divergence": Divergence,
    "asymmetric": Asymmetric,
    "none": Attraction,
}


def objective_of(method: MethodConfig) -> Objective:
    """The objective of a method with its weights."""
    _, rationale_weight = method.weights
    if not rationale_weight:
        return AnswerOnly(method)
    if method.name == "mi":
        return MutualInformation(method)
    return CONTRASTS[method.contrast](method) if method.uses_negatives else Attraction(method)
