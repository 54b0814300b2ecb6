"""What can go wrong in models, as one tree.

    ModelError                   base: every message is one line that says what was wrong, what is allowed, what to do
    ├── BadModel                 no such model folder, not a Hugging Face folder, or one that cannot be served
    ├── ServerFailed             the vLLM server did not start, or died more often than it may be restarted
    │   └── PortTaken            the port asked for is in use
    ├── BadCheckpoint            a training checkpoint is damaged or belongs to another model
    ├── RunStopped               somebody stops the run (Ctrl-C); what was finished is kept
    ├── WorkerDied               the process that did the heavy work died
    ├── TrainingFailed           one of several training processes died
    ├── TrainingDiverged         the loss is no number or grew without end; names the last good checkpoint
    ├── TeacherFailed            the endpoint refused for good: wrong key, wrong model name, wrong request
    │   └── TeacherUnavailable   it kept failing (429, 5xx, timeouts, nonsense) past the retries
    ├── BadStudent               no such student, one of another architecture, or settings that do not fit it
    ├── BadDiscriminator         no such discriminator, a damaged one, or an encoder that is no T5's
    └── TextTooLong              a text has more tokens than the settings allow; nothing is cut silently

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


class BadCheckpoint(ModelError):
    """A training checkpoint is damaged or belongs to another model."""


class RunStopped(ModelError):
    """Somebody stops the run."""


class WorkerDied(ModelError):
    """The process that did the heavy work died."""


class TrainingFailed(ModelError):
    """One of several training processes died."""


class TrainingDiverged(ModelError):
    """The loss is no number or grew without end; the message names the last good checkpoint."""


class TeacherFailed(ModelError):
    """The endpoint refused a request for good; trying again would not help."""


class TeacherUnavailable(TeacherFailed):
    """The endpoint kept failing past the retries; trying again later may help."""


class BadStudent(ModelError):
    """No such student model, one that cannot be a student, or settings that do not fit it."""


class BadDiscriminator(ModelError):
    """No such discriminator, a damaged one, or an encoder that is no T5's."""


class TextTooLong(ModelError):
    """A text has more tokens than the settings allow."""
