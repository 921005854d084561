"""What it costs to hear with a HuBERT: processor time of a window against its length, and of a second of sound.

Random weights of the public sizes: the time does not depend on them. A window is `left` frames of
20 ms of context, the hop whose features are kept, and 60 ms of look-ahead; it is run once a hop, so that a
second of sound takes 1000 / hop windows. Two cores keep up where that is below two seconds of
processor time, less what the picture takes.

Example: python -m benchmarks.hubert --out runs/hubert.json
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import HubertConfig, HubertModel

from benchmarks.environment import describe, print_header, print_json
from engine.audio.hubert import HubertWindow, hubert_spec, window_of
from engine.backends import Graph, load_backend
from engine.backends.torch_graph import TorchGraph
from engine.config import SPEECH_HOPS_MS
from engine.nets.hubert_graph import HubertGraph
from exports.hubert import export_hubert

LARGE = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
}
ROUNDS = 3


def cost_s(graph: Graph, samples: int) -> float:
    """Processor time of one window, the least of some runs."""
    sound = 0.1 * np.random.default_rng(0).standard_normal((1, samples)).astype(np.float32)
    taken = []
    for _ in range(ROUNDS + 1):
        began = time.process_time()
        graph(window=sound)
        taken.append(time.process_time() - began)
    return min(taken[1:])


def measure(net: HubertModel, window: HubertWindow, folder: Path) -> dict[str, Any]:
    """One row: the cost of that window on each run time."""
    module = HubertGraph(net, window)
    path = folder / f"{window.left}-{window.hop}.onnx"
    error = export_hubert(module, window, path)
    spec = hubert_spec(window, module.width)
    graphs = {name: load_backend(name, threads=1).load(spec, path) for name in RUN_TIMES}
    costs = {name: cost_s(graph, window.samples) for name, graph in graphs.items()}
    costs["torch"] = cost_s(TorchGraph(module, spec), window.samples)
    path.unlink()
    a_second = 1000 / (20 * window.hop)
    return {
        "hop_ms": 20 * window.hop,
        "context_ms": 20 * window.left,
        "window_ms": round(window.samples / 16),
        "look_ahead_ms": 20 * window.hop + 120,
        "largest_error": float(f"{error:.1e}"),
        "cpu_s_a_window": {name: round(cost, 3) for name, cost in costs.items()},
        "cpu_s_a_second": {name: round(a_second * cost, 2) for name, cost in costs.items()},
    }


RUN_TIMES = ("openvino", "onnxruntime")


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=("base", "large"), default="base", help="(base)")
    parser.add_argument("--out", type=Path, help="also write the JSON to this file")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    about = describe()
    print_header(f"hubert-{args.size}, random weights: one thread, processor time", about)
    net = HubertModel(HubertConfig(**(LARGE if args.size == "large" else {}))).eval()
    windows = [window_of(hop) for hop in SPEECH_HOPS_MS]
    windows += [HubertWindow(left=left) for left in (0, 50, 100)]
    rows = []
    with tempfile.TemporaryDirectory() as name:
        for window in windows:
            rows.append(row := measure(net, window, Path(name)))
            print(
                f"  hop {row['hop_ms']:3} ms, window {row['window_ms']:4} ms: a window "
                f"{row['cpu_s_a_window']}, a second of sound {row['cpu_s_a_second']}",
                flush=True,
            )
    print_json({"benchmark": "hubert", "size": args.size, "rows": rows, **about}, args.out)


if __name__ == "__main__":
    main()
