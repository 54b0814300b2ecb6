"""Addresses that may carry a password, and what becomes of those that do.

A URL is stored and shown in many places: rows, tags of MLflow, parameters of Prefect, error lines. So one that carries
a password is refused where it comes in, and nothing later has to hide it. Only a database's address may hold one.
"""

import re
from urllib.parse import parse_qsl, urlsplit

from storage.errors import UsageError

_SECRET_OPTION = re.compile(r"secret|password|passwd|token|account_?key|access_?key|\bsig\b", re.IGNORECASE)
_USER_IS_NO_SECRET = ("abfs", "abfss", "gs", "gcs")  # container@account, and anonymous@bucket
_LOGIN = re.compile(r"(://)[^/\s]*@")


def carries_password(url: str) -> bool:
    """Whether a URL names a user or holds a password, key or token."""
    login, _, host = url.partition("://")[2].partition("/")[0].rpartition("@")
    if login and (":" in login or url.partition("://")[0].lower() not in _USER_IS_NO_SECRET):
        return True
    if not host:
        return False
    try:
        query = urlsplit(url).query
    except ValueError:  # a broken host; whoever opens it says so
        return False
    return any(_SECRET_OPTION.search(name) for name, _ in parse_qsl(query, keep_blank_values=True))


def refuse_password(name: str, url: str, instead: str) -> None:
    """Refuses a URL that carries a password, without repeating it.

    Args:
        name: of the setting, for the message.
        url: its value.
        instead: where the password belongs.

    Raises:
        UsageError: it carries one.
    """
    if carries_password(url):
        raise UsageError(f"{name} must hold no user name, password or key, because it is stored and shown: {instead}.")


def without_password(text: str) -> str:
    """A text with the user and password of every URL in it left out."""
    return _LOGIN.sub(r"\1…@", text)
