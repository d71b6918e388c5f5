"""What this machine lends to a study: the CPU cores that this process may use, and the GPUs that torch finds."""

from __future__ import annotations

import math
import os
from pathlib import Path

import torch

from subsettune.study.spec.definition import StudySettings

_QUOTAS = ("/sys/fs/cgroup/cpu.max", "/sys/fs/cgroup/cpu/cpu.cfs_quota_us")  # of cgroup 2, and of cgroup 1


def num_cores() -> int:
    """CPU cores of this process: those that it may run on, and no more than its control group pays for."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota()
    return allowed if quota is None else max(1, min(allowed, math.ceil(quota)))


def num_gpus() -> int:
    """GPUs that torch finds."""
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _quota() -> float | None:
    """CPU seconds a second that the control group may use; None where nothing limits it."""
    try:
        quota, period = Path(_QUOTAS[0]).read_text().split()
    except (OSError, ValueError):
        try:
            quota = Path(_QUOTAS[1]).read_text().strip()
            period = Path(_QUOTAS[1]).with_name("cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    return int(quota) / int(period) if quota.isdigit() and int(period) > 0 else None


def slots(settings: StudySettings) -> int:
    """Runs that this machine takes at a time, `parallel` at most; 1 where not even one fits, which is refused apart."""
    by_cores = num_cores() // settings.cpus_per_trial
    gpus, share = num_gpus(), settings.gpus_per_trial
    by_gpus = settings.parallel if share == 0 else gpus * int(1 / share + 1e-9) if share < 1 else int(gpus // share)
    return max(1, min(settings.parallel, by_cores, by_gpus))
