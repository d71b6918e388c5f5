"""Tokens of Ray clusters: a driver sends one where the cluster wants one, and none where it has none.

Ray itself goes by what lies in the home folder. A study on this machine leaves a token there, `--address auto` then
sends it to any cluster, and refuses the answers of one without tokens: each of its actors dies before it runs. An
explicit address never sends one, and so reaches no cluster with tokens. So the cluster is asked what it takes.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

from ray._private.services import canonicalize_bootstrap_address
from ray._raylet import AuthenticationTokenLoader, Config, GcsClient  # type: ignore[attr-defined] # its stub has none
from ray.exceptions import AuthenticationError

MODE = "RAY_AUTH_MODE"
CLIENT = "ray://"
ANSWER_S = 10  # of a cluster that has just answered a greeting
WHERE = "Put that of its head node, ~/.ray/auth_token, into the same file here, or into RAY_AUTH_TOKEN."


@contextlib.contextmanager
def mode_restored() -> Iterator[None]:
    """Put the setting back as it was: the next cluster that this process meets may be another one."""
    before = os.environ.get(MODE)
    try:
        yield
    finally:
        if os.environ.get(MODE) != before:
            _set(before)


def match(address: str) -> str | None:
    """Set RAY_AUTH_MODE of this process to what the cluster at an address takes.

    Args:
        address: `auto`, `HOST:6379` or `ray://HOST:10001`; something answers there.

    Returns:
        What stands in the way, to be read behind the name of the cluster; None for nothing.

    Raises:
        ConnectionError, ImportError, RayError, ValueError: what Ray says of an address that it cannot use.
    """
    takes = _client_takes if address.startswith(CLIENT) else _takes
    place = address.removeprefix(CLIENT) if address.startswith(CLIENT) else canonicalize_bootstrap_address(address)
    if place is None or takes(place, "disabled"):
        _set("disabled")
        return None
    problem = _no_token()
    if problem is None and not takes(place, "token"):
        problem = "wants another token than the one here"
    return None if problem is None else f"{problem}. {WHERE}"


def _set(mode: str | None) -> None:
    if mode is None:
        os.environ.pop(MODE, None)
    else:
        os.environ[MODE] = mode
    Config.initialize("")  # which Ray has read already


def _no_token() -> str | None:
    loader = AuthenticationTokenLoader.instance()
    loader.reset_cache()
    try:
        has_token = loader.has_token(ignore_auth_mode=True)
    except AuthenticationError as error:  # a path that was given, with nothing there
        return f"wants a token, and there is none: {str(error).partition('. ')[0]}"
    return None if has_token else "wants a token, and there is none here"


def _takes(place: str, mode: str) -> bool:
    """Whether the cluster lets in a driver of this mode."""
    _set(mode)
    try:
        with _muted():
            GcsClient(address=place).internal_kv_exists(b"subsettune", namespace=b"subsettune", timeout=ANSWER_S)
    except AuthenticationError:
        return False
    return True


def _client_takes(place: str, mode: str) -> bool:
    """Whether the server of ray:// does: any answer to an empty question but that of a stranger."""
    import grpc

    if os.environ.get("RAY_USE_TLS"):  # which it asks of this process in ways of its own
        return True
    _set(mode)
    loader = AuthenticationTokenLoader.instance()
    headers = loader.get_token_for_http_header() if mode == "token" else {}
    with grpc.insecure_channel(place) as channel:
        try:
            channel.unary_unary("/ray.rpc.RayletDriver/ClusterInfo")(
                b"", timeout=ANSWER_S, metadata=tuple(headers.items())
            )
        except grpc.RpcError as error:
            return error.code() is not grpc.StatusCode.UNAUTHENTICATED
    return True


@contextlib.contextmanager
def _muted() -> Iterator[None]:
    """Keep off the terminal what Ray's C++ code says of being refused."""
    sys.stderr.flush()
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)
