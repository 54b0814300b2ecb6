"""What can go wrong in models, as one tree.

    ModelError                   base: every message is one line that says what was wrong, what is allowed, what to do
    ├── BadModel                 no such model folder, not a Hugging Face folder, or one that cannot be served
    ├── ServerFailed             the vLLM server did not start, or died more often than it may be restarted
    │   └── PortTaken            the port asked for is in use
    └── TeacherFailed            the endpoint refused for good: wrong key, wrong model name, wrong request
        └── TeacherUnavailable   it kept failing (429, 5xx, timeouts, nonsense) past the retries

The command line prints the message and exits with 2 for each of them; it never prints a traceback.
"""


class ModelError(Exception):
    """Base of every error that models raise on purpose."""


class BadModel(ModelError):
    """No such model, or not one that can be served."""


class ServerFailed(ModelError):
    """The server did not start, or died too often."""


class PortTaken(ServerFailed):
    """The port asked for is in use."""


class TeacherFailed(ModelError):
    """The endpoint refused a request for good; trying again would not help."""


class TeacherUnavailable(TeacherFailed):
    """The endpoint kept failing past the retries; trying again later may help."""
