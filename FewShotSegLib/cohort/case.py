"""One case, from its file to its files. What is wrong with a scan becomes a record; only the run's own troubles are raised."""

from __future__ import annotations

import socket
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone

from FewShotSegLib.cohort.config import CohortConfig
from FewShotSegLib.cohort.dicom import lacks_dicom_seg, with_dicom_seg
from FewShotSegLib.cohort.engine import Engine, Found, create_engine
from FewShotSegLib.cohort.history import keep_history, sweep
from FewShotSegLib.cohort.locks import Locks
from FewShotSegLib.cohort.manifest import Case
from FewShotSegLib.cohort.pictures import write_picture
from FewShotSegLib.cohort.places import Places
from FewShotSegLib.cohort.record import CaseRecord, OrganRecord, warnings_heard
from FewShotSegLib.cohort.stamps import Stamp
from FewShotSegLib.cohort.supports import CohortSupport, all_supports, is_current
from FewShotSegLib.dicom_seg import import_highdicom
from FewShotSegLib.download import sha256_of
from FewShotSegLib.errors import Cancelled, FewShotSegError, VolumeError
from FewShotSegLib.volume import Volume

ShouldCancel = Callable[[], bool]
TRACE_LINES = 12


def _never() -> bool:
    return False


@dataclass(eq=False)
class Worker:
    """What one worker holds: the model, the supports, and its locks. Made by `open_worker`; a context manager.

    `settings` is the digest of all that results depend on besides scans and supports. `cancelled` is asked often.
    """

    config: CohortConfig
    engine: Engine
    supports: tuple[CohortSupport, ...]
    settings: str
    locks: Locks
    cancelled: ShouldCancel = _never
    places: Places = field(init=False)

    def __post_init__(self) -> None:
        self.places = Places(self.config.output)

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *args: object) -> None:
        self.locks.close()


@dataclass(frozen=True, eq=False)
class Loaded:
    """A case whose lock is held and whose scan is in memory, and what was warned of; `error` where it cannot be read."""

    case: Case
    input: Stamp | None
    volume: Volume | None
    seconds: float
    error: FewShotSegError | None = None
    notes: tuple[str, ...] = ()


def open_worker(config: CohortConfig, device: str = "", cancelled: ShouldCancel = _never) -> Worker:
    """Load the model and the supports; heavy, once per process or device.

    Args:
        config: of the cohort.
        device: instead of the configuration's.
        cancelled: asked often; `run_case` raises Cancelled when it says True.

    Raises:
        FewShotSegError: drawings, options, checkpoint or device cannot be used.
    """
    if config.dicom_seg:
        import_highdicom()  # what is missing is told before anything is segmented
    supports = all_supports(config)
    engine = create_engine(config, supports, device)
    settings = config.settings(engine.checkpoint)
    return Worker(config, engine, supports, settings, Locks(Places(config.output).locks, settings), cancelled)


def run_case(case: Case, worker: Worker) -> CaseRecord:
    """Segment a case and write its result and record, unless that is done already or another run is at it.

    Returns:
        Its record. `fresh` is False where it was done before; status "busy" where another run has its lock.

    Raises:
        OutputError: nothing can be written (disk full, no permission): a trouble of the run, not of the case.
        Cancelled: nothing was written, the lock is given back.
    """
    loaded = read_case(case, worker)
    return loaded if isinstance(loaded, CaseRecord) else finish_case(loaded, worker)


def read_case(case: Case, worker: Worker) -> Loaded | CaseRecord:
    """The first half of `run_case`, for a thread that reads ahead: take the lock and read the scan, if there is work to do."""
    holder = worker.locks.take(case.name)
    if holder is not None:
        note = f"{holder.described} is at it"
        if holder.settings != worker.settings:
            note += ", with other settings"
        return CaseRecord(case.name, str(case.image), "busy", notes=(note,))
    if case.name in worker.locks.inherited:
        sweep(worker.places, case.name)
    try:
        found = _read(case, worker)
        if isinstance(found, CaseRecord):
            found = _completed(found, case, worker)
            worker.locks.release(case.name)
        return found
    except BaseException:
        worker.locks.release(case.name)
        raise


def _completed(record: CaseRecord, case: Case, worker: Worker) -> CaseRecord:
    """A finished case with the DICOM SEG that it may lack."""
    if lacks_dicom_seg(record, case, worker.config):
        record = with_dicom_seg(record, case, worker.config)
        record.write(worker.places.record(case.name))
    return record


def _read(case: Case, worker: Worker) -> Loaded | CaseRecord:
    before = CaseRecord.read(worker.places.record(case.name))
    started = time.perf_counter()
    stamp: Stamp | None = None
    try:
        if case.problem:
            raise VolumeError(case.problem, "a row with an image that exists and a name of its own", "correct the list")
        stamp = Stamp.of(case.image, before.input if before else None, verify=worker.config.verify)
        if before is not None and is_done(before, stamp, worker):
            return before
        with warnings_heard() as notes:
            volume = replace(Volume.read(case.image, series=case.series or None), name=case.name)
    except FewShotSegError as error:
        return Loaded(case, stamp, None, time.perf_counter() - started, error)
    except Exception as error:  # a reader may fail in any way on a damaged file
        return Loaded(case, stamp, None, time.perf_counter() - started, _unexpected(error))
    return Loaded(case, stamp, volume, time.perf_counter() - started, notes=tuple(notes))


def is_done(record: CaseRecord, stamp: Stamp | None, worker: Worker) -> bool:
    """Whether a case needs nothing: same scan, same settings, supports that teach it the same, and its result is there."""
    if record.status not in ("done", "corrected") or record.input is None or stamp is None:
        return False
    same = record.input.sha256 == stamp.sha256 and (record.status == "corrected" or record.settings == worker.settings)
    return same and is_current(record, worker.supports) and worker.places.result(record.name).is_file()


def finish_case(loaded: Loaded, worker: Worker) -> CaseRecord:
    """The second half of `run_case`: segment, write, give the lock back."""
    try:
        record, found = _segmented(loaded, worker)
        if worker.cancelled():
            raise Cancelled()
        if not worker.locks.is_mine(loaded.case.name):  # this machine slept, and another run took the case over
            return replace(record, status="busy", notes=(*record.notes, "another run took it over"))
        started = time.perf_counter()
        return _write(record, loaded, found, worker, started)
    finally:
        worker.locks.release(loaded.case.name)


def _segmented(loaded: Loaded, worker: Worker) -> tuple[CaseRecord, Found | None]:
    """The record of a case, its times but that of writing included, and what was found."""
    case, error, found = loaded.case, loaded.error, None
    started = time.perf_counter()
    if loaded.volume is not None:
        try:
            found = worker.engine.segment(loaded.volume, worker.cancelled)
        except Cancelled:
            raise
        except FewShotSegError as refused:
            error = refused
        except Exception as unexpected:  # one strange scan never stops the others
            error = _unexpected(unexpected)
    record = CaseRecord(
        case.name,
        str(case.image.absolute()),
        "failed" if found is None else "done",
        loaded.input,
        worker.settings,
        tuple(support.id for support in worker.supports),
        seconds={"read": round(loaded.seconds, 3), "segment": round(time.perf_counter() - started, 3)},
        host=socket.gethostname(),
        made_with=worker.engine.made_with(),
        notes=loaded.notes,
        error=_told(error),
    )
    return (record, None) if found is None else (_with_result(record, found), found)


def _with_result(record: CaseRecord, found: Found) -> CaseRecord:
    done, prediction = found.segmentation, found.prediction
    volumes = done.volumes_ml()
    organs = tuple(
        OrganRecord(organ.name, organ.label, volumes[organ.name], float(confidence), prediction.expected(organ.name))
        for organ, confidence in zip(done.organs, done.confidence, strict=True)
    )
    return replace(
        record,
        used=found.used,
        similarity=found.similarity,
        organs=organs,
        features=prediction.features,
        notes=(*record.notes, *done.notes),
    )


def _write(record: CaseRecord, loaded: Loaded, found: Found | None, worker: Worker, started: float) -> CaseRecord:
    """Write what belongs to a case, its record last: without a record that fits, a result does not count."""
    places, name = worker.places, record.name
    if found is not None and loaded.volume is not None:
        keep_history(places, name)
        path = found.segmentation.write(places.result(name))
        record = replace(record, result=sha256_of(path))
        if found.descriptor is not None:
            found.descriptor.write(places.descriptor(name))
        record = with_dicom_seg(record, loaded.case, worker.config, found.segmentation)
        if worker.config.pictures and not worker.config.dry_run:
            notes = write_picture(places.picture(name), loaded.volume, found.segmentation)
            record = replace(record, notes=(*record.notes, *notes))
    finished = datetime.now(timezone.utc).isoformat(timespec="seconds")
    seconds = {**record.seconds, "write": round(time.perf_counter() - started, 3)}
    record = replace(record, seconds=seconds, finished=finished)
    record.write(places.record(name))
    return record


def _told(error: FewShotSegError | None) -> dict[str, str]:
    return {} if error is None else {key: getattr(error, key) for key in ("found", "expected", "action")}


def _unexpected(error: Exception) -> FewShotSegError:
    """An error that nobody foresaw, with where it arose."""
    lines = "".join(traceback.format_exception(error)).strip().splitlines()[-TRACE_LINES:]
    reason = "The memory ran out" if isinstance(error, MemoryError) else f"{type(error).__name__}: {error}"
    return FewShotSegError(reason, "", "\n".join(["please report this:", *lines]))
