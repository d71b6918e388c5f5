"""The model of what is known now: fitted once for each trial that ends, and kept while nothing else is learnt."""

from __future__ import annotations

from dataclasses import replace

from subsettune.study.search.belief import Belief
from subsettune.study.search.earlier import EarlierStudy
from subsettune.study.search.encoding import Encoding
from subsettune.study.search.needs import Needs
from subsettune.study.search.observations import SearchEvidence
from subsettune.study.search.places import Places
from subsettune.study.search.problem import Known
from subsettune.study.search.process import Process
from subsettune.study.search.sightings import MAX_POINTS
from subsettune.study.spec.space import Space


class CurrentModel:
    """What is believed of policies and what they need, made when it is asked for.

    Args:
        space: to search.
        evidence: shared with the search, which fills it and says when.
        known: before the first trial.
        seed: of the search.
    """

    def __init__(self, space: Space, evidence: SearchEvidence, known: Known, seed: int) -> None:
        self._encoding = Encoding(space)
        self._places = Places(self._encoding, known)
        self._evidence = evidence
        self.known = known
        self.seed = seed
        self._earlier: tuple[Process, ...] | None = None
        self._belief: Belief | None = None
        self._needs: Needs | None = None

    def of(self, evidence: SearchEvidence) -> CurrentModel:
        """The model of other evidence of the same search."""
        other = CurrentModel(self._places.space, evidence, self.known, self.seed)
        other._earlier = self._fitted()
        return other

    def start(self) -> None:
        """A trial began: what is expected of those that run has changed, and nothing was learnt."""
        self._needs = None

    def end(self) -> None:
        """A trial ended, or is no longer awaited."""
        self._belief = self._needs = None

    def needs(self) -> Needs | None:
        """What each policy needs; None before anything is known."""
        if self._needs is None and (belief := self._believed()) is not None:
            self._needs = Needs(belief)
        return self._needs

    def _believed(self) -> Belief | None:
        is_known = self.known.reference is not None or any(tried.has_ended for tried in self._evidence)
        if self._belief is None and is_known:
            self._belief = Belief(self._places, self._evidence, self._fitted())
        return self._belief

    def _fitted(self) -> tuple[Process, ...]:
        """What was fitted to each earlier study, once."""
        if self._earlier is None:
            self._earlier = tuple(self._fit(study) for study in self.known.earlier)
        return self._earlier

    def _fit(self, study: EarlierStudy) -> Process:
        assert self.known.reference is not None, "differences to it are what earlier studies tell"
        own = replace(self.known, reference=study.reference, num_references=study.num_references, earlier=())
        evidence = study.evidence(self.known.reference - self._evidence.target)
        most = max(MAX_POINTS // len(self.known.earlier), 1)
        return Belief(Places(self._encoding, own), evidence, most=most).process
