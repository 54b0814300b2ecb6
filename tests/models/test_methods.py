"""Every method's four properties, the paper's defaults, and switches that belong to qcrd only."""

from typing import Any, get_args

import pytest
from pydantic import ValidationError

from models.losses import discriminator_weight
from models.methods import READS_CE, MethodConfig, MethodName, Scheme

# answer from, positives, negatives, quality scores, rationale and answer in one text, (a1, a2)
TABLE: dict[MethodName, tuple[str, str, bool, bool, bool, tuple[float, float]]] = {
    "finetune": ("gold", "none", False, False, False, (1.0, 0.0)),
    "label-distill": ("teacher", "none", False, False, False, (1.0, 0.0)),
    "single-task": ("gold", "first", False, False, True, (0.0, 1.0)),
    "dss": ("gold", "first", False, False, False, (0.5, 0.5)),
    "mi": ("gold", "first", False, False, False, (0.5, 0.5)),
    "qcrd": ("gold", "voted", True, True, False, (0.5, 0.5)),
}


def properties(method: MethodConfig) -> tuple[str, str, bool, bool, bool, tuple[float, float]]:
    return (
        method.answer_source,
        method.rationales,
        method.uses_negatives,
        method.uses_discriminator,
        method.one_target,
        method.weights,
    )


def test_every_method_is_in_the_table() -> None:
    assert set(TABLE) == set(get_args(MethodName))


@pytest.mark.parametrize("name", TABLE)
def test_the_methods(name: MethodName) -> None:
    assert properties(MethodConfig(name=name)) == TABLE[name]


@pytest.mark.parametrize("name", TABLE)
def test_the_teachers_labels(name: MethodName) -> None:
    _, *others = TABLE[name]
    assert properties(MethodConfig(name=name, labels="teacher")) == ("teacher", *others)


def test_the_papers_defaults() -> None:
    method = MethodConfig()
    assert (method.name, method.scheme, method.labels) == ("qcrd", "min-max", "gold")
    assert (method.beta, method.delta, method.mi_weight, method.refresh_every) == (0.2, 3.0, 0.1, 1)
    a3 = [discriminator_weight(t, method.discriminator_weight, method.discriminator_decay) for t in range(3)]
    assert a3 == pytest.approx([0.5, 0.45, 0.405])


@pytest.mark.parametrize(
    ("off", "expected"),
    [
        ({"voting"}, ("first", True, True)),
        ({"negatives"}, ("voted", False, True)),
        ({"discriminator"}, ("voted", True, False)),
        ({"discriminator", "negatives"}, ("voted", False, False)),
        ({"discriminator", "negatives", "voting"}, ("first", False, False)),
    ],
)
def test_the_ablations(off: set[str], expected: tuple[str, bool, bool]) -> None:
    method = MethodConfig.model_validate(dict.fromkeys(off, False))
    assert (method.rationales, method.uses_negatives, method.uses_discriminator) == expected
    assert method.weights == (0.5, 0.5)
    assert method.answer_source == "gold"


def test_without_its_three_parts_qcrd_is_dss() -> None:
    bare = MethodConfig(voting=False, negatives=False, discriminator=False)
    assert properties(bare) == properties(MethodConfig(name="dss"))


@pytest.mark.parametrize("name", [name for name in TABLE if name != "qcrd"])
@pytest.mark.parametrize("switch", ["voting", "negatives", "discriminator"])
def test_switches_are_for_qcrd_only(name: str, switch: str) -> None:
    with pytest.raises(ValidationError, match=f"{switch} can be switched off for qcrd only, not for {name}"):
        MethodConfig.model_validate({"name": name, switch: False})


def test_several_switches_are_named() -> None:
    with pytest.raises(ValidationError, match="voting and discriminator can be switched off for qcrd only"):
        MethodConfig(name="dss", voting=False, discriminator=False)


@pytest.mark.parametrize("scheme", get_args(Scheme))
def test_refresh_every_is_for_schemes_that_choose_a_pair(scheme: Any) -> None:
    if scheme in READS_CE:
        assert MethodConfig(scheme=scheme, refresh_every=4).refresh_every == 4
    else:
        with pytest.raises(ValidationError, match=rf"refresh_every .* \(max-min, min-max\), not for {scheme}"):
            MethodConfig(scheme=scheme, refresh_every=4)
    MethodConfig(scheme=scheme, refresh_every=1)


def test_weights_are_taken_over_where_there_are_two_tasks() -> None:
    weights = {"label_weight": 0.7, "rationale_weight": 0.2}
    assert MethodConfig.model_validate({"name": "dss"} | weights).weights == (0.7, 0.2)
    assert MethodConfig.model_validate({"name": "finetune"} | weights).weights == (1.0, 0.0)
    assert MethodConfig.model_validate({"name": "single-task"} | weights).weights == (0.0, 1.0)


@pytest.mark.parametrize(
    ("key", "value"),
    [("name", "qrcd"), ("scheme", "minmax"), ("delta", 0), ("beta", -1), ("refresh_every", 0), ("lables", "gold"),
     ("discriminator_decay", 1.1), ("discriminator_weight", 0)],
)  # fmt: skip
def test_what_is_not_allowed_is_refused(key: str, value: Any) -> None:
    with pytest.raises(ValidationError):
        MethodConfig.model_validate({key: value})


@pytest.mark.parametrize("settings", [{}, {"targets": "answer-first"}, {"targets": "apart", "negatives": False}])
def test_an_answers_share_needs_an_answer_in_the_text_and_nothing_that_repels(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="answer_share is for targets: answer-first where no negative repels"):
        MethodConfig.model_validate({"answer_share": 0.5, **settings})
    allowed = MethodConfig(answer_share=0.5, targets="answer-first", contrast="none")
    assert allowed.in_use()["answer_share"] == 0.5
    assert "answer_share" not in MethodConfig(targets="answer-first").in_use(), "older trainings keep their ids"
    assert "abstain_below" not in MethodConfig().in_use()
    assert MethodConfig(abstain_below=0.6).in_use()["abstain_below"] == 0.6
    with pytest.raises(ValueError, match="abstain_below is taught as an answer, and label_weight is 0"):
        MethodConfig(abstain_below=0.6, label_weight=0)
    assert MethodConfig(abstain_below=0.6, label_weight=0, targets="answer-first", contrast="none")
