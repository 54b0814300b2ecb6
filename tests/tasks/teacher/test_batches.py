"""`qcrd sample --batch` against an endpoint that has batches: nothing lost, nothing asked twice, however runs end."""

import asyncio
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from storage.store import Store
from tasks.teacher.settings import TeacherSettings
from tests.models.batch_endpoint import Line, answers, refuses, serving_batches, serving_page
from tests.models.endpoint import KEY, serving
from tests.tasks.teacher.test_asking_less import stored, wanted
from tests.tasks.teacher.test_sampling import assert_every_sample_once, questions, sample, sampling


def apples(line: Line) -> int:
    return int(line["body"]["prompt"].rsplit("has ", 1)[1].split()[0])


async def run(home: Path, endpoint: Any, file: Path, *more: object) -> dict[str, Any]:
    code, out, err = await sample(home, endpoint, file, "--batch", *more, QCRD_TEACHER_API_KEY=KEY)
    assert code == 0, err
    figures: dict[str, Any] = json.loads(out)
    return figures


def test_what_is_refused_is_named_and_what_failed_is_asked_again(tmp_path: Path, home: Path) -> None:
    def answer(line: Line, before: int) -> Line | None:
        if apples(line) == 3:
            return refuses(line, 400, f"this text was flagged for {KEY}")
        if apples(line) == 4 and not before:
            return refuses(line, 500, "oops")
        return None if apples(line) == 5 and before < 2 else answers(line)

    async def scenario() -> None:
        async with serving_batches(answer=answer) as endpoint:
            figures = await run(home, endpoint, questions(tmp_path, 20))
            assert (figures["sampled"], figures["samples"]) == (95, 100)
            assert [*figures["refused"].values()] == ["400: this text was flagged for ***"]
            assert_every_sample_once(home, 19)
            assert len(endpoint.batches) == 3
            assert sorted(endpoint.asked.values()) == [1] * 18 + [2, 3]
            assert not [*(home / "batches").iterdir()]
            # The next run asks the refused question again, and nothing else.
            assert (await run(home, endpoint, questions(tmp_path, 20)))["sampled"] == 0
            assert sum(endpoint.asked.values()) == 24

    asyncio.run(scenario())


def test_a_run_that_is_killed_while_it_waits_finds_its_batch_again(tmp_path: Path, home: Path) -> None:
    async def scenario() -> None:
        async with serving_batches(looks=10**6) as endpoint:
            file = questions(tmp_path, 20)
            async with sampling(home, endpoint, file, "--batch") as process:
                while not any(batch["looks"] for batch in endpoint.batches.values()):
                    await asyncio.sleep(0.01)
                await process.kill()
            endpoint.looks = 0
            # Other settings since: what was asked for is stored all the same, and only the rest is asked for.
            figures = await run(home, endpoint, questions(tmp_path, 30))
            assert figures["sampled"] == 150
            assert len(endpoint.batches) == 2
            assert set(endpoint.asked.values()) == {1}
            assert_every_sample_once(home, 30)

    asyncio.run(scenario())


def test_a_batch_whose_id_was_never_noted_is_found_by_its_tag(tmp_path: Path, home: Path) -> None:
    async def scenario(arrived: bool) -> int:
        place = home / str(arrived)
        async with serving_batches(hangs=True) as endpoint:
            async with sampling(place, endpoint, questions(tmp_path, 20), "--batch") as process:
                while not endpoint.batches:
                    await asyncio.sleep(0.01)
                await process.kill()
            endpoint.hangs = False
            if not arrived:  # it died before the endpoint had read its request
                endpoint.batches.clear()
            await run(place, endpoint, questions(tmp_path, 20))
            assert_every_sample_once(place, 20)
            assert set(endpoint.asked.values()) == {1}
            return len(endpoint.batches)

    assert asyncio.run(scenario(arrived=True)) == 1
    assert asyncio.run(scenario(arrived=False)) == 1


def test_a_batch_that_was_stored_and_not_forgotten_is_not_stored_twice(tmp_path: Path, home: Path) -> None:
    async def scenario() -> None:
        async with serving_batches(looks=10**6) as endpoint:
            async with sampling(home, endpoint, questions(tmp_path, 20), "--batch") as process:
                while not endpoint.batches:
                    await asyncio.sleep(0.01)
                await process.kill()
            shutil.copytree(home / "batches", tmp_path / "noted")
            endpoint.looks = 0
            await run(home, endpoint, questions(tmp_path, 20))
            shutil.copytree(tmp_path / "noted", home / "batches", dirs_exist_ok=True)
            await run(home, endpoint, questions(tmp_path, 21))
            assert_every_sample_once(home, 21)
            assert len(endpoint.batches) == 2

    asyncio.run(scenario())


def test_with_a_range_a_second_batch_is_for_the_questions_in_doubt(tmp_path: Path, home: Path) -> None:
    def answer(line: Line, _: int) -> Line:
        row = answers(line)
        for choice in row["response"]["body"]["choices"]:
            seed = line["body"]["seed"] + choice["index"]
            choice["text"] = f"So the answer is {apples(line) if apples(line) < 15 else seed % 5}."
        return row

    async def scenario() -> None:
        async with serving_batches(answer=answer, looks=0) as endpoint:
            await run(home, endpoint, questions(tmp_path, 20), "--n", "2..8")
            assert all(len(texts) == wanted(texts) for texts in stored(home).values())
            assert 1 < len(endpoint.batches) <= 7
            assert set(endpoint.asked.values()) == {1}

    asyncio.run(scenario())


def test_an_endpoint_of_one_sample_a_request_gets_several(tmp_path: Path, home: Path) -> None:
    async def scenario() -> None:
        async with serving_batches() as endpoint:
            await run(home, endpoint, questions(tmp_path, 4), "--extra-body", '{"n": null}')
            assert len(endpoint.asked) == 20
            assert_every_sample_once(home, 4)

    asyncio.run(scenario())


async def stopped(home: Path, endpoint: Any, file: Path, *more: object) -> None:
    """A run that is killed while it waits for its batch."""
    async with sampling(home, endpoint, file, "--batch", *more) as process:
        while not any(batch["looks"] for batch in endpoint.batches.values()):
            await asyncio.sleep(0.01)
        await process.kill()


def test_a_question_that_always_fails_is_passed_over(tmp_path: Path, home: Path) -> None:
    def answer(line: Line, _: int) -> Line:
        return refuses(line, 500, "oops") if apples(line) == 4 else answers(line)

    async def scenario() -> None:
        async with serving_batches(answer=answer, looks=0) as endpoint:
            figures = await run(home, endpoint, questions(tmp_path, 20))
            assert (figures["sampled"], figures["samples"]) == (95, 100)
            assert ["500: oops" in reason for reason in figures["refused"].values()] == [True]

    asyncio.run(scenario())


def test_a_batch_that_was_asked_for_otherwise_waits_until_it_is_asked_for_so_again(tmp_path: Path, home: Path) -> None:
    async def scenario() -> None:
        async with serving_batches(looks=10**6) as endpoint:
            file = questions(tmp_path, 20)
            await stopped(home, endpoint, file, "--api", "chat")
            endpoint.looks = 0
            assert (await run(home, endpoint, file))["sampled"] == 100
            assert (await run(home, endpoint, file, "--api", "chat"))["sampled"] == 100
            assert (len(endpoint.batches), len(Store(home / "store").query("SELECT 1 FROM rationales"))) == (2, 200)
            assert not [*(home / "batches").iterdir()]

    asyncio.run(scenario())


def test_a_batch_whose_reply_is_lost_is_not_made_twice(tmp_path: Path, home: Path) -> None:
    async def scenario() -> None:
        async with serving_batches(loses=1) as endpoint:
            await run(home, endpoint, questions(tmp_path, 20))
            assert len(endpoint.batches) == 1
            assert_every_sample_once(home, 20)

    asyncio.run(scenario())


def test_what_was_refused_is_asked_again_with_other_settings(tmp_path: Path, home: Path) -> None:
    def answer(line: Line, _: int) -> Line:
        return refuses(line, 400, "seed is not supported") if "seed" in line["body"] else answers(line)

    async def scenario() -> None:
        async with serving_batches(answer=answer, looks=10**6) as endpoint:
            file = questions(tmp_path, 5)
            await stopped(home, endpoint, file)
            endpoint.looks = 0
            figures = await run(home, endpoint, file, "--extra-body", '{"seed": null}')
            assert (figures["sampled"], figures["samples"], figures["refused"]) == (25, 25, {})

    asyncio.run(scenario())


def test_a_batch_that_is_gone_is_one_line_that_says_what_to_do(tmp_path: Path, home: Path) -> None:
    async def scenario() -> str:
        async with serving_batches(looks=10**6) as endpoint:
            await stopped(home, endpoint, questions(tmp_path, 5))
            endpoint.forgets = True
            code, _, err = await sample(home, endpoint, questions(tmp_path, 5), "--batch")
            assert code == 2
            return err.strip().splitlines()[-1]

    line = asyncio.run(scenario())
    [noted] = (home / "batches").glob("*.json")
    assert "does not know the batch batch-0 any more (another key, or deleted): No batch found - remove " in line
    assert line.endswith(f"{noted} to have its questions asked again")


def test_without_batch_a_noted_one_is_pointed_out(tmp_path: Path, home: Path) -> None:
    async def scenario() -> str:
        async with serving_batches(looks=10**6) as batches, serving() as endpoint:
            await stopped(home, batches, questions(tmp_path, 5))
            code, _, err = await sample(home, endpoint, questions(tmp_path, 5))
            assert code == 0
            return err

    assert "asked this teacher in batches (1 not collected): --batch waits for them" in asyncio.run(scenario())


def refused(tmp_path: Path, home: Path, make: Callable[[], Any], batch: bool = True) -> str:
    async def scenario() -> str:
        async with make() as endpoint:
            more = ("--batch",) if batch else ()
            code, out, err = await sample(home, endpoint, questions(tmp_path, 4), *more, QCRD_TEACHER_API_KEY=KEY)
            assert (code, out) == (2, "")
            assert KEY not in err
            return err.strip().splitlines()[-1]

    return asyncio.run(scenario())


def test_an_endpoint_without_batches_is_one_line(tmp_path: Path, home: Path) -> None:
    line = refused(tmp_path, home, serving)
    assert "/v1 knows no batches (404): " in line
    assert line.endswith("leave out teacher.batch")


def test_a_batch_that_is_refused_is_one_line_and_is_not_waited_for_again(tmp_path: Path, home: Path) -> None:
    line = refused(tmp_path, home, lambda: serving_batches(errors=(f"no such model, {KEY}",)))
    assert line.endswith("refused the batch batch-0: no such model, ***")
    assert not [*(home / "batches").iterdir()]


def test_a_batch_that_answers_nothing_ends_the_run(tmp_path: Path, home: Path) -> None:
    line = refused(tmp_path, home, lambda: serving_batches(answer=lambda *_: None, status="expired"))
    assert "answered none of a batch's requests; of one request it says: " in line
    assert "batch_expired" in line


def test_a_page_that_is_no_api_is_one_line(tmp_path: Path, home: Path) -> None:
    line = refused(tmp_path, home, serving_page)
    assert line.endswith("answers with what is neither batch nor file - should the URL end in /v1?")


@pytest.mark.parametrize("url", [None, ("http://one/v1", "http://two/v1")])
def test_batches_need_one_endpoint(url: Any) -> None:
    with pytest.raises(ValueError, match=r"`batch` \(--batch\) needs one `url`"):
        TeacherSettings(model="big", url=url, batch=True)
