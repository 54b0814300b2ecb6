"""All exceptions of qcrd, as one tree.

    Exception
    ├── StorageError               storage/errors.py
    │   ├── UsageError             the caller asked for something impossible; nothing was read or written
    │   │   ├── UnknownName        no such dataset, table, column or value; the message names the nearest
    │   │   └── NothingToDo        the selection holds no rows (no samples to vote on, no examples)
    │   ├── BadFile                a file that the user gave is not what it should be
    │   │   ├── NoField            a row has no column for a field of the dataset
    │   │   └── OutOfReach         it cannot be reached now; its stored questions may do instead
    │   ├── DamagedPart            a part file is damaged; `qcrd store check --repair` sets it aside
    │   ├── NewerStore             the store was written by a newer schema version
    │   └── StoreWriteFailed       the disk or object store refused a write; what was stored before is untouched
    ├── ModelError                 models/errors.py
    │   ├── BadModel               no such model, or one that cannot be served
    │   ├── BadStudent             no such student, one that cannot be trained, or settings that do not fit it
    │   ├── BadDiscriminator       no such discriminator, a damaged one, or a model that has no encoder
    │   ├── BadCheckpoint          a checkpoint is damaged or belongs to another model
    │   ├── TextTooLong            a text has more tokens than the settings allow
    │   ├── ServerFailed           the vLLM server did not start, or died too often
    │   │   └── PortTaken          its port is in use
    │   ├── TeacherFailed          the endpoint refused for good: wrong key, wrong model name, wrong request
    │   │   ├── TeacherUnavailable  it kept failing past the retries; trying later may help
    │   │   ├── RequestRefused     it refused this one request; others may pass (models/teacher_refusals.py)
    │   │   └── BatchGone          it does not know a batch any more that it once had (models/teacher_batch.py)
    │   ├── TrainingDiverged       the loss is not a number or grew without bound
    │   ├── TrainingFailed         one of several training processes died
    │   ├── WorkerDied             the process that did the heavy work died
    │   └── RunStopped             somebody stopped the run; what was finished is kept
    ├── ServiceFailed              tasks/errors.py
    │   ├── TrackingFailed         MLflow cannot be reached or refused a request
    │   └── ServerRefused          Prefect cannot be reached or refused a request
    ├── Overloaded                 too many questions wait; turned away with 503 (tasks/cascade/grouping.py)
    ├── OverBudget                 the teacher may be asked no more today (tasks/cascade/desk.py)
    ├── NonsenseError              a teacher's reply is not what was asked for; retried (models/teacher_replies.py)
    ├── ErrorInReplyError          a teacher's reply says that it failed; retried (models/teacher_replies.py)
    ├── AttemptError               one request to a teacher failed; retried (models/teacher_endpoint.py)
    ├── DoubtfulError              it was refused for no known reason: alone, or as all? (models/teacher_endpoint.py)
    └── _Unreadable                a text is not arithmetic (storage/datasets/arithmetic.py)

The message of each StorageError, ModelError and ServiceFailed is one line: what was wrong, what is allowed, what to do.
The command line prints it without a traceback and exits with 2. The last seven never leave qcrd.
"""

from models.errors import ModelError
from storage.errors import StorageError


class ServiceFailed(Exception):
    """A server that qcrd uses cannot be reached or refused a request."""


class TrackingFailed(ServiceFailed):
    """MLflow cannot be reached or refused a request."""


class ServerRefused(ServiceFailed):
    """Prefect's server cannot be reached or refused a request."""


ONE_LINE = (StorageError, ModelError, ServiceFailed)
"""Exceptions that are shown as one line, without a traceback."""
