"""Natural language inference: does the premise entail the hypothesis, contradict it, or leave it open?

e-SNLI (Camburu et al., 2018, arXiv 1812.01193) is about short image captions. ANLI (Nie et al., 2020, arXiv 1910.14599)
is about paragraphs, of an encyclopedia in rounds 1 and 2, with hypotheses written to fool a model. Both publish all
three splits, with the labels 0 entailment, 1 neutral, 2 contradiction (the authors of ANLI: e, n, c).
"""

from collections.abc import Mapping
from typing import Any

from storage.datasets.assembly import assemble, labels
from storage.datasets.definition import Dataset, Exemplar
from storage.datasets.hub import HubSource, HubSplit

TEMPLATE = "Premise: {premise}\nHypothesis: {hypothesis}"

# In the order of the published codes. A longer spelling wins over shorter ones inside it, so "neither entailed nor
# contradicted" is read as a whole.
NLI_LABELS = labels(
    ("entailment", "neutral", "contradiction"),
    synonyms={
        "entailment": ("entails", "entailed", "entail"),
        "neutral": (
            "neutrality",
            "neither entailed nor contradicted",
            "neither entails nor contradicts",
            "neither entailment nor contradiction",
            "neither true nor false",
            "not possible to tell",
            "cannot be determined",
        ),
        "contradiction": ("contradicts", "contradicted", "contradict", "contradictory"),
    },
    short_answers={
        "entailment": ("yes", "true", "e"),
        "neutral": ("maybe", "unknown", "undetermined", "it's not possible to tell", "it is not possible to tell", "n"),
        "contradiction": ("no", "false", "c"),
    },
)

_INSTRUCTION = (
    "Decide how the hypothesis relates to the premise: entailment (it must be true), neutral (it may or may not be "
    'true) or contradiction (it cannot be true). Explain in one or two sentences, then finish with "So the '
    'answer is LABEL."'
)

_ESNLI = HubSource(
    repository="esnli/esnli",
    configuration="plain_text",
    splits={name: HubSplit(name) for name in ("train", "validation", "test")},
)


def _exemplar(premise: str, hypothesis: str, rationale: str, answer: str) -> Exemplar:
    return Exemplar(TEMPLATE.format(premise=premise, hypothesis=hypothesis), rationale, answer)


_ESNLI_EXEMPLARS = (
    _exemplar(
        "A boy in a yellow raincoat jumps into a puddle.",
        "A child is playing outdoors.",
        "A boy is a child, and jumping into a puddle in a raincoat is play that happens outdoors.",
        "entailment",
    ),
    _exemplar(
        "Two women sort apples at a market stall.",
        "The women own the stall.",
        "People who sort apples at a stall may own it, but they may just as well be employed there.",
        "neutral",
    ),
    _exemplar(
        "A man sleeps on a bench with a newspaper over his face.",
        "A man is jogging through the park.",
        "Nobody can sleep on a bench and jog at the same time.",
        "contradiction",
    ),
    _exemplar(
        "A crowd watches a street musician play the violin.",
        "People are listening to their favourite song.",
        "The crowd hears a violin, but nothing says that the piece is anybody's favourite.",
        "neutral",
    ),
)

_ANLI_EXEMPLARS = (
    _exemplar(
        "The Harlow Line is a tramway in the coastal town of Brenmouth. Opened in 1931 with nine stops, it was "
        "extended by four more in 1958 and has been run by the town since 1970.",
        "The Harlow Line had more than ten stops in 1960.",
        "It opened with nine stops and got four more in 1958, so in 1960 it had thirteen, which is more than ten.",
        "entailment",
    ),
    _exemplar(
        "Ilse Korben (born 4 March 1952) is a painter who studied in Graz before moving to Lisbon, where her first "
        "solo exhibition took place in 1981.",
        "Ilse Korben's first solo exhibition took place before she turned twenty.",
        "She was born in 1952 and the exhibition was in 1981, when she was already twenty-nine.",
        "contradiction",
    ),
    _exemplar(
        "Night Harbour is a 1974 adventure film directed by Paul Denning. It was shot in Malta and released in eleven "
        "countries.",
        "Night Harbour earned more money abroad than at home.",
        "The premise says where the film was shot and in how many countries it ran, but nothing about what it earned.",
        "neutral",
    ),
    _exemplar(
        "The Rosvik lighthouse, built of red granite in 1866, stands on the northern tip of the island and was the "
        "first in the county to be lit by electricity.",
        "No other lighthouse in the county had electric light before Rosvik's.",
        "Being the first in the county to be lit by electricity means that none had it earlier.",
        "entailment",
    ),
)


# Columns as the authors of e-SNLI, SNLI (without capitals) and ANLI name them.
_PUBLISHED = {
    "Sentence1": "premise",
    "Sentence2": "hypothesis",
    "sentence1": "premise",
    "sentence2": "hypothesis",
    "context": "premise",
    "gold_label": "label",
}


def _adapt(row: Mapping[str, Any]) -> Mapping[str, Any]:
    names = {column: field for column, field in _PUBLISHED.items() if column in row and field not in row}
    return {names.get(column, column): value for column, value in row.items()} if names else row


def esnli() -> Dataset:
    """e-SNLI."""
    return assemble(
        name="esnli",
        description="inference over image captions",
        answers=NLI_LABELS,
        splits=tuple(_ESNLI.splits),
        rows=_ESNLI.rows,
        instruction=_INSTRUCTION,
        exemplars=_ESNLI_EXEMPLARS,
        template=TEMPLATE,
        adapt=_adapt,
    )


def anli(number: int) -> Dataset:
    """ANLI, round 1, 2 or 3."""
    source = HubSource(
        repository="facebook/anli",
        configuration="plain_text",
        splits={
            "train": HubSplit(f"train_r{number}"),
            "validation": HubSplit(f"dev_r{number}"),
            "test": HubSplit(f"test_r{number}"),
        },
    )
    return assemble(
        name=f"anli{number}",
        description=f"adversarial inference over paragraphs, round {number}",
        answers=NLI_LABELS,
        splits=tuple(source.splits),
        rows=source.rows,
        instruction=_INSTRUCTION,
        exemplars=_ANLI_EXEMPLARS,
        template=TEMPLATE,
        adapt=_adapt,
    )
