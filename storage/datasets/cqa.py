"""CommonsenseQA: everyday knowledge with five choices (Talmor et al., 2019, arXiv 1811.00937).

The labels of the official test split are not public. So, as in the literature on rationale distillation, our test
split is the official validation split (1,221 questions), and our validation split is the last 975 of the 9,741
training questions.
"""

from storage.datasets.assembly import CHOICES, assemble
from storage.datasets.definition import Dataset, Exemplar
from storage.datasets.hub import HubSource, HubSplit
from storage.datasets.published import multiple_choice

_SOURCE = HubSource(
    repository="tau/commonsense_qa",
    configuration="default",
    splits={
        "train": HubSplit("train", stop=8766),
        "validation": HubSplit("train", start=8766),
        "test": HubSplit("validation"),
    },
)

_INSTRUCTION = (
    "Choose the best answer to the question. Explain your choice in one or two sentences, then finish with "
    '"So the answer is (letter) text."'
)

_EXEMPLARS = (
    Exemplar(
        question="Where would you leave a wet umbrella when you come home?",
        choices=("bookshelf", "hallway stand", "bed", "oven", "rain cloud"),
        rationale=(
            "A wet umbrella should drip where it does no harm, near the door. A stand in the hallway is made for that, "
            "while a shelf or a bed would be spoiled."
        ),
        answer="hallway stand",
    ),
    Exemplar(
        question="What do people usually feel right before they speak to a large audience for the first time?",
        choices=("nervousness", "hunger", "boredom", "applause", "microphone"),
        rationale=(
            "Standing in front of many people for the first time makes most people anxious. Applause comes afterwards, "
            "and a microphone is no feeling."
        ),
        answer="nervousness",
    ),
    Exemplar(
        question="The gardener wanted shade for the bench, so what did she plant beside it?",
        choices=("tulip", "lawn", "carrot", "oak tree", "moss"),
        rationale="Shade for a bench needs something tall with many leaves. Of these only a tree grows that tall.",
        answer="oak tree",
    ),
    Exemplar(
        question="Why would someone put a letter into a drawer without opening it?",
        choices=("write back", "learn news", "avoid bad news", "buy stamps", "find drawer"),
        rationale=(
            "Whoever leaves a letter unopened does not want to know what it says. That fits a person who fears bad "
            "news, while writing back or learning news would need reading it."
        ),
        answer="avoid bad news",
    ),
    Exemplar(
        question="What would a ferry need in order to carry cars?",
        choices=("wings", "railway", "garage door", "traffic light", "flat deck"),
        rationale="Cars stand on a level surface on board, and that is what a flat deck gives them.",
        answer="flat deck",
    ),
)


def cqa() -> Dataset:
    """The dataset."""
    return assemble(
        name="cqa",
        description="everyday knowledge, five choices",
        answers=CHOICES,
        splits=tuple(_SOURCE.splits),
        rows=_SOURCE.rows,
        instruction=_INSTRUCTION,
        exemplars=_EXEMPLARS,
        adapt=multiple_choice,
    )
