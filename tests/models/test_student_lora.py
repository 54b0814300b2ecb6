"""Low-rank adapters on a student: what is trained, what is saved, what comes back."""

from pathlib import Path

import pytest
import torch

from models.configs import LoraConfig, StudentConfig
from models.errors import BadStudent
from models.lora import has_lora
from models.losses import IGNORED
from models.student import Student, pad
from models.student_loading import load_student, make_student
from tests.models.students import LIMITS, QUESTIONS, RATIONALES, STUDENTS, names_in

ARCHITECTURES = ["t5", "llama"]


def losses(student: Student) -> torch.Tensor:
    ids, mask = pad(student.input_ids(QUESTIONS), student.pad_id)
    targets, _ = pad(student.target_ids(RATIONALES), IGNORED)
    return student.cross_entropy(student.encode(ids, mask), targets)


def train(student: Student, steps: int = 5) -> None:
    optimizer = torch.optim.SGD([weight for weight in student.parameters() if weight.requires_grad], lr=0.5)
    for _ in range(steps):
        torch.autograd.backward(losses(student).sum())
        optimizer.step()
        optimizer.zero_grad()


@pytest.fixture(params=ARCHITECTURES)
def base(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    STUDENTS[request.param]().save(tmp_path / "base")
    return tmp_path / "base"


def adapted(base: Path, lora: LoraConfig | None = None) -> Student:
    return make_student(StudentConfig(model=str(base), lora=lora or LoraConfig(rank=4, alpha=8), **LIMITS))


def test_fresh_adapters_change_nothing_and_only_they_are_trained(base: Path) -> None:
    student, plain = adapted(base), load_student(base)
    assert has_lora(student.model)
    torch.testing.assert_close(losses(student), losses(plain))
    before = {name: weight.detach().clone() for name, weight in student.named_parameters()}
    train(student)
    changed = {name for name, weight in student.named_parameters() if not torch.equal(weight, before[name])}
    trained = {name for name, weight in student.named_parameters() if weight.requires_grad}
    assert changed == trained
    assert trained
    assert all("lora_" in name for name in trained)
    assert not any("lm_head" in name or "embed" in name or "shared" in name for name in trained)
    assert (losses(student) < losses(plain)).all()


def test_fresh_adapters_follow_from_their_seed_alone(base: Path) -> None:
    def adapters(seed: int, state: int) -> list[torch.Tensor]:
        torch.manual_seed(state)
        student = adapted(base, LoraConfig(rank=4, seed=seed))
        return [weight for name, weight in student.named_parameters() if "lora_A" in name]

    first, same, other = adapters(0, state=1), adapters(0, state=2), adapters(1, state=1)
    assert all(torch.equal(a, b) for a, b in zip(first, same, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_what_is_saved_comes_back_and_can_be_trained_on(base: Path, tmp_path: Path) -> None:
    student = adapted(base)
    train(student)
    student.save(tmp_path / "adapters")
    assert {"adapter_model.safetensors", "adapter_config.json", "student.json"} <= names_in(tmp_path / "adapters")
    assert "model.safetensors" not in names_in(tmp_path / "adapters")
    assert not [name for name in names_in(tmp_path / "adapters") if name.endswith((".bin", ".pt"))]
    again = load_student(tmp_path / "adapters", StudentConfig(model="x", lora=LoraConfig(), **LIMITS))
    assert torch.equal(losses(again), losses(student))
    trained = {name for name, weight in student.named_parameters() if weight.requires_grad}
    assert trained == {name for name, weight in again.named_parameters() if weight.requires_grad}
    train(student)
    train(again)
    assert torch.equal(losses(again), losses(student))
    again.save(tmp_path / "again")
    assert torch.equal(losses(load_student(tmp_path / "again")), losses(again))


def test_a_merged_folder_stands_alone(base: Path, tmp_path: Path) -> None:
    student = adapted(base)
    train(student)
    student.save(tmp_path / "merged", merge=True)
    (base / "model.safetensors").unlink()
    again = load_student(tmp_path / "merged")
    assert not has_lora(again.model)
    assert has_lora(student.model)
    torch.testing.assert_close(losses(again), losses(student), rtol=1e-4, atol=1e-5)


def test_the_layers_can_be_chosen(base: Path) -> None:
    name = "q" if "t5" in (base / "config.json").read_text() else "q_proj"
    student = adapted(base, LoraConfig(targets=(name,)))
    trained = {parameter for parameter, weight in student.named_parameters() if weight.requires_grad}
    assert all(f".{name}.lora_" in parameter for parameter in trained)
    with pytest.raises(BadStudent, match=r"No linear layer is called \('query',\). There are: .*lm_head"):
        adapted(base, LoraConfig(targets=("query",)))


def test_adapters_of_a_changed_model_are_refused(base: Path, tmp_path: Path) -> None:
    student = adapted(base)
    student.save(tmp_path / "adapters")
    train(student)
    student.save(base, merge=True)
    with pytest.raises(BadStudent, match="which is gone or has changed; put it back"):
        load_student(tmp_path / "adapters")
    (tmp_path / "adapters" / "student.json").unlink()
    with pytest.raises(BadStudent, match=r"holds adapters, but no student.json that names their model"):
        load_student(tmp_path / "adapters")


def test_pickled_adapters_are_refused(base: Path, tmp_path: Path) -> None:
    adapted(base).save(tmp_path / "adapters")
    (tmp_path / "adapters" / "adapter_model.safetensors").rename(tmp_path / "adapters" / "adapter_model.bin")
    with pytest.raises(BadStudent, match=r"there is only adapter_model.bin, a pickle"):
        load_student(tmp_path / "adapters")
