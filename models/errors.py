"""What can go wrong in models; tasks/errors.py draws the tree of all exceptions."""


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
    """Somebody stopped the run."""


class WorkerDied(ModelError):
    """The process that did the heavy work died."""


class TrainingFailed(ModelError):
    """One of several training processes died."""


class TrainingDiverged(ModelError):
    """The loss is NaN or infinite, or grew without bound; the message names the last good checkpoint."""


class TeacherFailed(ModelError):
    """The endpoint refused a request for good; trying again would not help."""


class TeacherUnavailable(TeacherFailed):
    """The endpoint kept failing past the retries; trying again later may help."""


class BadStudent(ModelError):
    """No such student model, one that cannot be a student, or settings that do not fit it."""


class BadDiscriminator(ModelError):
    """No such discriminator, a damaged one, or a model from which no encoder can be taken."""


class TextTooLong(ModelError):
    """A text has more tokens than the settings allow."""
