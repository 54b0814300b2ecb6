"""StrategyQA: yes or no, where the steps to the answer are not in the question (Geva et al., 2021, arXiv 2101.02235).

The labels of the authors' test split are not public. The hub's copy divides their 2,290 training questions into 1,603
and 687; our test split is the latter, and our validation split is the last 203 of the former.
"""

from storage.datasets.assembly import assemble
from storage.datasets.definition import Dataset, Exemplar
from storage.datasets.hub import HubSource, HubSplit
from storage.datasets.published import YES_NO, answer_as_label

_SOURCE = HubSource(
    repository="ChilleD/StrategyQA",
    configuration="default",
    splits={
        "train": HubSplit("train", stop=1400),
        "validation": HubSplit("train", start=1400),
        "test": HubSplit("test"),
    },
)

_INSTRUCTION = (
    "Answer the question with yes or no. Say what must be known and what follows from it, step by step, then finish "
    'with "So the answer is yes." or "So the answer is no."'
)

_EXEMPLARS = (
    Exemplar(
        question="Could a giraffe stand upright inside a standard shipping container?",
        rationale="A grown giraffe is over 4 metres tall. A standard container is about 2.6 metres high.",
        answer="no",
    ),
    Exemplar(
        question="Would someone with a peanut allergy be wise to avoid satay sauce?",
        rationale="Satay sauce is made from ground peanuts. Who is allergic to peanuts must not eat them.",
        answer="yes",
    ),
    Exemplar(
        question="Did the ancient Romans grow potatoes?",
        rationale=(
            "Potatoes come from South America and reached Europe in the 16th century. The Roman Empire in the west "
            "fell in the 5th."
        ),
        answer="no",
    ),
    Exemplar(
        question="Can a marathon be finished within a working day of eight hours?",
        rationale="A marathon is 42 km long. At a walking pace of 6 km an hour that takes 7 hours, less than eight.",
        answer="yes",
    ),
)


def strategyqa() -> Dataset:
    """The dataset."""
    return assemble(
        name="strategyqa",
        description="yes or no, by steps that are not in the question",
        answers=YES_NO,
        splits=tuple(_SOURCE.splits),
        rows=_SOURCE.rows,
        instruction=_INSTRUCTION,
        exemplars=_EXEMPLARS,
        adapt=answer_as_label,
    )
