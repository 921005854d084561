"""Replicas kept running by Ray Serve: each is a whole server in a process of its own.

An actor starts that process, says where it listens, tells Serve whether it lives and how full it is,
and lets it drain when Serve wants it no more.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import urllib.request
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import ray
from ray import serve
from ray.serve.config import AutoscalingConfig, AutoscalingContext, AutoscalingPolicy

from engine.errors import BackendUnavailable
from server.cluster.options import ClusterOptions, check_room
from server.cluster.placement import wanted
from server.live.names import SECRET_HEADER, new_replica
from server.settings import PREFIX

DIRECTORY, APP = "portraittalk-directory", "portraittalk"
KNOWN = 256  # addresses
HEALTH_S = 1.0
MORE_S = 10.0  # than it may drain: for the notice and the end


class Directory:
    """Where replicas listen. Bound: 256; the oldest are forgotten, which are long dead."""

    def __init__(self) -> None:
        self._urls: OrderedDict[str, str] = OrderedDict()

    def say(self, name: str, url: str) -> None:
        """Note where a replica listens."""
        self._urls[name] = url
        while len(self._urls) > KNOWN:
            self._urls.popitem(last=False)

    def forget(self, name: str) -> None:
        """It is over."""
        self._urls.pop(name, None)

    def all(self) -> dict[str, str]:
        """Addresses by name."""
        return dict(self._urls)


class Replica:
    """One server, as Ray Serve sees it.

    Args:
        command: what starts it, without where it listens.
        environment: its settings, the cluster's secret among them.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._name, host = new_replica(), ray.util.get_node_ip_address()
        self._secret = environment[f"{PREFIX}CLUSTER_SECRET"]
        own = {f"{PREFIX}HOST": host, f"{PREFIX}PORT": "0", f"{PREFIX}REPLICA": self._name}
        # It ends when its standard input does: a server without its actor would be nobody's.
        self._child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment, **own},
        )
        assert self._child.stdout is not None
        line = next((line for line in self._child.stdout if line.startswith("http://")), "")
        port = line.strip().rstrip("/").rpartition(":")[2]
        if not port:
            raise RuntimeError(f"a server ended at start with status {self._child.wait()}")
        self._url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        self._directory = ray.get_actor(DIRECTORY, namespace=APP)
        ray.get(self._directory.say.remote(self._name, self._url))

    def check_health(self) -> None:
        """Raises `RuntimeError` if it has ended: Serve then starts another one."""
        if self._child.poll() is not None:
            raise RuntimeError(f"the server ended with status {self._child.returncode}")

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Places in use and places, for `scaled`."""
        report = await asyncio.to_thread(self._report)
        return {"in_use": float(report["live"]), "places": float(report["places"])}

    def _report(self) -> Any:
        request = urllib.request.Request(self._url + "/cluster/report")
        request.add_header(SECRET_HEADER, self._secret)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=2) as answer:
            return json.load(answer)

    async def __del__(self) -> None:
        """Let it drain, and wait for its end."""
        self._child.terminate()
        await asyncio.to_thread(self._child.wait)
        await self._directory.forget.remote(self._name)


def scaled(context: AutoscalingContext) -> tuple[int, dict[str, Any]]:
    """How many replicas Serve is to keep, by places in use."""
    metrics = context.aggregated_metrics or {}
    in_use, places = metrics.get("in_use", {}), metrics.get("places", {})
    least, most = context.capacity_adjusted_min_replicas, context.capacity_adjusted_max_replicas
    if not places:
        return context.target_num_replicas, context.policy_state
    count = wanted(sum(in_use.values()), sum(places.values()), len(places), least, most)
    return count, context.policy_state


def start(
    options: ClusterOptions, command: Sequence[str], environment: Mapping[str, str], drain_s: float
) -> Any:
    """Start or join Ray, run the replicas; returns the directory, an actor.

    Raises:
        BackendUnavailable: they do not start.
        ConfigError: the machines that there are have no room for the fewest.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    local = options.ray_address is None
    more: dict[str, Any] = {"include_dashboard": False} if local else {}
    if local and options.alone:
        more["_node_ip_address"] = "127.0.0.1"
    ray.init(address=options.ray_address, namespace=APP, logging_level="warning", **more)
    check_room(sum(bool(node["Alive"]) for node in ray.nodes()), options)
    directory: Any = ray.remote(Directory).options(name=DIRECTORY, num_cpus=0).remote()
    serve.start(proxy_location="Disabled")
    deployment = serve.deployment(
        Replica,
        autoscaling_config=AutoscalingConfig(
            min_replicas=options.min_replicas,
            max_replicas=max(options.min_replicas, options.max_replicas),
            upscale_delay_s=options.scale_up_s,
            downscale_delay_s=options.scale_down_s,
            metrics_interval_s=2.0,
            look_back_period_s=10.0,
            policy=AutoscalingPolicy(policy_function=scaled),
        ),
        ray_actor_options={"num_cpus": options.replica_cpus, "num_gpus": options.replica_gpus},
        max_replicas_per_node=options.per_machine,
        health_check_period_s=HEALTH_S,
        health_check_timeout_s=10.0,
        graceful_shutdown_timeout_s=drain_s + MORE_S,
        graceful_shutdown_wait_loop_s=0.1,
    )
    try:
        serve.run(deployment.bind(list(command), dict(environment)), name=APP, route_prefix=None)
    except RuntimeError as error:
        raise BackendUnavailable(f"the replicas do not start: {error}") from None
    return directory


def stop() -> None:
    """Let all replicas drain, then end Ray, or leave it."""
    serve.delete(APP)
    serve.shutdown()
    ray.shutdown()
