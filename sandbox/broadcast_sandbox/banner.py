"""The text that tells a person where everything is and what to try."""

from collections.abc import Mapping
from urllib.parse import urlsplit

from broadcast_sandbox.ports import SandboxPorts


def exports(environment: Mapping[str, str]) -> str:
    """Lines for a shell, secrets included: they are needed to start the service by hand."""
    quoted = {name: value.replace("'", "'\"'\"'") for name, value in environment.items()}
    return "\n".join(f"export {name}='{value}'" for name, value in quoted.items())


def banner(environment: Mapping[str, str], ports: SandboxPorts, *, time_scale: float, took_s: float) -> str:
    grpc_port = ports.grpc.number
    api = f"http://127.0.0.1:{grpc_port}/broadcast.v1.BroadcastService"
    # broadcastctl needs neither of these two if the ports are its defaults.
    target = "" if grpc_port == 50051 else f"BROADCAST_TARGET=127.0.0.1:{grpc_port} "
    control = environment["LIVEKIT_URL"]
    demo = f" --livekit-control {control}" if control != "http://127.0.0.1:7880" else ""
    curl = "buf curl --http2-prior-knowledge --protocol grpc"
    return f"""
The sandbox is up ({took_s:.1f} s).

  gRPC        127.0.0.1:{grpc_port}   broadcast.v1.BroadcastService, reflection, health
  HTTP        127.0.0.1:{ports.http.number}    /webhooks/livekit /webhooks/mux /livez /readyz
  LiveKit     {environment["LIVEKIT_URL"]}   simulated: /_state /_effects /_faults /_control/join ...
  Mux         {environment["MUX_BASE_URL"]}   simulated: /_state /_effects /_faults /playback/<id>.m3u8
  Storage     {environment["BROADCAST_S3_ENDPOINT"]}   simulated S3: /_state /_effects /_faults
  Postgres    {_without_password(environment["DATABASE_URL"])}
  The providers' time runs {time_scale:g} times as fast as yours (ARGS="--time-scale 1" for real waits).

A whole broadcast, drawn as it happens:

  {target}.venv/bin/broadcastctl demo{demo}

The same by hand:

  export PATH="$PWD/.venv/bin:$PATH"
  {curl} {api}/CreateBroadcast -d '{{"broadcast_id": "first", "spec": {{"title": "First light"}}}}'
  {curl} {api}/StartBroadcast  -d '{{"broadcast_id": "first", "wait": "10s"}}'
  curl -s {environment["LIVEKIT_URL"]}/_control/join -d '{{"room": "first", "identity": "ann", "publish": ["camera"]}}'
  {curl} {api}/GetBroadcast    -d '{{"broadcast_id": "first"}}'
  {curl} {api}/StopBroadcast   -d '{{"broadcast_id": "first", "wait": "30s"}}'

Ctrl-C ends all of it.
"""


def _without_password(url: str) -> str:
    """Neither password nor query, which may hold one too."""
    parts = urlsplit(url)
    user, at, address = parts.netloc.rpartition("@")
    return f"{parts.scheme}://{user.partition(':')[0]}{at}{address}{parts.path}"
