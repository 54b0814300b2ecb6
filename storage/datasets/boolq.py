"""BoolQ: yes-no questions that people asked a search engine, with a passage that answers them (Clark et al., 2019,
arXiv 1905.10044).

The labels of the official test split are not public. So our test split is the official validation split (3,270
questions), and our validation split is the last 1,000 of the 9,427 training questions.
"""

from storage.datasets.assembly import assemble
from storage.datasets.definition import Dataset, Exemplar
from storage.datasets.hub import HubSource, HubSplit
from storage.datasets.published import YES_NO, answer_as_label

TEMPLATE = "Passage: {passage}\nQuestion: {question}"

_SOURCE = HubSource(
    repository="google/boolq",
    configuration="default",
    splits={
        "train": HubSplit("train", stop=8427),
        "validation": HubSplit("train", start=8427),
        "test": HubSplit("validation"),
    },
)

_INSTRUCTION = (
    "Answer the question from the passage with yes or no. Say in one or two sentences what in the passage decides it, "
    'then finish with "So the answer is yes." or "So the answer is no."'
)


def _exemplar(passage: str, question: str, rationale: str, answer: str) -> Exemplar:
    return Exemplar(TEMPLATE.format(passage=passage, question=question), rationale, answer)


_EXEMPLARS = (
    _exemplar(
        "The Lauven Bridge carries two railway tracks over the Mirn. A footway was added on its north side in 1962; "
        "cars use the road bridge half a kilometre upstream.",
        "can you walk across the lauven bridge",
        "The passage says that a footway was added in 1962, so people can cross on foot.",
        "yes",
    ),
    _exemplar(
        "Tarn berries are the fruit of a low shrub of northern bogs. They are eaten cooked; raw ones hold a bitter "
        "substance that causes cramps.",
        "are tarn berries safe to eat raw",
        "Raw berries hold a substance that causes cramps, so they are not safe uncooked.",
        "no",
    ),
    _exemplar(
        "The second season of Harbour Lights was broadcast from March 2011. The series ended with its third season the "
        "year after.",
        "is there a season 3 of harbour lights",
        "The series ended with its third season, so there is one.",
        "yes",
    ),
)


def boolq() -> Dataset:
    """The dataset."""
    return assemble(
        name="boolq",
        description="yes-no questions about a passage",
        answers=YES_NO,
        splits=tuple(_SOURCE.splits),
        rows=_SOURCE.rows,
        instruction=_INSTRUCTION,
        exemplars=_EXEMPLARS,
        template=TEMPLATE,
        adapt=answer_as_label,
    )
