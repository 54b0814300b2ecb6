"""Which objective a method has."""

from models.methods import MethodConfig
from models.objectives.answer_only import AnswerOnly
from models.objectives.attraction import Attraction
from models.objectives.margin import Margin
from models.objectives.mutual_information import MutualInformation
from models.objectives.objective import Objective


def objective_of(method: MethodConfig) -> Objective:
    """The objective of a method with its weights."""
    _, rationale_weight = method.weights
    if not rationale_weight:
        return AnswerOnly(method)
    if method.name == "mi":
        return MutualInformation(method)
    return Margin(method) if method.uses_negatives else Attraction(method)
