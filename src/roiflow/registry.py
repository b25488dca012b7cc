"""The model registry: MLflow holds every model package with its lineage, metrics and aliases.

A package is registered once, by digest. `challenger` names the version that is tried beside what
serves, `champion` the one that serves. MLflow keeps no history of aliases, so every move is also a
line of the promotion log: what is about to move is written down, the alias moves, then comes the
line. Whoever promotes next finishes what was cut short between the two.
"""

import fcntl
import json
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from roiflow.artefacts.decision import Tried
from roiflow.artefacts.record import Record, parse
from roiflow.artefacts.run import Registered
from roiflow.errors import RegistryError
from roiflow.files import write_directory, write_file
from roiflow.settings import without_login

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion

CHAMPION = "champion"
CHALLENGER = "challenger"
EXPERIMENT = "roiflow"
PACKAGE = "package"
_DIGEST = "digest"
_TRIAL = "trial_"
_SECTION = "\n\n## "
BATCH = 1000
"""Metrics that MLflow takes at once."""
CHECK_STORE = "see that ROIFLOW_MLFLOW_URI names a running MLflow store, or a file of its own"


@dataclass(frozen=True)
class Evidence:
    """What is kept beside a package."""

    params: Mapping[str, str]
    metrics: Mapping[str, float]
    files: tuple[Path, ...]
    """Files and folders: evaluation, plots, decision."""
    description: str
    """Markdown, shown on the version's page."""


@dataclass(frozen=True)
class Promotion(Record):
    """One line of the promotion log."""

    time: float
    """Seconds since the epoch, UTC."""
    name: str
    version: int
    digest: str
    previous: int | None
    verdict: str
    by: str
    why: str


def model_name(source: str) -> str:
    """The registered model of one source."""
    return f"ad_ranker_{source}"


class Registry:
    """MLflow at `uri`; artifacts, downloads and the promotion log live under `home`."""

    def __init__(self, uri: str, home: Path) -> None:
        self._uri = uri
        self._home = home.absolute()
        self._opened: MlflowClient | None = None

    @property
    def _client(self) -> "MlflowClient":
        # MLflow takes long to load, which whoever only reads a digest need not wait for.
        import mlflow

        if self._opened is None:
            os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
            os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
            # MLflow's own 7 take four minutes without a word where the server is away.
            os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
            # SQLite makes its file and not the folder of it.
            if self._uri.startswith("sqlite:///"):
                Path(self._uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
            self._opened = mlflow.MlflowClient(tracking_uri=self._uri, registry_uri=self._uri)
        # MLflow resolves models:/ in the process's own store, whatever the client's is.
        mlflow.set_tracking_uri(self._uri)
        return self._opened

    @contextmanager
    def _refusals(self, what: str) -> Iterator[None]:
        """What MLflow or its database refuses as RegistryError, naming what was asked and where."""
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import ArgumentError, DatabaseError

        place = without_login(self._uri)
        try:
            yield
        except MlflowException as error:
            # A store's address may hold a password, and this text goes into logs.
            said = str(error.message).replace(self._uri, place)
            raise RegistryError(f"{what}: {place}: {' '.join(said.split())}") from None
        except DatabaseError as error:
            raise RegistryError(f"{what}: {place}: {error.orig}: {CHECK_STORE}") from None
        except (ModuleNotFoundError, ArgumentError) as error:
            raise RegistryError(
                f"{what}: {place}: {error}: name another store or install its driver"
            ) from None

    def register(
        self, name: str, package: Path, tags: Mapping[str, str], evidence: Evidence
    ) -> Registered:
        """Register a package folder; the version that already holds its digest is returned as is.

        `tags` hold source, week, commit and verdict; the digest is read from the manifest. Raises
        RegistryError where the store refuses.
        """
        digest = read_digest(package)
        # Tags and evidence of the first time stay: a second attempt is the same package, and what
        # was decided on it stands.
        if known := self.find(name, digest):
            return known
        with self._refusals(f"registering {name} {digest[:12]}"):
            return self._create(name, package, {**tags, _DIGEST: digest}, evidence)

    def _create(
        self, name: str, package: Path, tags: dict[str, str], evidence: Evidence
    ) -> Registered:
        from mlflow.entities import LoggedModelStatus, Metric

        client = self._client
        run = self._run(name, tags, evidence)
        model = client.create_logged_model(
            run.info.experiment_id,
            name=name,
            source_run_id=run.info.run_id,
            tags=tags,
            params=dict(evidence.params),
            model_type="slate ranker",
        )
        # The version is made last: what is cut short before leaves a run without one, which no
        # search finds, and the next try begins anew.
        client.log_model_artifacts(model.model_id, str(package))
        now = int(time.time() * 1000)
        metrics = [
            Metric(metric_name(key), value, now, 0, model.model_id)
            for key, value in evidence.metrics.items()
        ]
        # One by one they are three transactions each, and half a minute where the disk is slow.
        for start in range(0, len(metrics), BATCH):
            client.log_batch(run.info.run_id, metrics=metrics[start : start + BATCH])
        client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
        self._ensure_model(name, tags["source"])
        version = client.create_model_version(
            name,
            source=f"models:/{model.model_id}",
            run_id=run.info.run_id,
            tags=tags,
            description=evidence.description,
            model_id=model.model_id,
        )
        client.set_terminated(run.info.run_id, "FINISHED")
        return _registered(version)

    def _run(self, name: str, tags: dict[str, str], evidence: Evidence) -> "Run":
        from mlflow.entities import Param

        client = self._client
        run = client.create_run(
            self._experiment(),
            run_name=f"{tags['source']} {tags['week']}",
            tags={**tags, "model": name, "mlflow.note.content": evidence.description},
        )
        params = [Param(key, value) for key, value in evidence.params.items()]
        client.log_batch(run.info.run_id, params=params)
        for path in evidence.files:
            if path.is_dir():
                client.log_artifacts(run.info.run_id, str(path), artifact_path=path.name)
            else:
                client.log_artifact(run.info.run_id, str(path))
        return run

    def _experiment(self) -> str:
        found = self._client.get_experiment_by_name(EXPERIMENT)
        if found is not None:
            return str(found.experiment_id)
        # A server keeps artifacts where it was told to; a file of ours has no server to say so.
        local = self._uri.startswith("sqlite:")
        place = self._artifacts.as_uri() if local else None
        return str(self._client.create_experiment(EXPERIMENT, artifact_location=place))

    @property
    def _artifacts(self) -> Path:
        return self._home / "artifacts"

    def _ensure_model(self, name: str, source: str) -> None:
        if not self._client.search_registered_models(f"name = '{name}'"):
            self._client.create_registered_model(
                name,
                tags={"source": source},
                description=(
                    f"Slates of ads for the source `{source}`: pre-selection, ROSA ranker and "
                    "slate policy in one ONNX package. `champion` serves; `challenger` is tried "
                    "beside it, and promoted where both arms' log shows that it is as good or "
                    "better. A version's tags say what its screen and each week of its trial said."
                ),
            )

    def find(self, name: str, digest: str) -> Registered | None:
        """The version that holds a digest."""
        # By tag, because the registry's own key is a number that says nothing of the content.
        query = f"name = '{name}' and tags.{_DIGEST} = '{digest}'"
        with self._refusals(f"looking up {name} {digest[:12]}"):
            found = self._client.search_model_versions(query, max_results=1)
        return _registered(found[0]) if found else None

    def versions(self, name: str) -> list[Registered]:
        """Every version that has a digest, newest first."""
        with self._refusals(f"listing {name}"):
            found = self._client.search_model_versions(f"name = '{name}'", max_results=10_000)
        return [_registered(version) for version in found if _DIGEST in version.tags]

    def digests(self, name: str) -> list[str]:
        """Of every version, newest first."""
        return [version.digest for version in self.versions(name)]

    def get(self, name: str, version: int) -> Registered:
        """Raises RegistryError where there is no such version."""
        with self._refusals(f"looking up {name} version {version}"):
            return _registered(self._client.get_model_version(name, str(version)))

    def by_alias(self, name: str, alias: str) -> Registered | None:
        """The version an alias names, or None where the alias or the model does not exist."""
        # That there is none is an answer here; MLflow's own look-up by alias makes it an error.
        with self._refusals(f"looking up {name}@{alias}"):
            models = self._client.search_registered_models(f"name = '{name}'")
            version = models[0].aliases.get(alias) if models else None
            return None if version is None else self.get(name, int(version))

    def champion(self, name: str) -> tuple[int, Path] | None:
        """The serving version and its package folder."""
        found = self.by_alias(name, CHAMPION)
        return None if found is None else (found.version, self.package(found))

    def package(self, registered: Registered) -> Path:
        """The package folder, downloaded once; raises PackageError where it is not as registered.

        The folder is named by its digest and appears whole or not at all.
        """
        folder = package_folder(self._home, registered.digest)
        if not folder.exists():
            label = f"downloading {registered.name} version {registered.version}"
            with self._refusals(label), write_directory(folder) as aside:
                self._download(registered, aside)
                # Inside the block: what is not as registered gets no name, and the next try
                # downloads anew.
                if read_digest(aside) != registered.digest:
                    raise RegistryError(
                        f"{registered.name} version {registered.version}: the stored package has "
                        f"digest {read_digest(aside)}, registered was {registered.digest}"
                    )
        return folder

    def _download(self, registered: Registered, folder: Path) -> None:
        from mlflow.artifacts import download_artifacts

        version = self._client.get_model_version(registered.name, str(registered.version))
        source = str(version.source)
        if (kept := self._kept(source)) is not None:
            # A home that was moved has its packages with it, though MLflow would look for them
            # where they were.
            shutil.copytree(kept, folder, dirs_exist_ok=True)
        else:
            download_artifacts(artifact_uri=source, dst_path=str(folder), tracking_uri=self._uri)

    def _kept(self, source: str) -> Path | None:
        """Where a package lies under `home`; MLflow's own rows name where the home was then."""
        model = self._client.get_logged_model(source.removeprefix("models:/"))
        then = self._client.get_experiment(model.experiment_id).artifact_location
        if not then.startswith("file:"):
            return None
        return self._artifacts / Path(model.artifact_location).relative_to(Path(then))

    def set_alias(self, registered: Registered, alias: str) -> None:
        """Move an alias; nothing happens where it is there already."""
        current = self.by_alias(registered.name, alias)
        if current is None or current.version != registered.version:
            with self._refusals(f"setting {registered.name}@{alias}"):
                self._client.set_registered_model_alias(
                    registered.name, alias, str(registered.version)
                )

    def set_tag(self, registered: Registered, key: str, value: str) -> None:
        """Set a tag of a version."""
        with self._refusals(f"tagging {registered.name} version {registered.version}"):
            self._client.set_model_version_tag(registered.name, str(registered.version), key, value)

    def tell(self, registered: Registered, heading: str, text: str) -> None:
        """Put a section on a version's page, in the place of one with that heading."""
        label = f"describing {registered.name} version {registered.version}"
        with self._refusals(label):
            number = str(registered.version)
            page = self._client.get_model_version(registered.name, number).description or ""
            first, *sections = page.split(_SECTION)
            others = [one for one in sections if one.partition("\n")[0] != heading]
            page = _SECTION.join([first, *others, f"{heading}\n\n{text}"])
            self._client.update_model_version(registered.name, number, description=page)

    def promote(
        self, registered: Registered, over: str | None, verdict: str, by: str, why: str, now: float
    ) -> bool:
        """Make a version the champion, then log it; False where it already is.

        `over` is the digest of the champion that it was judged against, None where there was none:
        RegistryError where that no longer is the champion. After a crash at any point a second
        call comes to the same: the alias has moved, and the log has one line of it.
        """
        with self._promoting():
            champion = self.by_alias(registered.name, CHAMPION)
            if champion is not None and champion.version == registered.version:
                return False
            # Two challengers may have beaten one champion. The second has not been compared with
            # the first.
            found = None if champion is None else champion.digest
            if found != over:
                raise RegistryError(
                    f"{registered.name}: version {registered.version} was compared with {over}, "
                    f"but the champion now is {found}: clear the run's tasks from canary on"
                )
            previous = None if champion is None else champion.version
            self._move(
                Promotion(
                    now, registered.name, registered.version, registered.digest, previous,
                    verdict, by, why,
                ),
                registered,
            )  # fmt: skip
        return True

    def _move(self, line: Promotion, registered: Registered) -> None:
        # The line exists before the alias moves, or a crash between the two would leave a champion
        # that nobody answers for.
        with write_file(self._begun) as aside:
            aside.write_text(_json(line) + "\n")
        self.set_alias(registered, CHAMPION)
        self._keep(line)

    @contextmanager
    def _promoting(self) -> Iterator[None]:
        """One promotion at a time, after the one before was finished."""
        self._home.mkdir(parents=True, exist_ok=True)
        # Let go of as the file is closed, by the system where the process is killed: nothing is
        # left to clear away.
        with (self._home / "promotions.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._settle()
            yield

    def _settle(self) -> None:
        """Log the promotion that was begun if its alias moved; forget it if not."""
        if not self._begun.exists():
            return
        line = parse(Promotion, self._begun.read_text(), str(self._begun))
        champion = self.by_alias(line.name, CHAMPION)
        # The alias is what serves, so it says whether the move took place; the log only follows.
        if champion is not None and champion.version == line.version:
            self._keep(line)
        self._begun.unlink(missing_ok=True)

    def _keep(self, line: Promotion) -> None:
        """The log with this line, once; whole or not at all."""
        # Written anew and not appended: half a line at the end of the log could not be read.
        if line not in self._lines():
            before = self._log.read_text() if self._log.exists() else ""
            with write_file(self._log) as aside:
                aside.write_text(f"{before}{_json(line)}\n")
        self._begun.unlink(missing_ok=True)

    @property
    def _log(self) -> Path:
        return self._home / "promotions.jsonl"

    @property
    def _begun(self) -> Path:
        """The line of a promotion that has begun and is not in the log yet."""
        return self._home / "promotion.begun.json"

    def _lines(self) -> list[Promotion]:
        if not self._log.exists():
            return []
        lines = self._log.read_text().splitlines()
        return [
            parse(Promotion, line, f"{self._log}, line {number}")
            for number, line in enumerate(lines, start=1)
        ]

    def promotions(self, name: str) -> list[Promotion]:
        """Every promotion of a model, oldest first."""
        return [line for line in self._lines() if line.name == name]


def tried_of(version: Registered) -> list[Tried]:
    """What a version's trials said, week by week. Raises ArtefactError on an edited tag."""
    named = f"{version.name} version {version.version}: tag"
    return [
        parse(Tried, tag, f"{named} {name}")
        for name, tag in sorted(version.tags.items())
        if name.startswith(_TRIAL)
    ]


def trial_tag(week: str) -> str:
    """The tag in which a version keeps what its trial said in a week."""
    return f"{_TRIAL}{week}"


def package_folder(home: Path, digest: str) -> Path:
    """Where a registered package lies once it was downloaded."""
    return home.absolute() / "packages" / digest


def read_digest(package: Path) -> str:
    """The digest in a package's manifest; RegistryError, naming the file, where there is none."""
    manifest = package / "manifest.json"
    try:
        digest = json.loads(manifest.read_text())[_DIGEST]
    except OSError as error:
        raise RegistryError(f"{manifest}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        raise RegistryError(f"{manifest}: not a manifest with a digest") from None
    return str(digest)


def flatten(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves of nested mappings under dotted keys, in order."""
    for key, value in content.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def metric_name(key: str) -> str:
    """A key as MLflow takes it: what it refuses, such as the brackets of a category, is a "_"."""
    return re.sub(r"[^\w\-. :/]", "_", key, flags=re.ASCII)


def _registered(version: "ModelVersion") -> Registered:
    tags = dict(version.tags)
    # A version that somebody registered by hand has no digest: it matches none.
    return Registered(version.name, int(version.version), tags.get(_DIGEST, ""), tags)


def _json(line: Promotion) -> str:
    return json.dumps(asdict(line))
