"""A study as a job of a Ray cluster: what is asked of the job server, and the line of Ray's own that asks the same."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from subsettune.config import must
from subsettune.errors import ConfigError
from subsettune.keys import has_keys, masked

STOP_WAIT_S = 60  # between the signal of `ray job stop` and the kill: Ray's own 3 s are over before a study is reported
RUN = "subsettune-run"  # metadata of a job: which study it drives
ADDRESS_VARIABLES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")  # which Ray's client obeys rather than what it is given


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRequest:
    """A job that drives a study; nothing in it is secret.

    Args:
        job: its submission id, which no other job of the cluster has.
        run: `run_name` of the study.
        words: of the command that it runs, in a copy of the working folder.
        variables: of its environment, beside ours.
    """

    job: str
    run: str
    words: tuple[str, ...]
    variables: Mapping[str, str]

    @property
    def entrypoint(self) -> str:
        """The command, for a shell."""
        return shlex.join(self.words)

    @property
    def metadata(self) -> dict[str, str]:
        """By which the jobs of a study are known."""
        return {RUN: self.run}

    @property
    def runtime_env(self) -> dict[str, Any]:
        """Ray's runtime environment of it, without the folder. SIGTERM, Ray's usual signal, is what stops a study."""
        return {"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_S), **self.variables}}

    def line(self, address: str, *, has_token: bool) -> str:
        """The same by Ray's own command, in the same folder.

        Args:
            address: of the job server.
            has_token: whether it asks for the token of the cluster.
        """
        unset = [word for name in ADDRESS_VARIABLES if name in os.environ for word in ("-u", name)]
        before = ["env", *unset] if unset else []
        before += ["RAY_AUTH_MODE=token"] if has_token else []
        words = [*before, "ray", "job", "submit", "--address", address, "--submission-id", self.job]
        words += ["--working-dir", ".", "--no-wait", "--runtime-env-json", json.dumps(self.runtime_env)]
        return shlex.join([*words, "--metadata-json", json.dumps(self.metadata), "--", *self.words])


def run_name(storage: str, run_id: str) -> str:
    """A study as jobs name it: the place of its storage, and its run id."""
    return f"{storage.partition('?')[0].rstrip('/')} {run_id}"


def job_server_address(given: str | None) -> str:
    """The address of a job server, from the flag or the variables that Ray has for it.

    Raises:
        ConfigError: it is none, or it holds a password.
    """
    address = given or next((os.environ[name] for name in ADDRESS_VARIABLES if os.environ.get(name)), None)
    try:
        parts = urlsplit(address or "")
        is_url = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        is_url = False
    if address is None or not is_url:
        advice = "It is that of the cluster's dashboard; `ray dashboard cluster.yaml` makes it http://127.0.0.1:8265."
        raise ConfigError(must("--address", "a URL such as http://HOST:8265", address, advice))
    if parts.username is not None or parts.password is not None:
        message = "--address must be without a name and a password: it is printed, and jobs know it. Take them out."
        raise ConfigError(message)
    return address.rstrip("/")


def check_storage(storage: str) -> None:
    """Refuse a storage that a job would not share with whoever looks at it, and one with keys in it.

    Raises:
        ConfigError: it is such a one; keys are not repeated.
    """
    if "://" not in storage:
        if not Path(storage).is_absolute():
            advice = (
                "In a job it would lie in a copy of this folder. Give a bucket, or the path of a folder all nodes have."
            )
            raise ConfigError(must("--storage", "a URI or an absolute path", storage, advice))
        return
    if has_keys(storage):
        advice = "Whoever sees the job would see them. Give the nodes a role, or set them where Ray is started there."
        raise ConfigError(must("--storage", "without keys", masked(storage), advice))
