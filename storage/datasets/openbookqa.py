"""OpenBookQA: elementary science that needs a fact and common sense, four choices (Mihaylov et al., 2018, arXiv
1809.02789).

The hub has 4,957 training, 500 validation and 500 test questions.
"""

from storage.datasets.assembly import CHOICES, assemble
from storage.datasets.definition import Dataset, Exemplar
from storage.datasets.hub import HubSource, HubSplit
from storage.datasets.published import multiple_choice

_SOURCE = HubSource(
    repository="allenai/openbookqa",
    configuration="main",
    splits={name: HubSplit(name) for name in ("train", "validation", "test")},
)

_INSTRUCTION = (
    "Choose the best answer, or the best end of the sentence. Name the fact behind it in one or two sentences, then "
    'finish with "So the answer is (letter) text."'
)

_EXEMPLARS = (
    Exemplar(
        question="A wet shirt will be dry sooner if it is hung",
        choices=("in a cellar", "in a closed bag", "in the wind", "under the bed"),
        rationale="Water evaporates faster where air moves over it, and of these places only the wind moves air.",
        answer="in the wind",
    ),
    Exemplar(
        question="What lets an owl find a mouse on a dark night?",
        choices=("keen hearing", "bright feathers", "a long beak", "warm blood"),
        rationale="An owl hunts by night, when little can be seen, so it locates its prey by the sounds it makes.",
        answer="keen hearing",
    ),
    Exemplar(
        question="Which of these saves electricity in a house?",
        choices=("more lamps", "open windows", "a bigger oven", "thicker walls"),
        rationale="Thick walls keep heat in, so that less heating or cooling is needed. The others use or lose more.",
        answer="thicker walls",
    ),
    Exemplar(
        question="A stone that was smoothed over thousands of years most likely lay in",
        choices=("a desert cave", "a stream bed", "a tree", "a glass case"),
        rationale="Moving water and sand wear the edges of stones down, and that happens in the bed of a stream.",
        answer="a stream bed",
    ),
)


def openbookqa() -> Dataset:
    """The dataset."""
    return assemble(
        name="openbookqa",
        description="elementary science, four choices",
        answers=CHOICES,
        splits=tuple(_SOURCE.splits),
        rows=_SOURCE.rows,
        instruction=_INSTRUCTION,
        exemplars=_EXEMPLARS,
        adapt=multiple_choice,
    )
