"""The job server of a Ray cluster: reached, asked and followed, with a sentence for each way in which that fails.

Ray's client sets no limits of time, so each call is made in a thread of its own: whoever waits for it hears Ctrl-C, and
a link that was lost is told.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import queue
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Any, TypeVar

from ray.dashboard.modules.job import pydantic_models, sdk
from ray.exceptions import AuthenticationError
from ray.job_submission import JobSubmissionClient

from subsettune.cluster.submit import ADDRESS_VARIABLES, RUN, JobRequest
from subsettune.errors import MissingPackageError, StudyError
from subsettune.loggers import quieted
from subsettune.patience import in_thread

T = TypeVar("T")
INTERRUPTED = 130
ANSWER_S = 15.0  # that a job server gets for an answer
UPLOAD_S = 600.0  # likewise for what goes along with a job
READY_S, NOT_READY = 60.0, "No available agent"  # what a head says that has just started, and how long it is heard
LOST_S = 120.0  # that a server which has answered is waited for: a link that is down, a head that restarts
ASKED_EVERY_S = 3.0  # whether a job has ended, beside the end of its log
LAST_LINES_S = 10.0  # that the log of a job which has ended gets for its last lines
ENDED = ("SUCCEEDED", "FAILED", "STOPPED")
AGENT_ADVICE = (
    "See dashboard_agent.log of the head node; two clusters on one machine need --dashboard-agent-listen-port each."
)
MISSING, INVALID = "Missing authentication token", "Invalid authentication token"  # in what Ray's server answers
ADDRESS_ADVICE = "Give the address of a cluster's dashboard, such as http://HOST:8265, and see that it is up."
TOKEN_ADVICE = "Copy ~/.ray/auth_token of its head node to this machine, or set RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH."
NOT_RAYS = (KeyError, TypeError, ValueError)  # of answers that are no job server's: no JSON, another one, no version
LACKS_PACKAGE = "No module named subsettune"
LOGGERS = (
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
    "ray._private.runtime_env.working_dir",
)
MOST_WORDS = 300  # of what a server says


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEnd:
    """How a job has ended.

    Args:
        code: exit code of its command, 130 where it was stopped.
        words: in a sentence.
    """

    code: int
    words: str


class JobServer:
    """A job server that has answered.

    Args:
        address: its URL.

    Raises:
        MissingPackageError: Ray's client for it is not installed.
        StudyError: there is none at that address, or it takes no job of ours.
    """

    def __init__(self, address: str) -> None:
        if getattr(sdk, "aiohttp", None) is None or pydantic_models.JobDetails is None:
            advice = 'Install it: pip install "subsettune[jobs]"'
            raise MissingPackageError(f"subsettune submit needs ray[default], which is not installed. {advice}")
        self.address, self.has_token = address, False
        self._client = self._connected()

    def _connected(self) -> JobSubmissionClient:
        """A client with the token of the cluster, if that asks for one: nobody else gets to see it."""
        try:
            return self._opened({})
        except AuthenticationError as error:
            token = _token()
            if MISSING not in str(error) or token is None:
                raise self._unwanted(error) from error
        try:
            client = self._opened({"Authorization": f"Bearer {token}"})
        except AuthenticationError as error:
            raise self._unwanted(error) from error
        self.has_token = True
        return client

    def _unwanted(self, error: AuthenticationError) -> StudyError:
        if INVALID in str(error):
            return StudyError(f"the cluster at {self.address} refuses the token of this machine. {TOKEN_ADVICE}")
        if MISSING in str(error):
            return StudyError(f"the cluster at {self.address} asks for a token, and here is none. {TOKEN_ADVICE}")
        return StudyError(f"what answers at {self.address} asks for a password, and is no job server. {ADDRESS_ADVICE}")

    def _opened(self, headers: dict[str, str]) -> JobSubmissionClient:
        with _addressed_here():
            try:
                return in_thread(lambda: JobSubmissionClient(self.address, headers=headers), ANSWER_S)
            except AuthenticationError:
                raise
            except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
                message = f"no job server of Ray answers at {self.address}: {_reason(error)}. {ADDRESS_ADVICE}"
                raise StudyError(message) from error

    def running(self, run: str) -> str | None:
        """The job that drives a study at this moment, or waits to; None without one.

        Args:
            run: `run_name` of the study.
        """
        jobs = self._ask(self._client.list_jobs)
        found = [one for one in jobs if (one.metadata or {}).get(RUN) == run and one.status.value not in ENDED]
        known = sorted((one.start_time or 0, one.submission_id) for one in found if one.submission_id)
        return known[0][1] if known else None

    def submit(self, request: JobRequest, folder: Path) -> None:
        """Send a folder and have a command run in a copy of it; a cluster that is just starting is waited for.

        Args:
            request: the job.
            folder: that goes along.

        Raises:
            StudyError: the server refuses it.
        """
        until_s = monotonic() + READY_S
        while True:
            try:
                with quieted(*LOGGERS):
                    in_thread(lambda: self._sent(request, folder), UPLOAD_S)
                return
            except (OSError, RuntimeError, ValueError, AuthenticationError) as error:
                is_early = NOT_READY in str(error)
                if not is_early or monotonic() > until_s:
                    message = f"the job server at {self.address} took no job: {_reason(error)}."
                    advice = AGENT_ADVICE if is_early else "Mend it, and start the same command again."
                    raise StudyError(f"{message} Nothing runs. {advice}") from error
                sleep(1)

    def _sent(self, request: JobRequest, folder: Path) -> None:
        self._client.submit_job(
            entrypoint=request.entrypoint,
            submission_id=request.job,
            runtime_env={**request.runtime_env, "working_dir": str(folder)},
            metadata=request.metadata,
        )

    def follow(self, job: str, write: Callable[[str], object], note: Callable[[str], object]) -> JobEnd:
        """Pass the log of a job on until the job has ended.

        Args:
            job: its submission id.
            write: is given the log, in pieces.
            note: is told what is not of the log.

        Raises:
            StudyError: the server has not answered for two minutes; the job may go on.
        """
        shown = 0
        while True:
            shown = self._pass_on(job, write, note, shown)
            info = self._patiently(job, note)
            shown = self._catch_up(job, write, shown)
            if info.status.value in ENDED:
                return _end(job, info)
            sleep(ASKED_EVERY_S)  # its log broke off, or has not begun

    def _pass_on(self, job: str, write: Callable[[str], object], note: Callable[[str], object], shown: int) -> int:
        """The log from its beginning, without what was shown; how much is shown when it breaks off, or the job ends."""
        pieces: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        threading.Thread(target=_read_log, args=(self._client, job, pieces.put), daemon=True).start()
        passed, asked_s, ended_s = 0, monotonic(), None
        while True:
            with contextlib.suppress(queue.Empty):
                piece = pieces.get(timeout=0.2)
                if piece is None:
                    return max(shown, passed)
                write(piece[max(0, shown - passed) :])
                passed += len(piece)
            now_s = monotonic()
            if ended_s is None and now_s - asked_s > ASKED_EVERY_S:
                ended_s = now_s if self._patiently(job, note).status.value in ENDED else None
                asked_s = monotonic()
            elif ended_s is not None and now_s - ended_s > LAST_LINES_S:
                return max(shown, passed)

    def _catch_up(self, job: str, write: Callable[[str], object], shown: int) -> int:
        """What the log has beyond what was shown, asked for as a whole: proxies let no stream through, some of them."""
        with contextlib.suppress(OSError, RuntimeError, AuthenticationError):  # the next look at the job tells
            log = in_thread(lambda: self._client.get_job_logs(job), ANSWER_S)
            write(log[shown:])
            return max(shown, len(log))
        return shown

    def _patiently(self, job: str, note: Callable[[str], object]) -> Any:
        """What the server says of a job; it is asked again while it does not answer."""
        first_s: float | None = None
        while True:
            try:
                info = in_thread(lambda: self._client.get_job_info(job), ANSWER_S)
            except (OSError, RuntimeError, AuthenticationError) as error:
                now_s = monotonic()
                if first_s is None:
                    first_s = now_s
                    note(f"{self.address} does not answer; it is tried again for {LOST_S:.0f} s. {_reason(error)}.")
                if now_s - first_s > LOST_S:
                    raise StudyError(
                        f"the job server at {self.address} answers no more: {_reason(error)}. Job {job} may go on. To "
                        "follow it again, once the server is back, start the same command."
                    ) from error
                sleep(2)
            else:
                if first_s is not None:
                    note(f"{self.address} answers again.")
                return info

    def _ask(self, call: Callable[[], T]) -> T:
        try:
            return in_thread(call, ANSWER_S)
        except (OSError, RuntimeError, AuthenticationError) as error:
            message = f"the job server at {self.address} does not say which jobs run: {_reason(error)}. Try again."
            raise StudyError(message) from error


def _read_log(client: JobSubmissionClient, job: str, put: Callable[[str | None], None]) -> None:
    """Read a log to its end, or to where it breaks off: what the server says of the job tells which it was."""

    async def read() -> None:
        async for piece in client.tail_job_logs(job):
            put(piece)

    try:
        with quieted(*LOGGERS):
            asyncio.run(read())
    except Exception as error:  # whatever the network, aiohttp or a server that ends raise
        logging.getLogger("subsettune").debug("the log of %s broke off: %s", job, error)
    finally:
        put(None)


def _end(job: str, info: Any) -> JobEnd:
    status, code = info.status.value, info.driver_exit_code
    if status == "SUCCEEDED":
        return JobEnd(code=0, words=f"Job {job} is done.")
    if status == "STOPPED":
        return JobEnd(code=INTERRUPTED, words=f"Job {job} was stopped; what is finished is kept.")
    message = " ".join((info.message or "no reason given").split())
    if code is None:
        raise StudyError(
            f"job {job} failed beside its command: {_short(message).rstrip('.')}. Start the same command again."
        )
    if LACKS_PACKAGE in message.replace("'", ""):
        advice = 'Install it there, with the version that is here: pip install "subsettune[tune]"'
        raise StudyError(f"job {job} failed: the nodes of the cluster have no subsettune. {advice}")
    return JobEnd(code=code, words=f"Job {job} ended with exit code {code}.")


def _short(words: str) -> str:
    return words if len(words) <= MOST_WORDS else f"{words[:MOST_WORDS].rstrip('. ')} ..."


def _token() -> str | None:
    """The token of this user's clusters, where Ray has it."""
    if os.environ.get("RAY_AUTH_TOKEN"):
        return os.environ["RAY_AUTH_TOKEN"].strip()
    with contextlib.suppress(OSError, RuntimeError, UnicodeDecodeError):
        path = os.environ.get("RAY_AUTH_TOKEN_PATH")
        return (Path(path) if path else Path.home() / ".ray" / "auth_token").read_text().strip() or None
    return None


@contextlib.contextmanager
def _addressed_here() -> Iterator[None]:
    """Keep Ray's client from going where its variables say rather than where it is sent."""
    before = {name: os.environ.pop(name) for name in ADDRESS_VARIABLES if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(before)


def _reason(error: BaseException) -> str:
    """What went wrong, in the system's words rather than in those of the four libraries around them."""
    behind = _behind(error)
    for one in behind:
        if isinstance(one, socket.gaierror):
            return "there is no host of that name, or no network"
        if isinstance(one, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted ({one.verify_message})"
        if isinstance(one, ssl.SSLError):
            return "it speaks no TLS; write http://"
        if type(one).__module__ == "builtins" and isinstance(one, OSError) and one.strerror:
            return one.strerror[:1].lower() + one.strerror[1:]
    for one in behind:
        status = getattr(getattr(one, "response", None), "status_code", None)
        if status is not None and status >= 400 and status != 404:
            return f"it answers with HTTP {status}"
        if isinstance(one, NOT_RAYS) or "404" in str(one):
            return "what answers there is none"
    return _short(" ".join(str(error).split()).rstrip(".")) or type(error).__name__


def _behind(error: BaseException) -> list[BaseException]:
    """An error and all that it was made of."""
    found: list[BaseException] = []
    waiting: list[object] = [error]
    while waiting:
        one = waiting.pop()
        if isinstance(one, BaseException) and one not in found:
            found.append(one)
            waiting += [one.__cause__, one.__context__, getattr(one, "reason", None), *one.args]
    return found
