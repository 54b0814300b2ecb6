"""The model that MLflow serves, as "models from code": MLflow runs this file when a registered student is loaded.

    model = mlflow.pyfunc.load_model("models:/NAME@champion")
    model.predict([{"question": "Ann has 3 apples and buys 2 more. How many apples has she now?"}])

It runs where this repository is not: the files it needs travel with the model (`tasks.tracking.packaging`). So it may
import, directly and indirectly, only what answering needs: no Prefect, no vLLM, no DuckDB.

MLflow also runs it when a student is packaged, in a run that does not need torch: what loads torch is imported later.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from models.configs import StudentConfig
from storage.datasets.registry import get_dataset
from tasks.serving.settings import (
    AS_REGISTERED,
    DEFINITION,
    DISCRIMINATOR,
    STUDENT,
    Decision,
    Question,
    ServedConfig,
)

if TYPE_CHECKING:
    from models.discriminator import Discriminator
    from tasks.serving.answering import Answered

SAID = ["answer", "rationale", "quality", "confidence"]
COLUMNS = [*SAID, "abstained"]


class ServedStudent(PythonModel):
    """Questions in; answer, rationale, quality of the rationale and confidence out; or `abstained`."""

    def load_context(self, context: PythonModelContext) -> None:
        """Loads everything, so that the first question does not wait."""
        import torch

        from models.discriminator import load_discriminator
        from models.judge import Judge
        from models.student_loading import load_student

        config = ServedConfig.model_validate(context.model_config)
        files = {name: Path(path) for name, path in context.artifacts.items()}
        definition = files.get(DEFINITION)
        self.dataset = get_dataset(str(definition / config.dataset) if definition else config.dataset)
        self.asking, self.abstain_below = config.asking, config.abstain_below
        device = config.device
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        limits = {name: getattr(config, name) for name in ("max_input_tokens", "max_target_tokens")}
        student = StudentConfig(model=str(files[STUDENT]), dtype=config.dtype, **limits)
        self.student = load_student(files[STUDENT], student).to(device)
        self.judge: Discriminator | Judge | None = None
        if DISCRIMINATOR in files:
            self.judge = load_discriminator(files[DISCRIMINATOR]).to(device)
        elif config.judges:
            self.judge = Judge(self.student)

    def predict(
        self,
        context: PythonModelContext,  # noqa: ARG002 - MLflow's signature
        model_input: pd.DataFrame,
        params: Mapping[str, Any] | None = None,
    ) -> pd.DataFrame:
        """Answers questions.

        Args:
            model_input: a DataFrame with the column `question`, and `choices` (lists of texts) if the dataset has
                choices; or a list of such rows as dicts, or of questions.
            params: `samples`, further rationales to sample, whose answers vote; without it as many as it was
                registered with. `guesses`, whether withheld answers are shown.

        Returns:
            A row for each question: `answer` in the dataset's spelling, None if the student gave none; `rationale`,
            None if it was not trained to explain; `quality` of the rationale, 0 to 1, None if there is no rationale or
            nobody to judge it; `confidence`, the probability that the answer is right, None if that was not calibrated;
            `abstained`, whether the student withholds its answer because it is less sure than `abstain_below`, or has
            none. Then `answer`, `rationale` and `quality` are None, unless `guesses` asks for them. Without
            `abstain_below` it abstains only where it says that it does not know (`method.abstain_below`), and then
            there is no guess.
        """
        from tasks.serving.answering import ask

        questions = [_question(row, place) for place, row in enumerate(_rows(model_input), start=1)]
        self._refuse_without_choices(questions)
        asking = self.asking
        if (samples := int((params or {}).get("samples", AS_REGISTERED))) != AS_REGISTERED:
            if samples < 0 or (samples and asking.writes == "answer"):
                raise _refusal(
                    f"samples is {samples}; it must be a whole number from 0"
                    if samples < 0
                    else "this student writes no rationales, so none can be sampled to vote; leave out samples"
                )
            asking = asking.model_copy(update={"samples": samples})
        answered = ask(self.dataset, self.student, questions, asking, judge=self.judge)
        guesses = bool((params or {}).get("guesses", False))
        rows = [self._withheld(_row(one, asking.decision), one.refused, guesses) for one in answered]
        return pd.DataFrame(rows, columns=COLUMNS, dtype=object)  # object: None stays None

    def _withheld(self, row: dict[str, Any], refused: bool, guesses: bool) -> dict[str, Any]:
        """The row with `abstained`, and without what is withheld."""
        least, confidence = self.abstain_below, row["confidence"]
        abstained = refused or (least is not None and (confidence is None or confidence < least))
        hidden = dict.fromkeys(("answer", "rationale", "quality")) if abstained and not guesses else {}
        return row | hidden | {"abstained": abstained}

    def _refuse_without_choices(self, questions: Sequence[Question]) -> None:
        for place, one in enumerate(questions, start=1):
            if self.dataset.answer_kind == "choice" and not one.choices:
                raise _refusal(
                    f"question {place} has no choices, and {self.dataset.name} asks for one of them; "
                    'send {"question": ..., "choices": [..., ...]}'
                )


def _row(answered: "Answered", decision: Decision | None) -> dict[str, Any]:
    if decision is None:
        quality = answered.rationales[0].quality if answered.rationale is not None else None
        return dict(zip(SAID, (answered.answer, answered.rationale, quality, None), strict=True))
    decided = answered.decided(decision)
    shown = decided.rationale
    parts = (shown.text, shown.quality) if shown is not None else (None, None)
    return dict(zip(SAID, (decided.answer, *parts, decided.confidence), strict=True))


def _rows(model_input: Any) -> list[Any]:
    if isinstance(model_input, pd.DataFrame):
        rows: list[Any] = model_input.to_dict(orient="records")
        return rows
    return [model_input] if isinstance(model_input, (str, Mapping)) else list(model_input)


def _question(row: Any, place: int) -> Question:
    question = row.get("question") if isinstance(row, Mapping) else row
    if not isinstance(question, str) or not question.strip():
        raise _refusal(f"question {place} is {str(question)[:60]!r}; it must be a text that is not empty")
    choices = row.get("choices") if isinstance(row, Mapping) else None
    if choices is None or isinstance(choices, float):  # a DataFrame's word for "none" is NaN
        return Question(question)
    listed = tuple(choices) if not isinstance(choices, str) else ()
    if not all(isinstance(choice, str) for choice in listed) or isinstance(choices, str):
        raise _refusal(f"the choices of question {place} are {str(choices)[:60]!r}; they must be a list of texts")
    return Question(question, listed)


def _refusal(reason: str) -> MlflowException:
    refusal: MlflowException = MlflowException.invalid_parameter_value(f"Cannot answer: {reason}.")
    return refusal


set_model(ServedStudent())
