"""ARC: science questions of school exams, mostly with four choices (Clark et al., 2018, arXiv 1803.05457).

The Challenge set has 1,119 training, 299 validation and 1,172 test questions, the Easy set 2,251, 570 and 2,376.
"""

from storage.datasets.assembly import CHOICES, assemble
from storage.datasets.definition import Dataset, Exemplar
from storage.datasets.hub import HubSource, HubSplit
from storage.datasets.published import multiple_choice

_INSTRUCTION = (
    "Choose the best answer to the science question. Explain your choice in one or two sentences, then finish with "
    '"So the answer is (letter) text."'
)

_EXEMPLARS = (
    Exemplar(
        question="Why does a metal spoon in hot tea soon feel hot at its dry end?",
        choices=("It glows.", "Metal conducts heat.", "Steam covers it.", "Tea dissolves metal."),
        rationale=(
            "Heat moves along the spoon from the tea to the dry end, because metal passes heat on well. Nothing glows "
            "or dissolves in hot tea."
        ),
        answer="Metal conducts heat.",
    ),
    Exemplar(
        question="Which of these is a living part of a pond?",
        choices=("sunlight", "mud", "water", "algae"),
        rationale="Algae grow and multiply, so they live. Sunlight, mud and water do neither.",
        answer="algae",
    ),
    Exemplar(
        question="A plant on a windowsill bends toward the glass. What does it respond to?",
        choices=("light", "gravity", "wind", "sound"),
        rationale="Behind the glass is the light that the plant needs, and stems grow toward light.",
        answer="light",
    ),
    Exemplar(
        question="What is the best way to separate sand from salt?",
        choices=(
            "Shake them in a jar.",
            "Pull the salt out with a magnet.",
            "Stir them into water, then filter.",
            "Freeze them.",
        ),
        rationale=(
            "Salt dissolves in water and runs through a filter, which holds the sand back. A magnet attracts neither, "
            "and shaking or freezing leaves them mixed."
        ),
        answer="Stir them into water, then filter.",
    ),
)


def arc(configuration: str, name: str) -> Dataset:
    """One of the two sets.

    Args:
        configuration: ARC-Challenge or ARC-Easy.
        name: the dataset's.
    """
    source = HubSource(
        repository="allenai/ai2_arc",
        configuration=configuration,
        splits={split: HubSplit(split) for split in ("train", "validation", "test")},
    )
    return assemble(
        name=name,
        description=f"school science, three to five choices ({configuration})",
        answers=CHOICES,
        splits=tuple(source.splits),
        rows=source.rows,
        instruction=_INSTRUCTION,
        exemplars=_EXEMPLARS,
        adapt=multiple_choice,
    )
