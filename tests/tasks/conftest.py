"""A student of 60,000 parameters that knows four questions by heart, with a discriminator."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Taught:
    """The folders, and what the student answers and explains to which question."""

    student: Path
    discriminator: Path
    answers: dict[str, str]
    rationales: dict[str, str]


ANSWERS = {
    "Ann has 3 apples and buys 4 more. How many apples has Ann?": "7",
    "Ben has 9 nuts and eats 4 of them. How many nuts are left?": "5",
    "Eva reads 2 pages on each of 6 days. How many pages is that?": "12",
    "Tom has 8 cards. Mia has 3 more than Tom. How many has Mia?": "11",
}
RATIONALES = {
    question: f"{worked} = {answer}."
    for (question, answer), worked in zip(ANSWERS.items(), ("3 + 4", "9 - 4", "2 * 6", "8 + 3"), strict=True)
}


@pytest.fixture(scope="session")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Taught:
    """Trained for a few seconds."""
    import torch

    from models.configs import DiscriminatorConfig, NewStudentConfig, StudentConfig
    from models.discriminator import make_discriminator
    from models.prefixes import EXPLAIN, PREDICT
    from models.student import pad
    from models.student_loading import make_student

    sizes = NewStudentConfig(hidden=64, heads=2, layers=1, intermediate=96, vocab_size=320, activation="relu")
    config = StudentConfig(model="new", new=sizes, dropout=0.0, max_input_tokens=120, max_target_tokens=20)
    student = make_student(config, [*ANSWERS, *RATIONALES.values(), PREDICT, EXPLAIN])
    pairs = [(PREDICT + question, answer) for question, answer in ANSWERS.items()]
    pairs += [(EXPLAIN + question, rationale) for question, rationale in RATIONALES.items()]
    ids, mask = pad(student.input_ids([text for text, _ in pairs]), student.pad_id)
    targets, real = pad(student.target_ids([text for _, text in pairs]), student.pad_id)
    targets = targets.masked_fill(~real, -100)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    optimizer = torch.optim.AdamW(student.parameters(), lr=3e-3)
    for _ in range(1000):
        loss = student.cross_entropy(student.encode(ids, mask), targets).mean()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if loss.item() < 0.01:
            break
    torch.set_num_threads(threads)
    assert loss.item() < 0.01
    folder = tmp_path_factory.mktemp("taught")
    # In folders of one name, as a training has them.
    student.save(folder / "round" / "model")
    make_discriminator(DiscriminatorConfig(), student).save(folder / "quality" / "model")
    return Taught(folder / "round" / "model", folder / "quality" / "model", ANSWERS, RATIONALES)


def home_with(database: Path, home: Path) -> Path:
    """A state folder with a copy of a database."""
    (home / "mlflow").mkdir(parents=True)
    shutil.copyfile(database, home / "mlflow" / "mlflow.db")
    return home
