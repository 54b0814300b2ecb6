"""An S3-compatible server (moto's) whose objects survive kill -9, for tests that kill it.

python -m tests.object_server FOLDER PORT BUCKET

moto keeps everything in memory. Here an object is on the disk before its writer is told that it is stored, and a server
that starts again has all that an earlier one told so. Unfinished uploads are lost, as nothing was promised of them.
"""

import json
import sys
import threading
from collections.abc import Callable, Iterable
from hashlib import sha256
from pathlib import Path
from typing import Any

from moto.core import DEFAULT_ACCOUNT_ID
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from moto.s3.models import s3_backends
from werkzeug.serving import make_server

READS = {"GET", "HEAD"}


class ObjectServer:
    """A WSGI application: moto's, and a file for each object.

    Args:
        folder: for the files.
        bucket: is made where it is missing; the only one that is kept.
    """

    def __init__(self, folder: Path, bucket: str) -> None:
        self._folder, self._bucket = folder, bucket
        self._app = DomainDispatcherApplication(create_backend_app)
        self._lock = threading.Lock()  # one write at a time
        self._kept: dict[str, str] = {}  # key -> ETag
        self._s3 = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]
        self._s3.create_bucket(bucket, "us-east-1")
        for file in folder.glob("*.object"):
            head, _, value = file.read_bytes().partition(b"\n")
            key = json.loads(head)
            self._kept[key] = self._s3.put_object(bucket, key, value).etag

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] in READS:
            found: Iterable[bytes] = self._app(environ, start_response)
            return found
        with self._lock:
            answer = list(self._app(environ, start_response))
            self._keep()
        return answer

    def _keep(self) -> None:
        """Brings the files up to the objects."""
        objects = {key: value.etag for key, value in self._s3.buckets[self._bucket].keys.items()}
        for key in self._kept.keys() - objects.keys():
            self._file(key).unlink()
        for key in objects.keys() - self._kept.keys() | {key for key in objects if objects[key] != self._kept.get(key)}:
            unfinished = self._file(key).with_suffix(".unfinished")
            value = self._s3.get_object(self._bucket, key).value
            unfinished.write_bytes(json.dumps(key).encode() + b"\n" + value)
            unfinished.rename(self._file(key))
        self._kept = objects

    def _file(self, key: str) -> Path:
        return self._folder / f"{sha256(key.encode()).hexdigest()}.object"


def main(folder: Path, port: int, bucket: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    make_server("127.0.0.1", port, ObjectServer(folder, bucket), threaded=True).serve_forever()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
