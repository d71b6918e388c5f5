"""Commands about clusters: checking the files that start them, and sending a study to one as a job."""

from __future__ import annotations

import argparse
import datetime
import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from subsettune.cli import commands
from subsettune.cli.interrupt import INTERRUPTED
from subsettune.report.patience import Patience

if TYPE_CHECKING:
    from subsettune.cluster.job_server import JobServer
    from subsettune.cluster.submit import JobRequest

# What `tune` is told as `submit` was: flags with a value, and without one.
PASSED = ("trials", "parallel", "seeds", "time_limit_s", "device", "data_root", "cache")
PASSED_ON = ("no_download", "fresh_seeds", "accept_no_policy")


def check_file(options: argparse.Namespace) -> int:
    """Say that a launcher file or a RayJob is sound; its mistakes are an error."""
    with Patience(sys.stderr, "loading packages"):
        from subsettune.study.execute.ray_import import importing_ray

        with importing_ray():
            from subsettune.cluster.check import check

    kind = check(options.file)
    print(f"{options.file}: a sound {kind}.")
    return 0


def submit_study(options: argparse.Namespace) -> int:
    """Send a study to a cluster as a job, and with `--follow` give its exit code."""
    with Patience(sys.stderr, "loading packages"):
        from subsettune.study.execute.ray_import import importing_ray

        with importing_ray():
            from subsettune.cluster import job_server, submit
            from subsettune.study.results.folder import check_run_id

    check_run_id(options.run_id)
    submit.check_storage(options.storage)
    address = submit.job_server_address(options.address)
    folder, notes = _packed(options)
    server = job_server.JobServer(address)
    run = submit.run_name(options.storage, options.run_id)
    job = server.running(run)
    if job is None:
        request = _request(options, server, run)
        _say(*notes, f"The same by Ray's own command: {request.line(address, has_token=server.has_token)}")
        server.submit(request, folder)
        job = request.job
        _say(f"Job {job} drives study {options.run_id}.")
    else:
        _say(f"Job {job} drives study {options.run_id} already: nothing was submitted.")
    return _watched(options, server, job)


def _packed(options: argparse.Namespace) -> tuple[Path, list[str]]:
    """The folder that goes along, and what there is to know of it; what would be missed there is an error."""
    from subsettune.cluster.package import check_package, weigh

    study = commands.read_study(options)
    package = weigh(Path.cwd())
    return package.folder, check_package(package, options.study, study, options.data_root)


def _request(options: argparse.Namespace, server: JobServer, run: str) -> JobRequest:
    from subsettune.cluster.submit import JobRequest

    began = datetime.datetime.now(datetime.UTC).strftime("%Y%m%d-%H%M%S")
    job = f"{re.sub('[^A-Za-z0-9_.-]', '-', options.run_id)}-{began}"
    file = Path(options.study).absolute().relative_to(Path.cwd())
    words = ["python", "-m", "subsettune.cli", "tune", str(file), "--address", "auto"]
    words += ["--storage", options.storage, "--run-id", options.run_id]
    values = {name: getattr(options, name) for name in PASSED}
    for name, value in values.items():
        words += [f"--{name.replace('_', '-')}", str(value)] if value not in (None, "auto") else []
    words += ["--warm-start", *options.warm_start] if options.warm_start else []
    words += [f"--{name.replace('_', '-')}" for name in PASSED_ON if getattr(options, name)]
    hints = {commands.SUBMITTED: options.command_line, commands.STOP: _stop_words(job, server)}
    return JobRequest(job=job, run=run, words=tuple(words), variables=hints)


def _stop_words(job: str, server: JobServer) -> str:
    token = ["RAY_AUTH_MODE=token"] if server.has_token else []
    return shlex.join([*token, "ray", "job", "stop", job, "--address", server.address])


def _watched(options: argparse.Namespace, server: JobServer, job: str) -> int:
    status = shlex.join(["subsettune", "status", options.run_id, "--storage", options.storage])
    follow = options.command_line if options.follow else f"{options.command_line} --follow"
    hints = f"To stop it: {_stop_words(job, server)}; to follow it: {follow}; to see how far it is: {status}"
    _say(hints)
    if not options.follow:
        print(job)
        return commands.DONE
    options.answer.what = "No longer following"
    try:
        end = server.follow(job, _write, _say)
    except KeyboardInterrupt:
        _say(f"The job goes on. {hints}")
        return INTERRUPTED
    _say(end.words)
    return end.code


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _say(*sentences: str) -> None:
    for sentence in sentences:
        print(sentence, file=sys.stderr, flush=True)
