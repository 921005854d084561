"""A cluster of fake servers on loopback: `python -m tests.server.fake_cluster --port N --replicas N`."""

from __future__ import annotations

import argparse
import os
import sys

from server.cluster.options import ClusterOptions
from server.cluster.run import environment_of, serve_cluster
from server.settings import ServerSettings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int)
    parser.add_argument("--replicas", type=int, default=3)
    parser.add_argument("--most", type=int, default=0)
    flags = parser.parse_args()
    options = ClusterOptions(
        min_replicas=flags.replicas,
        max_replicas=flags.most,
        per_machine=10,
        replica_cpus=0.1,
        alone=True,
        scale_up_s=1.0,
        scale_down_s=2.0,
    )
    settings = ServerSettings.merge(os.environ, {"port": flags.port})
    command = [sys.executable, "-m", "tests.server.fake_server", "--step-ms", "1"]
    serve_cluster(options, settings, command, environment_of({}, os.environ))


if __name__ == "__main__":
    main()
