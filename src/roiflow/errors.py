"""Every error roiflow raises on purpose, as one tree.

RoiflowError
├── ContractError        a table breaks the data contract
│   ├── QuarantineLimit  too many rows of a week were quarantined
│   └── CatalogueError   a change of the catalogue is none, or would leave nothing to show
├── SourceError          a source cannot give what was asked
│   ├── UnknownWeek      the source holds no such week
│   └── NothingNew       a finished run has tested the newest week already
├── ParamsError          params.yaml is wrong
├── PropensityError      a propensity is outside (0, 1] or missing where it is needed
├── ParityError          two paths that must agree do not
├── ArtefactError        a file that a stage or job left is missing or not what it writes
├── PackageError         a model package is incomplete, altered or of another format
├── RunError             a weekly run's checkout, stage or job failed
│   └── StoppedError     a stage or a job was stopped by what may pass
├── RegistryError        the model registry refuses or lacks something
├── ServiceError         a local server cannot be started, reached or stopped
└── GateError            a decision cannot be taken at all
"""


class RoiflowError(Exception):
    """Base of all expected failures; its text names the file, row or key and the value."""


class ContractError(RoiflowError):
    """A table breaks the data contract."""


class QuarantineLimit(ContractError):
    """More rows were quarantined than params.yaml allows."""


class CatalogueError(ContractError):
    """A change of the catalogue is none, or would leave nothing to show."""


class SourceError(RoiflowError):
    """A source cannot give what was asked."""


class UnknownWeek(SourceError):
    """The source holds no such week."""


class NothingNew(SourceError):
    """A finished run has tested the source's newest week; there is nothing to do, not a fault."""


class ParamsError(RoiflowError):
    """params.yaml has an unknown key, a missing key or a value out of bounds."""


class PropensityError(RoiflowError):
    """A propensity is outside (0, 1], or missing where it is needed."""


class ParityError(RoiflowError):
    """Two paths that must agree do not."""


class ArtefactError(RoiflowError):
    """What a stage or a job left for the next is missing, or not as it writes it."""


class PackageError(RoiflowError):
    """A model package is incomplete, altered or of another format."""


class RunError(RoiflowError):
    """A weekly run's checkout, stage or job failed."""


class StoppedError(RunError):
    """A stage or a job was killed, or ended in an error that is none of ours: again may help."""


class RegistryError(RoiflowError):
    """The model registry refuses or lacks something."""


class ServiceError(RoiflowError):
    """A local server cannot be started, reached or stopped."""


class GateError(RoiflowError):
    """A promotion decision cannot be taken at all."""
