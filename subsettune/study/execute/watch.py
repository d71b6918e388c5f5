"""Between a source of runs and those who watch it."""

from __future__ import annotations

from subsettune.report.progress import Observer
from subsettune.study.execute.sequence import Pause, RunRequest, RunSource
from subsettune.study.results.records import RunRecord
from subsettune.train.result import CurvePoint


class ObservedSource:
    """A source whose observer is told when runs start and how they go."""

    def __init__(self, source: RunSource, observer: Observer) -> None:
        self._source, self._observer = source, observer

    def next(self) -> RunRequest | Pause:
        """The source's next run; the observer learns that it starts."""
        request = self._source.next()
        if isinstance(request, RunRequest):
            self._observer.run_started(request.name)
        return request

    def progress(self, request: RunRequest, point: CurvePoint) -> bool:
        """Pass a point on to both; the source decides."""
        self._observer.run_progress(request.name, point.share, point.metric)
        return self._source.progress(request, point)

    def finished(self, request: RunRequest, record: RunRecord) -> None:
        """Pass a record on to the source, which tells the observer once it is on disk."""
        self._source.finished(request, record)
