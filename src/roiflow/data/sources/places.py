"""Folders that hold a source's files: on this machine, or in an object store by its URL.

A path is taken as it is written, whatever characters it has; `file:///a%20b` is a path, too.
`s3://bucket/prefix` is read by Arrow's own client, which knows AWS's ordinary variables
(AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_PROFILE, AWS_REGION); another
store than Amazon's is named by AWS_ENDPOINT_URL. Any other URL goes to fsspec, which names the
package that is missing.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import pyarrow as pa
from pyarrow import fs

from roiflow.data.sources import fingerprint
from roiflow.errors import SourceError
from roiflow.settings import is_url

SECONDS = 10.0
"""How long to wait for a store that does not answer."""
DEEPEST = 4
"""Folders of a path on disk that are looked into, so that a link to itself ends."""
ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
REMEDIES = {
    "NO_SUCH_BUCKET": "there is no such bucket: check the URL in ROIFLOW_DATA_FOLDER",
    "NETWORK_CONNECTION": "no server answers: check AWS_ENDPOINT_URL and the network",
    "ACCESS_DENIED": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY of a user who may list and "
    "read there",
}
REMEDIES |= dict.fromkeys(
    ("INVALID_ACCESS_KEY_ID", "SIGNATURE_DOES_NOT_MATCH", "INVALID_CLIENT_TOKEN_ID"),
    REMEDIES["ACCESS_DENIED"],
)
LOCAL = "check the path in ROIFLOW_DATA_FOLDER and that this user may read it"
USUAL = "check ROIFLOW_DATA_FOLDER and, of a bucket, AWS_ENDPOINT_URL, AWS_REGION and the AWS keys"


@dataclass(frozen=True)
class Folder:
    """A folder and what reads it; paths are relative to it, with slashes."""

    place: str
    """What errors call it."""
    root: str
    """What its file system calls it."""
    files: fs.FileSystem

    def name(self, path: str) -> str:
        """What errors call a path in it."""
        return f"{self.place.rstrip('/')}/{path}" if path else self.place

    def within(self, name: str) -> str:
        """What `name` gave, as a path in the folder again."""
        return name.removeprefix(f"{self.place.rstrip('/')}/")

    def require(self) -> None:
        """Raises SourceError where there is no such folder."""
        with self._faults(""):
            found = self.files.get_file_info([self.root])[0]
        if found.type != fs.FileType.Directory:
            what = "not a folder" if found.type == fs.FileType.File else "no such folder, or empty"
            raise SourceError(
                f"{self.place}: {what}: the environment variable ROIFLOW_DATA_FOLDER names it"
            )

    def all_files(self, path: str) -> list[str]:
        """Every file under a folder, sorted; none where there is no such folder."""
        selector = fs.FileSelector(f"{self.root}/{path}", allow_not_found=True, recursive=True)
        with self._faults(path):
            if isinstance(self.files, fs.LocalFileSystem):
                return sorted(_local_files(Path(self.root), path))
            found = self.files.get_file_info(selector)
        start = len(self.root) + 1
        return sorted(one.path[start:] for one in found if one.type == fs.FileType.File)

    @contextmanager
    def open(self, path: str) -> Iterator[pa.NativeFile]:
        """A file to read. What its content is wrong about is the caller's to catch."""
        with self._faults(path):
            stream = self.files.open_input_file(f"{self.root}/{path}")
        with stream:
            yield stream

    def fingerprint(self, paths: Iterable[str]) -> str:
        """Of names and contents; of a store, by what it tells of an object without reading it."""
        if isinstance(self.files, fs.LocalFileSystem):
            root = Path(self.root)
            return fingerprint.of_files(root, (root / path for path in paths))
        return "\n".join(f"{path} {self._mark(path)}" for path in sorted(paths))

    def _mark(self, path: str) -> str:
        """What changes with an object."""
        if isinstance(self.files, fs.PyFileSystem):
            with self._faults(path):
                return str(self.files.handler.fs.ukey(f"{self.root}/{path}"))
        with self.open(path) as stream:
            known = {name.lower(): value.decode() for name, value in stream.metadata().items()}
            return f"{stream.size()} {known.get('etag') or known.get('last-modified')}"

    @contextmanager
    def _faults(self, path: str) -> Iterator[None]:
        try:
            yield
        except (OSError, pa.ArrowException) as error:
            local = isinstance(self.files, fs.LocalFileSystem)
            raise SourceError(f"{self.name(path)}: {_reason(error, local)}") from None


def open_folder(place: str) -> Folder:
    """Nothing is read yet; without AWS_REGION, Amazon is asked where its bucket is.

    Raises SourceError where nothing here reads such a URL.
    """
    if not is_url(place):
        root = str(Path(place).absolute())
        return Folder(root, root, fs.LocalFileSystem())
    scheme, _, rest = place.partition("://")
    if scheme == "file":
        host, slash, path = rest.partition("/")
        if host not in ("", "localhost") or not slash:
            raise SourceError(f"{place}: no such place: write file:///the/whole/path, or the path")
        root = f"/{unquote(path).rstrip('/')}"
        return Folder(root, root, fs.LocalFileSystem())
    # Errors name the place, and would carry the key into a log.
    if "@" in rest.partition("/")[0]:
        raise SourceError(
            f"{scheme}://***: a URL with a key in it: leave it out of ROIFLOW_DATA_FOLDER and set "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    if scheme in ("s3", "s3a"):
        return Folder(place, rest.rstrip("/"), _s3(place, rest.partition("/")[0], os.environ))
    return _other(place)


def local_folder(place: str) -> Path:
    """A folder of this machine. Raises SourceError where there is none, or it is elsewhere."""
    if is_url(place) and not place.startswith("file://"):
        raise SourceError(
            f"{place}: this source reads a folder of this machine: copy the files there and let "
            "ROIFLOW_DATA_FOLDER name it"
        )
    found = open_folder(place)
    found.require()
    return Path(found.root)


def _local_files(root: Path, path: str) -> Iterator[str]:
    """A link to nowhere is among them, which Arrow leaves out: a part must not be missed."""

    def refuse(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            raise error

    for folder, folders, names in os.walk(root / path, onerror=refuse, followlinks=True):
        inside = Path(folder).relative_to(root)
        if len(inside.parts) >= DEEPEST:
            folders.clear()
        yield from ((inside / name).as_posix() for name in names)


def _s3(place: str, bucket: str, variables: Mapping[str, str]) -> fs.FileSystem:
    # Arrow's client takes keys and region from the environment, but not the endpoint.
    endpoint = next((variables[name] for name in ENDPOINTS if variables.get(name)), None)
    region = variables.get("AWS_REGION") or variables.get("AWS_DEFAULT_REGION")
    if region is None and endpoint is None:
        try:
            region = fs.resolve_s3_region(bucket)
        except (OSError, pa.ArrowException) as error:
            raise SourceError(f"{place}: {_reason(error, local=False)}") from None
    return fs.S3FileSystem(region=region, endpoint_override=endpoint, connect_timeout=SECONDS)


def _other(place: str) -> Folder:
    import fsspec

    try:
        files, root = fsspec.core.url_to_fs(place)
    except (ValueError, ImportError) as error:
        raise SourceError(f"{place}: nothing here reads such a URL: {error}") from None
    return Folder(place, root.rstrip("/"), fs.PyFileSystem(fs.FSSpecHandler(files)))


def _reason(error: Exception, local: bool) -> str:
    """The first line of what was said, and what to do."""
    said = str(error).strip().splitlines()[0].strip()
    known = (remedy for code, remedy in REMEDIES.items() if f"AWS Error {code}" in said)
    return f"{said}: {LOCAL if local else next(known, USUAL)}"
