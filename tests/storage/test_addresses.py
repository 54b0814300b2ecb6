"""Addresses with passwords: told from those without, refused without being repeated, and taken out of texts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.addresses import carries_password, refuse_password, without_password
from storage.errors import UsageError
from storage.store import Store

SECRET = "pl4nted"  # pragma: allowlist secret


@pytest.mark.parametrize(
    "url",
    [
        f"http://user:{SECRET}@host:5000",
        f"http://{SECRET}@host",
        f"https://user:{SECRET}@host/path?x=1",
        f"http://user:p@{SECRET}@host",
        f"s3://AKIA:{SECRET}@bucket/prefix",
        f"s3://{SECRET}@bucket/prefix",
        f"abfs://container:{SECRET}@account/path",
        f"abfs://container@account/path?client_secret={SECRET}",
        f"https://host/v1?api_token={SECRET}",
        f"https://host/c?sv=2024&sig={SECRET}",
        f"postgresql://qcrd:{SECRET}@db/mlflow",
        f"http://user:{SECRET}@[broken/path",
    ],
)
def test_an_address_with_a_password_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(UsageError) as error:
        refuse_password("PLACE", url, "set THIS instead")
    assert SECRET not in str(error.value)
    assert str(error.value).startswith("PLACE must not contain a user name, password or key")
    assert str(error.value).endswith("set THIS instead.")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "http://127.0.0.1:4200/api",
        "s3://bucket/prefix?endpoint_override=localhost:9000&scheme=http&region=eu",
        "s3://bucket/a@b/c",
        "gs://anonymous@bucket/prefix",
        "abfss://container@account.dfs.core.windows.net/path?credential_kind=workload_identity",
        "sqlite:////home/me@work/mlflow.db",
        "/home/me@work:7/store",
        "https://host/v1?design=signature",
    ],
)
def test_an_address_without_one_passes(url: str) -> None:
    assert not carries_password(url)


def test_a_store_whose_address_holds_a_key_is_never_opened() -> None:
    with pytest.raises(UsageError, match="AWS_SECRET_ACCESS_KEY") as error:
        Store(f"s3://AKIA:{SECRET}@bucket/prefix")
    assert SECRET not in str(error.value)


@given(st.text(), st.text(alphabet="abcXYZ019:%.~-@", min_size=1), st.text())
def test_no_login_is_left_in_a_text(before: str, login: str, after: str) -> None:
    planted = f"{login}#{SECRET}".replace("#", "")
    assert SECRET not in without_password(f"{before} postgresql://{planted}@host/db ").replace(before, "")
    assert "postgresql://…@host/db" in without_password(f"{before} postgresql://{planted}@host/db {after}")
