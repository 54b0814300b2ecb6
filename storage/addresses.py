"""URLs that carry a password are refused.

A URL is stored and shown in many places: rows, MLflow tags, Prefect parameters, error messages. One with a password is
refused on entry, so that no later step has to hide it. Only a database's URL may hold one.
"""

import re
from urllib.parse import parse_qsl, urlsplit

from storage.errors import UsageError

_SECRET_OPTION = re.compile(r"secret|password|passwd|token|account_?key|access_?key|\bsig\b", re.IGNORECASE)
_USER_IS_NO_SECRET = ("abfs", "abfss", "gs", "gcs")  # container@account, and anonymous@bucket
_LOGIN = re.compile(r"(://)[^/\s]*@")


def carries_password(url: str) -> bool:
    """Whether a URL contains a user name, password, key or token."""
    login, _, host = url.partition("://")[2].partition("/")[0].rpartition("@")
    if login and (":" in login or url.partition("://")[0].lower() not in _USER_IS_NO_SECRET):
        return True
    if not host:
        return False
    try:
        query = urlsplit(url).query
    except ValueError:  # a broken host; opening it will say so
        return False
    return any(_SECRET_OPTION.search(name) for name, _ in parse_qsl(query, keep_blank_values=True))


def refuse_password(name: str, url: str, instead: str) -> None:
    """Refuses a URL that carries a password, without repeating the URL.

    Args:
        name: the setting's name, for the message.
        url: its value.
        instead: where the password belongs, for the message.

    Raises:
        UsageError: the URL carries one.
    """
    if carries_password(url):
        raise UsageError(
            f"{name} must not contain a user name, password or key, because it is stored and shown: {instead}."
        )


def without_password(text: str) -> str:
    """The text with user and password removed from every URL in it."""
    return _LOGIN.sub(r"\1…@", text)
