"""Tokens of Ray clusters: a driver sends one where the cluster wants one, and none where it has none.

Ray itself goes by what lies in the home folder. A cluster on this machine leaves a token there, `--address auto` then
sends it to any cluster, and refuses the answers of one without tokens: each of its actors dies before it runs. An
explicit address never sends one, and so reaches no cluster with tokens. So the cluster is asked what it takes, and one
that a study starts for itself keeps its token in the environment of its processes.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator, Mapping

from ray._private.services import canonicalize_bootstrap_address
from ray._raylet import AuthenticationTokenLoader, Config, GcsClient  # type: ignore[attr-defined] # its stub has none
from ray.exceptions import AuthenticationError

from subsettune.study.execute.ray_noise import cpp_lines_dropped

MODE = "RAY_AUTH_MODE"
TOKEN = "RAY_AUTH_TOKEN"
CLIENT = "ray://"
ANSWER_S = 10  # of a cluster that has just answered a greeting
WHERE = "Put that of its head node, ~/.ray/auth_token, into the same file here, or into RAY_AUTH_TOKEN."


@contextlib.contextmanager
def settings_restored() -> Iterator[None]:
    """Put the settings back as they were: the next cluster that this process meets may be another one."""
    before = {name: os.environ.get(name) for name in (MODE, TOKEN)}
    try:
        yield
    finally:
        changed = {name: value for name, value in before.items() if os.environ.get(name) != value}
        if changed:
            _set(changed)


def provide_token() -> None:
    """Give a cluster that is about to start a token of its own where none is there.

    Ray would write one into the home folder, and every cluster that is started later would want it.
    """
    if os.environ.get(MODE) != "disabled" and not _has_token():
        _set({TOKEN: secrets.token_hex(32)})


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
        _set({MODE: "disabled"})
        return None
    if not _has_token():
        return f"wants a token, and there is none here. {WHERE}"
    return None if takes(place, "token") else f"wants another token than the one here. {WHERE}"


def _set(values: Mapping[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    Config.initialize("")  # Ray has read both already
    AuthenticationTokenLoader.instance().reset_cache()


def _has_token() -> bool:
    """Whether there is one, in the environment or the home folder."""
    loader = AuthenticationTokenLoader.instance()
    loader.reset_cache()
    try:
        return bool(loader.has_token(ignore_auth_mode=True))
    except AuthenticationError:  # RAY_AUTH_TOKEN_PATH, with nothing there
        return False


def _takes(place: str, mode: str) -> bool:
    """Whether the cluster lets in a driver of this mode."""
    _set({MODE: mode})
    try:
        with cpp_lines_dropped():
            GcsClient(address=place).internal_kv_exists(b"subsettune", namespace=b"subsettune", timeout=ANSWER_S)
    except AuthenticationError:
        return False
    return True


def _client_takes(place: str, mode: str) -> bool:
    """Whether the server of ray:// does: any answer to an empty question but that of a stranger."""
    from ray.util.client.worker import grpc  # type: ignore[attr-defined] # comes with Ray's client, an extra of Ray's

    if os.environ.get("RAY_USE_TLS"):  # which it asks of this process in ways of its own
        return True
    _set({MODE: mode})
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
