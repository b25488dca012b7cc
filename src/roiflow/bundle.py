"""Bentos: a registered version's package, the slate service and its code, as one unit to ship.

A Bento is named by what is in it, so building the same package with the same code twice gives the
Bento that is there. No package index is asked.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from roiflow.errors import ServiceError
from roiflow.serving.package import MANIFEST, Package

NAME = "ad_ranker"
CODE = (
    "__init__.py", "columns.py", "compiled.py", "entry.py", "errors.py", "files.py", "params.py",
    "settings.py", "data", "catalogue", "features", "online", "labels", "candidates", "ranking",
    "policy", "serving", "stream",
)  # fmt: skip
"""Parts of roiflow that serving imports, and the layers they are in."""

DEPENDENCIES = (
    "bentoml", "httptools", "msgspec", "numba", "numpy", "onnxruntime", "prometheus-client",
    "pyarrow", "pydantic", "pydantic-settings", "pyyaml", "redis", "uvicorn", "uvloop",
)  # fmt: skip

Progress = Callable[[float, str], None]


@dataclass(frozen=True)
class Bento:
    """A built Bento."""

    tag: str
    """name:version."""
    folder: Path
    digest: str
    """Of the model package in it."""

    @property
    def package(self) -> Path:
        """The model package in the Bento."""
        return self.folder / "src" / "package"


def store(home: Path) -> Path:
    """BENTOML_HOME."""
    return home.absolute() / "bentoml"


def build_bento(
    package_folder: Path, version: str, service: Path, home: Path, labels: dict[str, str]
) -> Bento:
    """Build the Bento of a package, unless it is there; `service` is the folder bentos/ad_ranker.

    `version` is the registered version, kept as a label with `labels`. Raises PackageError where
    the package is not whole and ServiceError, with bentoml's words, where the build fails.
    """
    package = Package.load(package_folder)
    source = Path(__file__).parent
    # Without the version and the labels: the same content under another number is the Bento that is
    # there, with the labels of its first build.
    name = _content_name(package.digest, source, service)
    folder = store(home) / "bentos" / NAME / name
    if not (folder / "bento.yaml").exists():
        with tempfile.TemporaryDirectory(prefix="bento-") as place:
            context = Path(place)
            _lay_out(context, package_folder, source, service)
            _build(context, name, home, {"model_version": version, **labels})
    return Bento(f"{NAME}:{name}", folder, package.digest)


def find_bento(tag: str, home: Path) -> Bento:
    """A built Bento. Raises ServiceError, naming those there are, where it is not."""
    name, _, version = tag.partition(":")
    folder = store(home) / "bentos" / name / version
    if not version or not (folder / "bento.yaml").exists():
        there = sorted(path.parent.name for path in (store(home) / "bentos").glob("*/*/bento.yaml"))
        raise ServiceError(f"no Bento {tag!r} in {store(home)}; versions there: {there}")
    return Bento(tag, folder, Package.load(folder / "src" / "package").digest)


def requirements() -> str:
    """What the service needs, at the versions it was tested with: those installed here."""
    return "".join(f"{name}=={metadata.version(name)}\n" for name in DEPENDENCIES)


def _sources(source: Path, service: Path) -> Iterator[tuple[str, Path]]:
    """Every file of the code by its name in the Bento, in order."""
    for part in CODE:
        path = source / part
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            yield f"roiflow/{file.relative_to(source)}", file
    for file in sorted([*service.glob("*.py"), service / ".bentoignore"]):
        yield file.name, file


def _content_name(digest: str, source: Path, service: Path) -> str:
    # The libraries' versions count too: other ones may predict otherwise in the last digit.
    content = hashlib.sha256(digest.encode() + requirements().encode())
    for name, file in _sources(source, service):
        # Name and content apart by a zero byte and a digest of fixed length, so that no two sets of
        # files read alike.
        content.update(name.encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest())
    return content.hexdigest()[:16]


def _lay_out(context: Path, package: Path, source: Path, service: Path) -> None:
    for name, file in _sources(source, service):
        (context / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, context / name)
    shutil.copytree(package, context / "package")
    # What counts into the name is what is installed from.
    (context / "requirements.txt").write_text(requirements())


def _build(context: Path, version: str, home: Path, labels: dict[str, str]) -> None:
    tools = Path(sys.executable).parent
    # bentoml imports the service to describe it and calls uv, which it expects on the path.
    environment = os.environ | {
        "BENTOML_HOME": str(store(home)),
        "BENTOML_DO_NOT_TRACK": "True",
        "PATH": f"{tools}{os.pathsep}{os.environ.get('PATH', '')}",
        "PYTHONPATH": str(context),
    }
    store(home).mkdir(parents=True, exist_ok=True)
    # A process of its own: bentoml reads its home from the environment as it is loaded, and imports
    # the service.
    command = [sys.executable, "-m", "bentoml", "build", str(context), "--output", "tag"]
    command += [
        "--name",
        NAME,
        "--version",
        version,
        "--bentofile",
        str(_bentofile(context, labels)),
    ]
    answer = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, cwd=context
    )
    if answer.returncode:
        # The end: bentoml says what went wrong last, after all that it copied.
        said = (answer.stdout + answer.stderr).strip()[-2000:]
        raise ServiceError(f"bentoml build of {context / MANIFEST}: {said}")


def _bentofile(context: Path, labels: dict[str, str]) -> Path:
    import yaml

    content = {"service": "service:AdRanker", "labels": labels, "include": ["*"]}
    path = context / "bentofile.yaml"
    path.write_text(yaml.safe_dump(content))
    return path
