"""What can be removed: cached data, cached references, and old studies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from subsettune.data import DataPaths, cached, remove_cached
from subsettune.errors import StudyError
from subsettune.storage import Folder
from subsettune.study.results.folder import StudyFolder, not_there


@dataclass(frozen=True, slots=True, kw_only=True)
class Removable:
    """One thing that `remove` removes.

    Args:
        kind: `data`, `references` or `study`.
        name: what it is, for people.
        folder: of it; None for cached data, which are removed under their lock.
        fingerprint: of cached data.
        num_bytes: its size.
        used: when it was last used, for people.
    """

    kind: str
    name: str
    folder: Folder | None = None
    fingerprint: str = ""
    num_bytes: int
    used: str = ""

    def row(self) -> dict[str, Any]:
        """As the table shows it."""
        return {"kind": self.kind, "path": self.name, "num_bytes": self.num_bytes, "used": self.used}


def find(storage: str, places: DataPaths, *, runs: Sequence[str], caches: bool) -> list[Removable]:
    """What would be removed.

    Args:
        storage: folder or URI of studies.
        places: where this machine keeps caches.
        runs: studies to remove.
        caches: whether cached data and references go too.

    Raises:
        StudyError: a study of that name is not there.
    """
    found = []
    for run in runs:
        study = StudyFolder(storage, run)
        if not study.folder.exists():
            raise StudyError(not_there(storage, run))
        found.append(_folder("study", study.folder))
    if caches:
        references = Folder.at(places.cache_folder) / "references"
        found += [_folder("references", references / name) for name in references.names()]
        found += [
            Removable(
                kind="data", name=item.source, fingerprint=item.fingerprint, num_bytes=item.num_bytes, used=item.used
            )
            for item in cached(places)
        ]
    return found


def remove(found: Sequence[Removable], places: DataPaths | None = None) -> None:
    """Remove what `find` found."""
    for item in found:
        if item.folder is not None:
            item.folder.remove()
        else:
            remove_cached(item.fingerprint, places or DataPaths())


def _folder(kind: str, folder: Folder) -> Removable:
    return Removable(kind=kind, name=str(folder), folder=folder, num_bytes=folder.total_bytes())
