"""Metrics for Prometheus, in its text format 0.0.4."""

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import Any

from pipeline.access import Access
from pipeline.serving import PageServer

ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})
"""How the format has what would end a label's value."""


def exposition(status: dict[str, Any]) -> str:
    """The status of a live run as metrics."""
    lines: list[str] = []

    def metric(name: str, kind: str, text: str, values: list[tuple[str, float]]) -> None:
        lines.append(f"# HELP fauve_{name} {text}")
        lines.append(f"# TYPE fauve_{name} {kind}")
        lines.extend(f"fauve_{name}{labels} {value:.15g}" for labels, value in values)

    metric("frames_in_total", "counter", "Frames read from the source.", [("", status["frames_in"])])
    metric("repeated_total", "counter", "Times that the last frame was held.", [("", status["repeated"])])
    metric("painted_total", "counter", "Frames painted.", [("", status["painted"])])
    metric("dropped_total", "counter", "Frames the engine was too slow for.", [("", status["dropped"])])
    metric(
        "source_reconnects_total",
        "counter",
        "Times that a source which was lost came back.",
        [("", status["reconnects"])],
    )
    metric(
        "engine_restarts_total",
        "counter",
        "Times that an engine painted again after one that failed.",
        [("", status["engine_restarts"])],
    )
    metric("fps_in", "gauge", "Frames per second from the source.", [("", status["fps_in"])])
    metric("working_height", "gauge", "Height that is painted at, in pixels.", [("", status["height"])])
    metric("up", "gauge", "1 while source, engine and sinks work.", [("", int(not status["problem"]))])
    sinks = [
        ('{sink="' + name.translate(ESCAPES) + '"', counted) for name, counted in status["sinks"].items()
    ]
    for key, kind, text in (
        ("frames", "counter", "Frames that a sink passed on."),
        ("dropped", "counter", "Frames that a sink was too slow for, or whose server was away."),
        ("reconnects", "counter", "Times that a sink's server which was lost came back."),
        ("fps", "gauge", "Frames per second at a sink."),
    ):
        name = f"sink_{key}" + ("_total" if kind == "counter" else "")
        metric(name, kind, text, [(label + "}", counted[key]) for label, counted in sinks])
    quantiles = [
        (f'{label},quantile="{quantile}"}}', counted[key] / 1000)
        for label, counted in sinks
        for quantile, key in ((0.5, "p50_ms"), (0.95, "p95_ms"), (0.99, "p99_ms"))
    ]
    metric("latency_seconds", "gauge", "From capture to sink, over the last frames.", quantiles)
    return "\n".join(lines) + "\n"


class Metrics:
    """Serves the metrics of a run at /metrics.

    Args:
        status: gives the status of the run.

    Raises:
        SinkError: the port is taken.
    """

    def __init__(self, status: Callable[[], dict[str, Any]], host: str, port: int) -> None:
        access = Access(host)

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path, _, query = self.path.partition("?")
                if path != "/metrics" or not access.allows(query, self.headers):
                    self.send_error(404 if path != "/metrics" else 403)
                    return
                # The name of a file can be any bytes.
                content = exposition(status()).encode(errors="replace")
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = PageServer("--metrics", host, port, Handler)
        self.url = access.url(self._server.server_port, "metrics")
        threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True).start()

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
