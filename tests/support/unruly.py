"""A network that does as a file tells it: raise, be slow, kill its process. Tests copy it to where workers look."""

from __future__ import annotations

import os
import signal
import threading
import time
from math import prod
from pathlib import Path

from torch import Tensor, nn


class Unruly(nn.Module):
    """A linear model.

    Before each training batch it reads `order` in its folder: `raise`, `slow SECONDS`, or `kill AFTER SECONDS`: its own
    process, after so many batches of so many seconds; `kill-once` likewise, and then `slow 0`; `hang-once`: wait for
    ever, which a file `hanging` tells, and then be good; or `hasty 0`: Ray Tune shall not wait for the end of a run
    that it stopped. It writes the number of its process and the time into `log`.
    """

    def __init__(self, input_shape: tuple[int, ...], num_outputs: int, *, folder: str) -> None:
        super().__init__()
        self.layer = nn.Linear(prod(input_shape), num_outputs)
        self.folder, self.batches = Path(folder), 0

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        if self.training and not x.is_meta and x.requires_grad is False:
            self._obey()
        logits: Tensor = self.layer(x.flatten(1))
        return logits

    def _obey(self) -> None:
        order = self.folder / "order"
        if not order.exists():
            return
        self.batches += 1
        with (self.folder / "log").open("a") as stream:
            stream.write(f"{os.getpid()} {time.time()}\n")
        words = order.read_text().split()
        if words[0] == "raise":
            raise RuntimeError("out of luck")
        if words[0] == "hang-once":
            order.rename(self.folder / "hanging")
            threading.Event().wait()
        if words[0] == "hasty":
            os.environ["TUNE_FUNCTION_THREAD_TIMEOUT_S"] = "0"
        time.sleep(float(words[-1]))
        if words[0].startswith("kill") and self.batches > int(words[1]):
            if words[0] == "kill-once":
                (self.folder / "good").write_text("slow 0")
                (self.folder / "good").replace(order)  # at once: others read it
            os.kill(os.getpid(), signal.SIGKILL)
