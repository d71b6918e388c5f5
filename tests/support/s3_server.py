"""A real server that speaks S3, on this machine, behind a proxy that can be taken away."""

from __future__ import annotations

import contextlib
import urllib.request
from collections.abc import Iterator

import pytest
from proxy import Proxy

from subsettune.study.results import lease
from subsettune.study.results.lease import LeaseTimes

KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
# The server keeps a socket for each connection that pyarrow holds open until the process ends.
MARKS = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:(moto|botocore|boto3|werkzeug).*"),
]


@contextlib.contextmanager
def bucket() -> Iterator[tuple[str, Proxy]]:
    """URI of a folder in a fresh bucket, and the proxy; what is needed to reach it is in the query and environment."""
    server_module = pytest.importorskip("moto.server")
    import boto3

    server = server_module.ThreadedMotoServer(port=0, verbose=False)
    server.start()
    proxy = Proxy(("127.0.0.1", server.get_host_and_port()[1]))
    host, port = "127.0.0.1", proxy.port
    reset = urllib.request.Request(f"http://{host}:{port}/moto-api/reset", method="POST")
    urllib.request.urlopen(reset).close()  # servers of one process share what they hold
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**KEYS, "AWS_EC2_METADATA_DISABLED": "true"}.items():
            patch.setenv(name, value)
        boto3.client("s3", endpoint_url=f"http://{host}:{port}").create_bucket(Bucket="bucket")
        patch.setattr(lease, "LeaseTimes", lambda: LeaseTimes(settle=0.1))  # here nobody starts at the same moment
        yield f"s3://bucket/runs?endpoint_override={host}%3A{port}&scheme=http&region=us-east-1", proxy
        proxy.close()
        server.stop()
